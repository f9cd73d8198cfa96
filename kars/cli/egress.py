"""`kars egress`: what this sandbox's router lets out, over its admin routes."""

from __future__ import annotations

import json
import sys
import time
from urllib.parse import quote

import click

from kars.cli import moments, output, recorded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kars.router import own

EPILOG = """\b
Examples:
  kars egress status
  kars egress blocked --since 10m --top 5
  kars egress blocked --watch
  kars egress learn on
  ADMIN_TOKEN=... kars egress learned --router 8443 -o json
"""

BLOCKED_HEADS = ("HOST", "PORT", "SANDBOX", "COUNT", "FIRST SEEN (UTC)", "LAST SEEN (UTC)")
TOP_HEADS = ("HOST", "COUNT")
NUMBERS = frozenset({"PORT", "COUNT"})
# The bundles that decide about egress, as the policy status names them.
EGRESS_KINDS = {"EgressAllowlist": "allowlist", "EgressApproval": "approvals"}
# The router's own bound of `top`.
MOST_TOP = 100


@click.group(epilog=EPILOG)
def egress() -> None:
    """Show and steer what this sandbox's router lets out."""


@egress.command(epilog="\b\nExamples:\n  kars egress status\n  kars egress status -o json\n")
@recorded.router_option
@output.option
def status(router: str, form: str) -> None:
    """Show the mode, the lists and their errors.

    Also how much was learned and blocked.
    """
    from kars.router import own

    blocklist = own.ask("GET", "/blocklist/status", own.Blocklist, router=router)
    allowlist = own.ask("GET", "/egress/allowlist", own.Allowlist, router=router)
    blocked = own.ask("GET", "/internal/egress/blocked", own.BlockedTable, router=router)
    bundles = own.ask("GET", "/internal/policy-status", own.Bundles, router=router)
    lists = {bundle.kind: bundle for bundle in bundles.entries if bundle.kind in EGRESS_KINDS}
    if form == "json":
        import msgspec

        fields = {
            "mode": mode(blocklist.learn_mode),
            "hosts": allowlist.count,
            "bundles": msgspec.to_builtins(list(lists.values())),
            "blocklist": {"enabled": blocklist.enabled, "names": blocklist.domain_count},
            "learned": blocklist.learned_domains,
            "blocked": blocked.total,
        }
        output.document("EgressStatus", fields)
        return
    rows = [
        ("mode", f"{mode(blocklist.learn_mode)}{' (everything that no list denies may leave)' * blocklist.learn_mode}")
    ]
    rows += [(label, bundle_text(lists.get(kind))) for kind, label in EGRESS_KINDS.items()]
    rows += [
        ("hosts", str(allowlist.count)),
        ("blocklist", f"{blocklist.domain_count} names" if blocklist.enabled else "off"),
        ("learned", f"{blocklist.learned_domains} hosts"),
        ("blocked", f"{blocked.total} destinations lately"),
    ]
    output.table((name, output.plain(value)) for name, value in rows)


def mode(learns: bool) -> str:
    """Name the mode."""
    return "learn" if learns else "strict"


def bundle_text(bundle: own.Bundle | None) -> str:
    """Say what is in force of one kind."""
    if bundle is None:
        return "none is mounted"
    text = f"{bundle.digest or 'none in force'}  {bundle.loaded_at}".rstrip()
    return f"{text}  error: {bundle.last_error}" if bundle.last_error else text


@egress.command(epilog="\b\nExamples:\n  kars egress learned\n  kars egress learned --since 1d --top 20\n")
@moments.option
@click.option("--top", type=click.IntRange(min=1), help="Only the most frequent ones.")
@recorded.router_option
@output.option
def learned(*, since: int, top: int | None, router: str, form: str) -> None:
    """Show what learn mode recorded."""
    rows = [row for row in recorded.rows(None, None, router) if row.last_seen >= since]
    if top is not None:
        rows = sorted(rows, key=lambda row: -row.count)[:top]
    if form == "json":
        import msgspec

        output.document("EgressLearned", {"count": len(rows), "connections": msgspec.to_builtins(rows)})
        return
    listed(output.columns(recorded.HEADS, map(recorded.cells, rows), right=NUMBERS), "Nothing was recorded.")


@egress.command(epilog="\b\nExamples:\n  kars egress blocked --since 1h --top 9\n  kars egress blocked --watch\n")
@moments.option
@click.option("--top", type=click.IntRange(1, MOST_TOP), help="Only the hosts that were refused most often.")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C: the table on a terminal, else what is new.")
@click.option("--every", type=click.IntRange(1, 3600), default=2, show_default=True, help="Seconds between two looks.")
@recorded.router_option
@output.option
def blocked(*, since: int, top: int | None, watch: bool, every: int, router: str, form: str) -> None:
    """Show what was refused lately, newest first."""
    if watch and top:
        raise click.UsageError("--watch and --top exclude each other")
    if watch:
        follow(since, every, router, form)
    elif top is None:
        show_blocked(blocked_rows(since, router), form)
    else:
        show_top(since, top, router, form)


