"""How conditions and phases come about; the status is built here and nowhere else.

A `Standing` is what is to be told of a resource: its phase and its conditions. Its conditions bear no time yet; `merge`
gives them theirs. The reasons are a closed vocabulary that people and their scripts know.

    nothing to confirm   Ready     Ready=True/Reconciled
    no sandbox refers    Compiled  Ready=False/NoSandboxesReferencing
    not all routers say  Compiled  Ready=False/AwaitingRouterEnforcement
    all routers say so   Ready     Ready=True/RouterEnforcing
    something is wrong   Degraded  Ready=False, Degraded=True, the reason says what
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

from kars.model.common import Condition

Status = Literal["True", "False", "Unknown"]
State = Literal["NotApplicable", "NoSandboxesReferencing", "Awaiting", "Confirmed", "Degraded"]

READY, PROGRESSING, DEGRADED = "Ready", "Progressing", "Degraded"
RUNTIME_READY, SUSPENDED = "RuntimeReady", "Suspended"
RECONCILED = "Reconciled"

# The API server's own bound on a condition's message, and on an event's note (events.k8s.io/v1).
MESSAGE_LENGTH = 32768
NOTE_LENGTH = 1024
# Sandboxes that a message names: enough to start looking, short enough to read.
DETAILS = 3
# What a condition has before `merge` gives it a time.
UNDATED = datetime(1970, 1, 1, tzinfo=UTC)

# Control bytes could forge a line where messages are printed; line feeds and tabs are only noise there.
CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
# What errors of others may quote: credentials of a header, of a URL, of a query.
SECRETS = re.compile(
    r"(?P<header>\b(?:bearer|basic)\s+)[\w.~+/=-]{16,}"
    r"|(?P<user>://[^/\s:@]*:)[^/\s@]+(?=@)"
    r"|(?P<query>[?&](?:[\w-]*token|sig|signature|password|secret|api[_-]?key|code)=)[^\s&\"',;]+",
    re.IGNORECASE,
)


def words(message: str, longest: int = MESSAGE_LENGTH) -> str:
    """Make a text fit to be shown: one line, bounded, and no credential that an error of others may have quoted."""
    text = CONTROL.sub(" ", message[: 2 * longest]).strip()
    text = SECRETS.sub(lambda found: f"{found[found.lastgroup or 0]}(redacted)", text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def say(kind: str, status: Status | bool, reason: str, message: str = "") -> Condition:
    """Make a condition that has no time yet."""
    value: Status = ("True" if status else "False") if isinstance(status, bool) else status
    return Condition(type=kind, status=value, reason=reason, message=words(message), last_transition_time=UNDATED)


def merge(
    before: Iterable[Condition], wanted: Iterable[Condition], *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return the conditions to write: `lastTransitionTime` moves only with the status, `observedGeneration` always.

    Conditions that are not wanted any more are left out. Of two of one type the later counts.
    """
    known = {condition.type: condition for condition in before}
    latest = {condition.type: condition for condition in wanted}
    return tuple(dated(condition, known.get(condition.type), generation, now) for condition in latest.values())


def dated(condition: Condition, known: Condition | None, generation: int, now: datetime) -> Condition:
    """Give a condition its time: that of the known one when its status is the same."""
    same = known is not None and known.status == condition.status
    moment = known.last_transition_time if known is not None and same else now
    return msgspec.structs.replace(condition, last_transition_time=moment, observed_generation=generation)


def is_ready(conditions: Iterable[Condition]) -> bool:
    """Whether conditions say that all is as it should be."""
    return any(condition.type == READY and condition.status == "True" for condition in conditions)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be told of a resource."""

    phase: str
    conditions: tuple[Condition, ...]
    state: State = "NotApplicable"

    @property
    def confirmed(self) -> bool:
        """Whether routers have in force what was compiled, so that `loadedDigest` is the compiled one."""
        return self.state == "Confirmed"

    @property
    def note(self) -> str:
        """The text of the Warning event `PolicyNotEnforced`; empty unless routers are waited for."""
        return words(self.conditions[0].message, NOTE_LENGTH) if self.state == "Awaiting" else ""


def standing(
    phase: str,
    *,
    ready: tuple[bool, str, str],
    progressing: tuple[bool, str],
    degraded: tuple[bool, str] = (False, RECONCILED),
    state: State,
) -> Standing:
    """Make the three conditions that every policy kind has: status, reason and, of Ready, message."""
    on, reason, message = ready
    told = message if not on else ""
    return Standing(
        phase=phase,
        conditions=(
            say(READY, on, reason, message),
            say(PROGRESSING, *progressing, told if progressing[0] else ""),
            say(DEGRADED, *degraded, told if degraded[0] else ""),
        ),
        state=state,
    )


def settled(message: str = "") -> Standing:
    """Say that all is done: there is nothing that a router would report."""
    return standing("Ready", ready=(True, RECONCILED, message), progressing=(False, RECONCILED), state="NotApplicable")


def degraded(reason: str, message: str, *, phase: str = "Degraded") -> Standing:
    """Say that something is wrong; a KarsMemory's phase is then Failed."""
    return standing(
        phase,
        ready=(False, reason, message),
        progressing=(False, "Failed"),
        degraded=(True, reason),
        state="Degraded",
    )


