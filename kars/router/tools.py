"""What the command line asks of the core: each call's error enters the one tree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import msgspec

from kars import _core, settings
from kars.errors import AuditError, NotFoundError, UnavailableError, from_core


class Variable(msgspec.Struct, frozen=True):
    """One variable that the router reads."""

    name: str
    default: str
    group: str
    help: str


class Break(msgspec.Struct, frozen=True):
    """Where the chain of an audit log breaks; lines count from 1."""

    file: str
    line: int
    what: str


class AuditReport(msgspec.Struct, frozen=True):
    """What verifying an audit directory found, up to the first break; what needs a record is None without one.

    `head` is the last sound line's hash: kept elsewhere, it shows later whether the log's tail was cut or rewritten.
    `lost` counts records that the disk refused, which the log itself tells.
    """

    files: int
    records: int
    lost: int
    first_seq: int | None
    last_seq: int | None
    first_ts: str | None
    last_ts: str | None
    head: str
    broken: Break | None


@contextmanager
def core() -> Iterator[None]:
    """Turn the core's error into ours."""
    try:
        yield
    except _core.CoreError as error:
        raise from_core(error) from error


def variables() -> dict[str, list[Variable]]:
    """Return every variable by group, both in the core's order."""
    rows = [Variable(*row) for row in _core.settings_table()]
    return {group: list(members) for group, members in groupby(rows, key=lambda row: row.group)}


def verify_audit(directory: str) -> AuditReport:
    """Verify an audit log: the hash chain, the sequence numbers and the file order."""
    if not Path(directory).is_dir():
        raise NotFoundError(f"{directory}: no such directory", hint="the router writes where KARS_AUDIT_DIR says")
    try:
        report = _core.verify_audit(directory)
    except _core.CoreError as error:
        raise AuditError(str(error)) from error
    return msgspec.json.decode(report, type=AuditReport)


def probe(method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    """Call this sandbox's own router, with the admin token where this user may read it."""
    try:
        return _core.probe(method, path, body, settings.block())
    except _core.CoreError as error:
        raise UnavailableError(str(error), hint="is the router running, and on ROUTER_PORT?") from error


def version() -> str:
    """Return the core's version."""
    return _core.version()