def blocked_rows(since: int, router: str) -> list[own.Blocked]:
    """Ask for the table."""
    from kars.router import own

    return own.ask("GET", f"/internal/egress/blocked?since={since}", own.BlockedTable, router=router).entries


def show_blocked(rows: list[own.Blocked], form: str) -> None:
    """Print the table."""
    if form == "json":
        import msgspec

        output.document("EgressBlocked", {"count": len(rows), "entries": msgspec.to_builtins(rows)})
        return
    listed(output.columns(BLOCKED_HEADS, map(blocked_cells, rows), right=NUMBERS), "Nothing was blocked.")


def blocked_cells(row: own.Blocked) -> tuple[str, ...]:
    """Lay a row out under `BLOCKED_HEADS`."""
    from kars.policy.recorded import stamp

    times = stamp(row.first_seen_unix), stamp(row.last_seen_unix)
    return row.host, str(row.port), row.source_sandbox or "-", str(row.count), *times


def show_top(since: int, top: int, router: str, form: str) -> None:
    """Print the hosts that were refused most often; the router counts by a window that ends now."""
    from kars.router import own

    window = max(1, int(time.time()) - since)
    path = f"/internal/egress/blocked/top?window={quote(f'{window}s')}&n={top}"
    rows = own.ask("GET", path, own.TopTable, router=router).top
    if form == "json":
        output.document("EgressBlockedTop", {"top": [{"host": row.host, "count": row.count} for row in rows]})
        return
    listed(
        output.columns(TOP_HEADS, [(row.host, str(row.count)) for row in rows], right=NUMBERS), "Nothing was blocked."
    )


def listed(lines: list[str], nothing: str) -> None:
    """Print a table, or say that it is empty."""
    if len(lines) == 1:
        click.echo(nothing, err=True)
        return
    for line in lines:
        click.echo(line)


def follow(since: int, every: int, router: str, form: str) -> None:
    """Look again and again until Ctrl-C: redraw a terminal; elsewhere print each row that is new or has grown."""
    screen = form == "table" and sys.stdout.isatty()
    seen: dict[tuple[str, int, str], int] = {}
    try:
        while True:
            rows = blocked_rows(since, router)
            if screen:
                click.clear()
                click.echo(f"Refused, every {every} s (Ctrl-C ends)\n")
                show_blocked(rows, form)
            else:
                for row in reversed(rows):
                    if seen.get(row_key(row)) != row.count:
                        print_row(row, form)
            # The router's own table is bounded, and what has left it need not be remembered.
            seen = {row_key(row): row.count for row in rows}
            time.sleep(every)
    except KeyboardInterrupt:
        click.echo(err=True)


def row_key(row: own.Blocked) -> tuple[str, int, str]:
    """What makes a row of its own."""
    return row.host, row.port, row.source_sandbox


def print_row(row: own.Blocked, form: str) -> None:
    """Print one row on one line, at once."""
    import msgspec

    line = json.dumps(msgspec.to_builtins(row)) if form == "json" else "  ".join(map(output.plain, blocked_cells(row)))
    click.echo(line)
    sys.stdout.flush()


@egress.command(epilog="\b\nExamples:\n  kars egress allowlist\n  kars egress allowlist -o json\n")
@recorded.router_option
@output.option
def allowlist(router: str, form: str) -> None:
    """Show the hosts that may be reached.

    They come from the allowlist and from live approvals.
    """
    from kars.router import own

    answer = own.ask("GET", "/egress/allowlist", own.Allowlist, router=router)
    if form == "json":
        output.document("EgressAllowlist", {"count": answer.count, "hosts": answer.domains})
    elif answer.domains:
        click.echo("\n".join(map(output.plain, answer.domains)))
    else:
        click.echo("No host may be reached.", err=True)


@egress.command(epilog="\b\nExamples:\n  kars egress learn on\n  kars egress learn off\n")
@click.argument("switch", type=click.Choice(["on", "off"]))
@recorded.router_option
@output.option
def learn(switch: str, router: str, form: str) -> None:
    """Turn learn mode on or off.

    In learn mode what no list denies may leave, and is recorded. The change lasts as long as the router's process;
    EGRESS_MODE decides at its start.
    """
    from kars.router import own

    told(own.ask("POST", "/egress/learn", own.Mode, body={"enabled": switch == "on"}, router=router), form)


@egress.command(epilog="\b\nExamples:\n  kars egress clear\n")
@recorded.router_option
@output.option
def clear(router: str, form: str) -> None:
    """Forget what learn mode recorded."""
    from kars.router import own

    answer = own.ask("POST", "/egress/learned/clear", own.Mode, router=router)
    if form == "table":
        click.echo("Forgotten.", err=True)
    told(answer, form)


def told(answer: own.Mode, form: str) -> None:
    """Print the mode after a change."""
    if form == "json":
        output.document("EgressMode", {"mode": mode(answer.learn_mode)})
        return
    style = "warn" if answer.learn_mode else "good"
    click.echo(f"mode  {output.styled(mode(answer.learn_mode), style)}")
