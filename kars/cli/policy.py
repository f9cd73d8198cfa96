"""`kars policy`: what the router would say of policy files, without a router."""

from __future__ import annotations

from pathlib import Path

import click

from kars.cli import learn, output, replay
from kars.policy import kinds, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kars.policy.publish import Snapshot

EPILOG = """\b
Examples:
  kars policy {command} inference-policy.json
  kars policy {command} allowlist.json
  kars policy {command} approval-ci.json approval-docs.json
"""

kind_option = click.option(
    "--kind",
    type=click.Choice(list(kinds.KINDS)),
    help="Kind of bundle; else allowlist*.json and approval-*.json tell by name, and the rest is InferencePolicy.",
)
files_argument = click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path())


@click.group()
def policy() -> None:
    """Check policy files, and make egress allowlists of what was recorded."""


@policy.command(epilog=EPILOG.format(command="validate"))
@files_argument
@kind_option
@output.option
def validate(files: tuple[str, ...], kind: str | None, form: str) -> int:
    """Decode and compile FILE as the router would; the exit status is 1 when it is not valid.

    Approvals may be several files; each stands alone, and what the router would pass over is told.
    """
    chosen, snapshot = compiled(files, kind)
    if form == "json":
        show(files, chosen, snapshot)
    elif not snapshot.problems:
        click.echo(f"{' '.join(files)}: valid {chosen.name}, {snapshot.digest}")
    for problem in snapshot.problems:
        click.echo(f"not valid: {problem}", err=True)
    return 1 if snapshot.problems else 0


@policy.command(epilog=EPILOG.format(command="digest"))
@files_argument
@kind_option
@output.option
def digest(files: tuple[str, ...], kind: str | None, form: str) -> int:
    """Print the digest of FILE, under which the router reports an InferencePolicy or EgressAllowlist in force.

    Of approvals it is the digest of the files; the router reports the one of the lists that they make together.
    """
    chosen, snapshot = compiled(files, kind)
    if form == "json":
        show(files, chosen, snapshot)
    else:
        click.echo(snapshot.digest)
    for problem in snapshot.problems:
        click.echo(f"not valid: {problem}", err=True)
    return 1 if snapshot.problems else 0


def compiled(files: tuple[str, ...], name: str | None) -> tuple[kinds.Kind, Snapshot]:
    """Compile files; the kind and the snapshot."""
    from kars.policy import publish

    kind = kinds.KINDS[name] if name else guess(files[0])
    if kind.file and len(files) > 1:
        raise click.UsageError(f"{kind.name} is one file, not {len(files)}")
    given = [(kind.file or Path(file).name, load.read(file)) for file in files]
    return kind, publish.compile_bundle(kind, sorted(given))


def guess(file: str) -> kinds.Kind:
    """Tell a file's kind by its name, as the mounts name them."""
    name = Path(file).name
    if kinds.APPROVAL.takes(name):
        return kinds.APPROVAL
    return kinds.ALLOWLIST if name.startswith("allowlist") else kinds.INFERENCE


def show(files: tuple[str, ...], kind: kinds.Kind, snapshot: Snapshot) -> None:
    """Print the result as JSON."""
    fields = {"policyKind": kind.name, "digest": snapshot.digest, "problems": list(snapshot.problems)}
    output.document("PolicyDigest", {"file": files[0], "files": list(files), **fields})


policy.add_command(learn.learn)
policy.add_command(replay.replay)