class Answer(msgspec.Struct, frozen=True):
    """What the routers of one sandbox say: the digest in force, or why it is not known."""

    sandbox: str
    digest: str | None = None
    error: str = ""


def enforcement(wanted: str, answers: Sequence[Answer], *, asleep: int = 0, note: str = "") -> Standing:
    """Say whether every running sandbox that refers to a policy has the wanted digest in force.

    `asleep` counts suspended sandboxes, whose routers nobody can ask; they are not waited for. `note` is told beside.
    """
    if not answers:
        what = f"{asleep} suspended, none running" if asleep else "no KarsSandbox refers to it"
        message = joined(f"compiled; {what}", note)
        reason: State = "NoSandboxesReferencing"
        return standing("Compiled", ready=(False, reason, message), progressing=(True, reason), state=reason)
    missing = [answer for answer in answers if answer.digest != wanted]
    matched, total = len(answers) - len(missing), len(answers)
    if not missing:
        message = joined(f"{matched}/{total} sandboxes enforce it", note)
        ready = (True, "RouterEnforcing", message)
        return standing("Ready", ready=ready, progressing=(False, RECONCILED), state="Confirmed")
    details = [detail(answer) for answer in missing[:DETAILS]]
    more = f" (+{len(missing) - DETAILS} more)" if len(missing) > DETAILS else ""
    message = joined(f"{matched}/{total} sandboxes enforce it: {'; '.join(details)}{more}", note)
    awaited = "AwaitingRouterEnforcement"
    return standing("Compiled", ready=(False, awaited, message), progressing=(True, awaited), state="Awaiting")


def detail(answer: Answer) -> str:
    """Say why a sandbox does not count yet."""
    if answer.error:
        return f"{answer.sandbox}: {words(answer.error, 256)}"
    return f"{answer.sandbox}: {answer.digest or 'nothing'} in force"


def joined(message: str, note: str) -> str:
    """Put a note behind a message."""
    return f"{message}; {note}" if note else message


# What a router's `last_error` of its memory begins with, the graver first, and the reason that it stands for.
MEMORY_FAULTS = ("AuthMisconfigured", "MemoryStoreMissing")


def memory_fault(errors: Iterable[str | None]) -> tuple[str, str] | None:
    """Return the gravest fault that routers report of a memory, as reason and message; None when there is none."""
    told = [error for error in errors if error]
    for reason in MEMORY_FAULTS:
        for error in told:
            if error.startswith(f"{reason}:"):
                return reason, error.removeprefix(f"{reason}:").strip()
    return None


def sandbox_running(extra: Iterable[Condition] = ()) -> Standing:
    """Say that a sandbox runs: its pod is ready and its routers have in force what was compiled."""
    three = (say(kind, kind != PROGRESSING, RECONCILED) for kind in (READY, PROGRESSING, RUNTIME_READY))
    return Standing(phase="Running", conditions=(*three, *extra))


def sandbox_coming(
    reason: str, message: str, *, runtime_ready: bool = False, phase: str = "Creating", extra: Iterable[Condition] = ()
) -> Standing:
    """Say that everything is applied and something is still waited for: the pod, or its routers' digests."""
    three = (
        say(READY, False, reason, message),
        say(PROGRESSING, True, reason, message),
        say(RUNTIME_READY, runtime_ready, RECONCILED if runtime_ready else reason),
    )
    return Standing(phase=phase, conditions=(*three, *extra))


def sandbox_degraded(reason: str, message: str, extra: Iterable[Condition] = ()) -> Standing:
    """Say that a sandbox cannot be what it should be."""
    three = (say(kind, kind == DEGRADED, reason, message) for kind in (READY, PROGRESSING, DEGRADED))
    return Standing(phase="Degraded", conditions=(*three, *extra), state="Degraded")


def sandbox_without_adapter(message: str) -> Standing:
    """Say that nothing runs this kind of runtime."""
    kinds = (READY, PROGRESSING, RUNTIME_READY, DEGRADED)
    told = tuple(say(kind, kind == DEGRADED, "AdapterMissing", message) for kind in kinds)
    return Standing(phase="Degraded", conditions=told, state="Degraded")


def suspension(suspended: bool, before: Iterable[Condition]) -> tuple[Condition, ...]:
    """Return the condition Suspended: while it is suspended, and as False for ever after it once was."""
    if suspended:
        return (say(SUSPENDED, "True", "SuspendedBySpec"),)
    if any(condition.type == SUSPENDED for condition in before):
        return (say(SUSPENDED, "False", "Active"),)
    return ()
