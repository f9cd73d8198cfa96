"""`kars crds`: the CustomResourceDefinitions that this version of kars works with."""

from __future__ import annotations

import click

from kars.cli import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kars.model.base import Resource

EPILOG = """\b
Examples:
  kars crds list
  kars crds print | kubectl apply --server-side -f -
  kars crds print karssandboxes
"""


@click.group(epilog=EPILOG)
def crds() -> None:
    """Show the custom resource definitions."""


@crds.command("list", epilog=EPILOG)
@output.option
def list_kinds(form: str) -> int:
    """List the kinds, with what kubectl calls them."""
    from kars.model.kinds import KINDS

    rows = [
        (kind.__name__, kind.NAMES.plural, kind.NAMES.short, "Namespaced" if kind.NAMES.namespaced else "Cluster")
        for kind in KINDS.values()
    ]
    heads = ("kind", "plural", "shortName", "scope")
    if form == "json":
        output.document("CrdList", {"crds": [dict(zip(heads, row, strict=True)) for row in rows]})
        return 0
    for line in output.columns(("KIND", "PLURAL", "SHORT", "SCOPE"), rows):
        click.echo(line)
    return 0


@crds.command("print", epilog=EPILOG)
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
@click.option("-o", "--output", "form", type=click.Choice(["yaml", "json"]), default="yaml", help="YAML or JSON.")
def print_definitions(kinds: tuple[str, ...], form: str) -> int:
    """Print the definitions of KINDs, or of all, as kubectl takes them.

    A KIND may be a kind, its plural or its short name.
    """
    from kars.model import crds as definitions
    from kars.model.kinds import KINDS

    chosen = [find(name) for name in kinds] or list(KINDS.values())
    documents = [definitions.definition(kind) for kind in chosen]
    if form == "json":
        import json

        whole = {"apiVersion": "v1", "kind": "List", "items": documents}
        click.echo(json.dumps(documents[0] if len(kinds) == 1 else whole, indent=2))
    else:
        click.echo(definitions.to_yaml(documents), nl=False)
    return 0


def find(name: str) -> type[Resource]:
    """Find a kind, or say which there are."""
    from kars.errors import NotFoundError
    from kars.model import kinds

    kind = kinds.find(name)
    if kind is None:
        raise NotFoundError(f"there is no kind {name}", hint=f"kinds: {', '.join(kinds.KINDS)}")
    return kind
