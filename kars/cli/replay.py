"""`kars policy replay`: which recorded connections a candidate would flip, before it is in force."""

from __future__ import annotations

from pathlib import Path

import click

from kars.cli import output, recorded
from kars.policy import kinds, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kars.policy.recorded import Row
    from kars.router.tools import Judged

EPILOG = """\b
Examples:
  kars policy replay allowlist.json                                # against what this router has recorded
  kars policy replay ./egress --from egress-learned.jsonl
  kars policy replay allowlist.json --audit /var/log/kars/audit --against /etc/kars/egress
"""

HEADS = ("FLIP", "COUNT", "DOOR", "HOST", "PORT", "METHOD", "PATH", "RULE")


@click.command(epilog=EPILOG)
@click.argument("candidate", nargs=-1, required=True, type=click.Path(path_type=Path))
@recorded.options
@click.option(
    "--against",
    multiple=True,
    type=click.Path(path_type=Path),
    help="The lists in force, a directory or files: show flips in both directions against them.",
)
@output.option
def replay(
    *,
    candidate: tuple[Path, ...],
    source: str | None,
    audit: Path | None,
    router: str,
    against: tuple[Path, ...],
    form: str,
) -> int:
    """Decide recorded connections anew by CANDIDATE: allowlist.json, approval-*.json, or directories of them.

    Without --against a connection flips when the candidate decides it otherwise than it was decided when recorded.
    Blocklists and the address guard are no part of a candidate. The exit status is 0 when nothing that passes now would
    be refused, else 4.
    """
    from kars.router import tools

    rows = recorded.rows(source, audit, router)
    after = tools.replay(bundle(candidate), rows)
    before = [row.allowed for row in rows]
    if against:
        before = [judged.allowed for judged in tools.replay(bundle(against), rows)]
    flips = [(row, new) for row, was, new in zip(rows, before, after, strict=True) if was != new.allowed]
    denied = sum(not new.allowed for _, new in flips)
    if form == "json":
        document(len(rows), flips)
    else:
        show(len(rows), flips)
    return 4 if denied else 0


def bundle(paths: tuple[Path, ...]) -> list[tuple[str, bytes]]:
    """Read the candidate's files: one allowlist and any approvals, valid each."""
    from kars.errors import NotFoundError, UsageError
    from kars.policy import publish

    lists: list[Path] = []
    approvals: list[Path] = []
    for path in paths:
        if path.is_dir():
            lists += [path / name for name in load.find(str(path), kinds.ALLOWLIST) if not kinds.APPROVAL.takes(name)][
                :1
            ]
            approvals += [path / name for name in load.find(str(path), kinds.APPROVAL)]
        elif not path.exists():
            raise NotFoundError(f"{path}: no such file or directory")
        else:
            (approvals if kinds.APPROVAL.takes(path.name) else lists).append(path)
    if len(lists) != 1:
        found = ", ".join(str(path) for path in lists) or "none"
        raise UsageError(f"one allowlist is needed, not {len(lists)} ({found})", hint="approvals only add to it")
    files = [(kinds.ALLOWLIST.file, load.read(str(lists[0])))]
    publish.compile_bundle(kinds.ALLOWLIST, files)
    extra = [(path.name, load.read(str(path))) for path in approvals]
    for problem in publish.compile_bundle(kinds.APPROVAL, extra).problems:
        click.echo(f"passed over: {problem}", err=True)
    return files + extra


def document(total: int, flips: list[tuple[Row, Judged]]) -> None:
    """Print the result for machines."""
    import msgspec

    listed = [
        {"flip": flip(new), "rule": new.rule, "hint": new.hint, "row": msgspec.to_builtins(row)} for row, new in flips
    ]
    denied = sum(not new.allowed for _, new in flips)
    counts = {"rows": total, "denied": denied, "allowed": len(flips) - denied}
    output.document("EgressReplay", {**counts, "flips": listed})


def show(total: int, flips: list[tuple[Row, Judged]]) -> None:
    """Print the flips for people, what would be refused first, and what would help."""
    ordered = sorted(flips, key=lambda pair: (pair[1].allowed, -pair[0].count))
    if ordered:
        lines = output.columns(HEADS, [cells(row, new) for row, new in ordered], right=frozenset({"COUNT", "PORT"}))
        click.echo(lines[0])
        for line, (_, new) in zip(lines[1:], ordered, strict=True):
            click.echo(output.styled(line, "good" if new.allowed else "bad"))
            if new.hint and not new.allowed:
                click.echo(f"{'':{len('allowed')}}  {output.plain(new.hint)}")
    denied = sum(not new.allowed for _, new in flips)
    click.echo(
        f"{total} recorded destinations: {denied} would be denied, {len(flips) - denied} would be allowed, "
        f"{total - len(flips)} stay as they are."
    )


def cells(row: Row, new: Judged) -> tuple[str, ...]:
    """Lay one flip out under `HEADS`."""
    return flip(new), str(row.count), row.door, row.host, str(row.port), row.method or "-", row.path or "-", new.rule


def flip(new: Judged) -> str:
    """Name what becomes of a connection."""
    return "allowed" if new.allowed else "denied"
