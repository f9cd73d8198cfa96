"""`kars policy`: what the router would say of a policy file, without a router."""

from __future__ import annotations

import click

from kars.cli import output
from kars.policy import kinds, load

EPILOG = """\b
Examples:
  kars policy validate inference-policy.json
  kars policy digest inference-policy.json
"""

kind_option = click.option(
    "--kind",
    type=click.Choice(list(kinds.KINDS)),
    default=kinds.INFERENCE.name,
    show_default=True,
    help="Kind of bundle.",
)


@click.group()
def policy() -> None:
    """Check policy files before they are mounted."""


@policy.command(epilog=EPILOG)
@click.argument("file", type=click.Path())
@kind_option
@output.option
def validate(file: str, kind: str, form: str) -> None:
    """Decode and compile FILE as the router would; the exit status is 1 when it is not valid."""
    digest = compiled(file, kind)
    if form == "json":
        show(file, kind, digest)
    else:
        click.echo(f"{file}: valid {kind}, {digest}")


@policy.command(epilog=EPILOG)
@click.argument("file", type=click.Path())
@kind_option
@output.option
def digest(file: str, kind: str, form: str) -> None:
    """Print the digest under which the router reports FILE once it is in force."""
    value = compiled(file, kind)
    if form == "json":
        show(file, kind, value)
    else:
        click.echo(value)


def compiled(file: str, kind: str) -> str:
    """Compile a file; its digest."""
    from kars.policy import publish

    return publish.compile_bundle(kinds.KINDS[kind], load.read(file)).digest


def show(file: str, kind: str, digest: str) -> None:
    """Print the result as JSON."""
    output.document("PolicyDigest", {"file": file, "policyKind": kind, "digest": digest})
