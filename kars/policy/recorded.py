"""Connections that were recorded on their way out: one row per destination, from the router's table or its audit log.

A row counts connections of one door, host, port, method and path shape. Tunnels have no method and no path, because
nobody sees them; the audit log keeps the method of a plain HTTP request and never its path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from kars.errors import FailureError

DOORS = ("connect", "http", "tls", "fetch")
# The router keeps some thousands of rows; a log of years holds more, and a person reads far fewer.
MAX_ROWS = 100_000
# Refusals by something else than the lists (a blocklist, the address guard, malformed bytes) stay whatever a list says.
LIST_RULES = ("allowlist", "approval")
# What makes a row of its own: host, port, door, method, path, decision.
Key = tuple[str, int, str, str, str, bool]
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Row(msgspec.Struct, frozen=True):
    """One destination; times are Unix seconds, and `allowed` is what was decided then."""

    host: str
    port: int = 443
    door: str = "connect"
    method: str = ""
    path: str = ""
    count: int = 1
    first_seen: int = 0
    last_seen: int = 0
    allowed: bool = True

    @property
    def key(self) -> Key:
        """What makes it a row of its own."""
        return self.host, self.port, self.door, self.method, self.path, self.allowed


class Table(msgspec.Struct, frozen=True):
    """The answer of `GET /egress/learned`; `domains` is all that older routers tell, `dropped` counts lost rows."""

    domains: list[str] = []
    connections: list[Row] = []
    dropped: int = 0

    def rows(self) -> list[Row]:
        """Return the rows, be they of an older router."""
        return merged(self.connections or [Row(host) for host in self.domains])


def parse(data: bytes) -> list[Row]:
    """Read a saved `GET /egress/learned`, a list of rows, or the router's own file of one row per line.

    Of rows of one destination, the later one counts; a torn last line is left out.
    """
    if not data.strip():
        return []
    try:
        whole = msgspec.json.decode(data)
    except UNREADABLE:
        return merged(lines(data))
    if isinstance(whole, list):
        return merged([row(item, f"row {number}") for number, item in enumerate(whole)])
    if isinstance(whole, dict) and "host" not in whole:
        return table(whole)
    return [row(whole, "row 0")]


def table(document: Mapping[str, Any]) -> list[Row]:
    """Read the router's answer."""
    try:
        answer = msgspec.convert(document, Table)
    except msgspec.ValidationError as error:
        raise FailureError(f"recorded connections: {error}") from error
    return answer.rows()


def lines(data: bytes) -> list[Row]:
    """Read one row per line."""
    rows = []
    given = data.split(b"\n")
    for number, line in enumerate(given, 1):
        if not line.strip():
            continue
        try:
            item = msgspec.json.decode(line)
        except UNREADABLE as error:
            if number == len(given):
                break
            raise FailureError(f"recorded connections, line {number}: {error}") from error
        rows.append(row(item, f"line {number}"))
    return rows


def row(item: object, place: str) -> Row:
    """Read one row."""
    try:
        return msgspec.convert(item, Row)
    except msgspec.ValidationError as error:
        raise FailureError(f"recorded connections, {place}: {error}") from error


def merged(rows: Iterable[Row]) -> list[Row]:
    """Keep the last row of each destination, in order."""
    latest = {row.key: row for row in rows}
    return [latest[key] for key in sorted(latest)]


def of_audit(records: Iterable[Mapping[str, object]]) -> list[Row]:
    """Count the connections of audit records, oldest first; what is none, or was refused by no list, is passed over.

    A tunnel that lives long is recorded while it does and again when it ends: that is one connection.
    """
    counts: dict[Key, Row] = {}
    under_way: dict[object, Row] = {}
    for record in records:
        one = of_record(record)
        if one is None:
            continue
        call = record.get("call")
        told: Mapping[str, object] = call if isinstance(call, dict) else {}
        decision = told.get("decision_id")
        if told.get("end") == "open":
            under_way[decision] = one
        else:
            under_way.pop(decision, None)
            count(one, counts)
        if len(under_way) > MAX_ROWS:
            count(under_way.pop(next(iter(under_way))), counts)
    for one in under_way.values():
        count(one, counts)
    return [counts[key] for key in sorted(counts)]


def count(one: Row, counts: dict[Key, Row]) -> None:
    """Add one connection to the row of its destination."""
    before = counts.get(one.key)
    if before is not None:
        counts[one.key] = msgspec.structs.replace(
            before,
            count=before.count + 1,
            first_seen=min(before.first_seen, one.first_seen),
            last_seen=max(before.last_seen, one.last_seen),
        )
    elif len(counts) < MAX_ROWS:
        counts[one.key] = one
    else:
        raise FailureError(f"the audit log names more than {MAX_ROWS} destinations", hint="copy a part of it aside")


def of_record(record: Mapping[str, object]) -> Row | None:
    """Make a row of one audit record."""
    asked = destination(str(record.get("action", "")))
    call = record.get("call")
    rule = str(call.get("rule", "")) if isinstance(call, dict) else ""
    allowed = record.get("decision") == "allow"
    if asked is None or not (allowed or rule.startswith(LIST_RULES)):
        return None
    door, host, port, method = asked
    when = seconds(str(record.get("ts", "")))
    return Row(host, port, door, method, first_seen=when, last_seen=when, allowed=allowed)


def destination(action: str) -> tuple[str, str, int, str] | None:
    """Take `egress:<door>:<host>:<port>[:<METHOD>]` apart: door, host without brackets, port, method."""
    word, _, rest = action.partition(":")
    door, _, rest = rest.partition(":")
    if word != "egress" or door not in DOORS:
        return None
    method = ""
    head, _, tail = rest.rpartition(":")
    if not tail.isdecimal():
        rest, method = head, tail
    host, _, port = rest.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        return None
    return door, host.removeprefix("[").removesuffix("]"), int(port), method


def seconds(stamp: str) -> int:
    """Unix seconds of an RFC 3339 time; 0 where it is none."""
    try:
        return int(datetime.fromisoformat(stamp).timestamp())
    except ValueError:
        return 0


def stamp(moment: int) -> str:
    """Write Unix seconds as people read them, in UTC."""
    if moment <= 0:
        return "-"
    try:
        return datetime.fromtimestamp(moment, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "-"
