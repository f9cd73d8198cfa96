"""What the command line asks of the core: each call's error enters the one tree."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from kars import _core, settings
from kars.errors import AuditError, NotFoundError, UnavailableError, from_core
from kars.policy.recorded import Row


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


class Judged(msgspec.Struct, frozen=True):
    """What a candidate policy says of one recorded connection; `hint` is the nearest change that would allow it."""

    host: str
    port: int
    door: str
    method: str
    path: str
    count: int
    allowed: bool
    rule: str
    hint: str


@contextmanager
def core() -> Iterator[None]:
    """Turn the core's error into ours."""
    try:
        yield
    except _core.CoreError as error:
        raise from_core(error) from error


def variables() -> dict[str, list[Variable]]:
    """Return every variable by group, both in the core's order."""
    groups: dict[str, list[Variable]] = {}
    for row in _core.settings_table():
        variable = Variable(*row)
        groups.setdefault(variable.group, []).append(variable)
    return groups


def verify_audit(directory: str) -> AuditReport:
    """Verify an audit log: the hash chain, the sequence numbers and the file order."""
    if not Path(directory).is_dir():
        raise NotFoundError(f"{directory}: no such directory", hint="the router writes where KARS_AUDIT_DIR says")
    try:
        report = _core.verify_audit(directory)
    except _core.CoreError as error:
        raise AuditError(str(error)) from error
    return msgspec.json.decode(report, type=AuditReport)


def setting(name: str) -> str:
    """Return a variable's value as the router would read it here."""
    default = next((row[1] for row in _core.settings_table() if row[0] == name), "")
    return settings.variable(name, default)


def probe(method: str, path: str, body: bytes | None, *, overrides: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Call this sandbox's own router, with the admin token where this user may read it."""
    try:
        return _core.probe(method, path, body, settings.block(overrides))
    except _core.CoreError as error:
        raise UnavailableError(str(error), hint="is the router running, and on ROUTER_PORT?") from error


def replay(files: Sequence[tuple[str, bytes]], rows: Sequence[Row]) -> list[Judged]:
    """Say what egress lists decide about recorded connections now; files are `allowlist.json` and approvals."""
    with core():
        answer = _core.replay_egress(list(files), msgspec.json.encode(rows), int(time.time()))
    return msgspec.json.decode(answer, type=list[Judged])


def version() -> str:
    """Return the core's version."""
    return _core.version()
