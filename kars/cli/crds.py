"""`kars crds`: the CustomResourceDefinitions that this version of kars works with."""

from __future__ import annotations

import time

import click

from kars.cli import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from kars.kube.definitions import Applied
    from kars.model.base import Resource

EPILOG = """\b
Examples:
  kars crds list
  kars crds print | kubectl apply --server-side -f -
  kars crds print karssandboxes
  kars crds apply --dry-run
  kars crds apply --context staging
"""


@click.group(epilog=EPILOG)
def crds() -> None:
    """Show the custom resource definitions, and apply them to a cluster."""


@crds.command("list", epilog=EPILOG)
@output.option
def list_kinds(form: str) -> int:
    """List the kinds, with what kubectl calls them."""
    from kars.model.kinds import KINDS

    kinds = [
        (kind.__name__, kind.NAMES, "Namespaced" if kind.NAMES.namespaced else "Cluster") for kind in KINDS.values()
    ]
    if form == "json":
        heads = ("kind", "plural", "shortName", "scope", "shortNames")
        rows = [(kind, names.plural, names.short, scope, [names.short, *names.also]) for kind, names, scope in kinds]
        output.document("CrdList", {"crds": [dict(zip(heads, row, strict=True)) for row in rows]})
        return 0
    # Where there is another short name, kubectl takes the first for a kind of Kubernetes' own.
    table = [(kind, names.plural, (*names.also, names.short)[0], scope) for kind, names, scope in kinds]
    for line in output.columns(("KIND", "PLURAL", "SHORT", "SCOPE"), table):
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


@crds.command("apply", epilog=EPILOG)
@click.argument("kinds", nargs=-1, metavar="[KIND]...")
@click.option("--kubeconfig", default="", metavar="FILE", help="Kubeconfig instead of KUBECONFIG or ~/.kube/config.")
@click.option("--context", default="", metavar="NAME", help="Context instead of the kubeconfig's current one.")
@click.option("--dry-run", "dry", is_flag=True, help="Only ask the API server what would happen.")
@click.option("--force-conflicts", "force", is_flag=True, help="Take fields over that another manager owns.")
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(0, 3600),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Time for all of them to be served.",
)
@output.option
def apply(
    *, kinds: tuple[str, ...], kubeconfig: str, context: str, dry: bool, force: bool, seconds: float, form: str
) -> int:
    """Apply the definitions of KINDs, or of all, to a cluster.

    Returns when they are served. Server-side apply as field manager kars-crds; what stands already as it should is
    left alone.

    The exit status is 1 when a definition could not be applied or is not served in time, 3 when there is no cluster.
    """
    import asyncio

    from kars.model import crds as definitions
    from kars.model.kinds import KINDS

    chosen = [find(name) for name in kinds] or list(KINDS.values())
    documents = [definitions.definition(kind) for kind in chosen]
    return asyncio.run(bring(documents, kubeconfig, context, dry=dry, force=force, seconds=seconds, form=form))


async def bring(
    documents: list[dict[str, Any]],
    kubeconfig: str,
    context: str,
    *,
    dry: bool,
    force: bool,
    seconds: float,
    form: str,
) -> int:
    """Apply definitions and print what became of them."""
    from kars.kube import definitions
    from kars.kube.client import Client

    width = max(len(one["metadata"]["name"]) for one in documents)
    done = []
    async with await Client.connect(kubeconfig=kubeconfig, context=context) as client:
        click.echo(f"{client.described}, {client.server}", err=True)
        began = time.monotonic()
        async for one in definitions.apply(client, documents, dry=dry, force=force, seconds=seconds):
            done.append(one)
            if form != "json":
                words = f"{one.outcome} (dry run)" if dry else one.outcome
                click.echo(f"{one.name:<{width}}  {output.styled(words, 'bad' if one.error else 'good')}")
        where = {"server": client.server, "dryRun": dry}
    failed = [one for one in done if one.error]
    if form == "json":
        rows = [
            {"name": one.name, "outcome": one.outcome, "established": one.established, "error": one.error}
            for one in done
        ]
        output.document("CrdApply", where | {"crds": rows})
    complain(failed)
    if not failed and not dry:
        click.echo(f"{len(done)} served after {time.monotonic() - began:.1f} s", err=True)
    return 1 if failed else 0


def complain(failed: Iterable[Applied]) -> None:
    """Say what went wrong, once for definitions that went wrong alike, and each hint once."""
    hints = []
    alike: dict[str, list[Applied]] = {}
    for one in failed:
        alike.setdefault(one.error.replace(one.name, "NAME"), []).append(one)
    for first, *others in alike.values():
        more = f" (and {len(others)} more likewise)" if others else ""
        click.echo(f"error: {first.name}: {output.plain(first.error)}{more}", err=True)
    for one in failed:
        if one.hint and one.hint not in hints:
            hints.append(one.hint)
    for hint in hints:
        click.echo(f"hint: {hint}", err=True)


def find(name: str) -> type[Resource]:
    """Find a kind, or say which there are."""
    from kars.errors import NotFoundError
    from kars.model import kinds

    kind = kinds.find(name)
    if kind is None:
        raise NotFoundError(f"there is no kind {name}", hint=f"kinds: {', '.join(kinds.KINDS)}")
    return kind
