"""Where recorded connections come from: the router's table, a file, or the audit log."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kars.policy.recorded import Row

# The router's table is at most some MiB; what is larger is something else.
MAX_BYTES = 64 * 1024 * 1024
HEADS = ("HOST", "PORT", "DOOR", "METHOD", "PATH", "COUNT", "FIRST SEEN (UTC)", "LAST SEEN (UTC)")
NUMBERS = frozenset({"PORT", "COUNT"})

router_option = click.option(
    "--router",
    default="",
    metavar="PORT|URL",
    help="The router to ask; else this environment's own (ROUTER_PORT).",
)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--from`, `--audit` and `--router`."""
    source = click.option(
        "--from",
        "source",
        metavar="FILE",
        help="Saved answer of GET /egress/learned, or the router's own egress-learned.jsonl; - for standard input.",
    )
    audit = click.option(
        "--audit", type=click.Path(path_type=Path), help="Take the connections from the audit log in this directory."
    )
    return source(audit(router_option(command)))


def rows(source: str | None, audit: Path | None, router: str) -> list[Row]:
    """Read the recorded connections."""
    from kars.policy import recorded

    if sum((source is not None, audit is not None, bool(router))) > 1:
        raise click.UsageError("--from, --audit and --router exclude each other")
    if audit is not None:
        from kars.local import trail

        return recorded.of_audit(trail.records(audit, holding=b'"action":"egress:'))
    if source is not None:
        return recorded.parse(read(source))
    from kars.router import own

    answer = own.ask("GET", "/egress/learned", recorded.Table, router=router)
    if answer.dropped:
        click.echo(f"The router had no room for {answer.dropped} more; `kars egress clear` makes some.", err=True)
    return answer.rows()


def read(source: str) -> bytes:
    """Read a file or standard input, bounded."""
    from kars.errors import FailureError, NotFoundError

    try:
        if source == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(source, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"{source}: no such file") from error
    except OSError as error:
        raise FailureError(f"{source}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise FailureError(f"{source}: more than {MAX_BYTES} bytes")
    return data


def cells(row: Row) -> tuple[str, ...]:
    """Lay a row out under `HEADS`."""
    from kars.policy.recorded import stamp

    return (
        row.host,
        str(row.port),
        row.door,
        row.method or "-",
        row.path or "-",
        str(row.count),
        stamp(row.first_seen),
        stamp(row.last_seen),
    )
