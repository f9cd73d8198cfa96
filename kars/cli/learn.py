"""`kars policy learn`: from what was recorded to a small allowlist that a person can review."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from kars.cli import output, recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kars.policy.recorded import Row

EPILOG = """\b
Examples:
  kars policy learn                              # what this sandbox's router has recorded, and the allowlist for it
  kars policy learn --from egress-learned.jsonl --write allowlist.json
  kars policy learn --diff /etc/kars/egress/allowlist.json
  kars policy learn --audit /var/log/kars/audit -o json
"""


@click.command(epilog=EPILOG)
@recorded.options
@click.option("--collapse", is_flag=True, help="Join names below one domain into the domain where several were seen.")
@click.option("--write", metavar="FILE", help="Write the allowlist to FILE; - prints the allowlist alone.")
@click.option("--force", is_flag=True, help="Let --write replace a file.")
@click.option("--diff", "current", metavar="FILE", help="Show what changes against this allowlist.json.")
@output.option
def learn(
    *,
    source: str | None,
    audit: Path | None,
    router: str,
    collapse: bool,
    write: str | None,
    force: bool,
    current: str | None,
    form: str,
) -> None:
    """Turn recorded connections into a minimal allowlist for review.

    Only connections that were let pass count. The result is compiled as the router would; nothing is put in force.
    """
    from kars.policy import kinds, load, publish
    from kars.policy.propose import propose

    rows = [row for row in recorded.rows(source, audit, router) if row.allowed]
    text = propose(rows, collapse=collapse)
    publish.compile_bundle(kinds.ALLOWLIST, [(kinds.ALLOWLIST.file, text.encode())])
    change = None if current is None else difference(load.read(current), text.encode())
    if write is not None and write != "-":
        save(Path(write), text, force=force)
    if form == "json":
        import msgspec

        fields = {"rows": msgspec.to_builtins(rows), "allowlist": json.loads(text)}
        output.document("EgressProposal", fields if change is None else {**fields, "diff": change})
    elif write == "-":
        click.echo(text.rstrip("\n"))
    else:
        show(rows, text, change, write)


def show(rows: list[Row], text: str, change: dict[str, list[object]] | None, write: str | None) -> None:
    """Print the table, then the allowlist or what changes; advice goes to standard error."""
    if rows:
        for line in output.columns(recorded.HEADS, map(recorded.cells, rows), right=recorded.NUMBERS):
            click.echo(line)
        click.echo()
    else:
        click.echo(
            "Nothing was recorded. Turn learn mode on (`kars egress learn on`) and let the agent work.", err=True
        )
    if change is not None:
        for sign, style, entries in (("-", "bad", change["removed"]), ("+", "good", change["added"])):
            for entry in entries:
                click.echo(output.styled(f"{sign} {json.dumps(entry)}", style))
        if not change["removed"] and not change["added"]:
            click.echo("No difference.")
    elif write is None:
        click.echo(text.rstrip("\n"))
    if write is not None:
        click.echo(f"Wrote {write}. Review it, then `kars policy replay {write}` shows what it would refuse.", err=True)


def difference(before: bytes, after: bytes) -> dict[str, list[object]]:
    """Compare two allowlists entry by entry; an endpoint that says more than a host and a port is compared whole."""
    old, new = entries(before), entries(after)
    return {
        "removed": [old[key] for key in sorted(old.keys() - new.keys())],
        "added": [new[key] for key in sorted(new.keys() - old.keys())],
    }


def entries(data: bytes) -> dict[str, object]:
    """Read an allowlist's endpoints, each under its canonical text."""
    from kars.errors import PolicyError

    try:
        document = json.loads(data)
        listed = document["endpoints"]
        named = [{**entry, "port": entry.get("port", 443)} for entry in listed]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError("--diff: not an allowlist: no list of endpoints") from error
    return {json.dumps(entry, sort_keys=True): entry for entry in named}


def save(path: Path, text: str, *, force: bool) -> None:
    """Write the file in one step, so that a router that watches it never sees half of it."""
    from kars.errors import FailureError

    if path.exists() and not force:
        raise FailureError(f"{path}: exists already", hint=f"--diff {path} shows what changes, --force replaces it")
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise FailureError(f"{path}: {error.strerror}") from error
