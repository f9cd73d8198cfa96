"""What becomes of an EgressApproval: it waits for its sandbox and the router, holds for its time, and is over.

Times are aware, UTC, whole seconds. `effectiveAt` is set once, when the sandbox is first found running, and is never
moved, so that an approval cannot be made longer by being interrupted.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import msgspec

from kars.desired.conditions import DEGRADED, PROGRESSING, READY, Standing, say
from kars.model.common import Condition
from kars.model.egress import EgressApproval

# Longest time of any approval, whatever is configured.
CEILING = 604_800
# How long an approval is waited for, by what is missing; and how often an active one is looked at.
AWAIT, INVALID, ACTIVE = 5.0, 30.0, 30.0

DURATION = re.compile(r"P(?:(\d{1,6})D)?(?:T(?:(\d{1,8})H)?(?:(\d{1,8})M)?(?:(\d{1,8})S)?)?", re.ASCII)
# What would forge a line where a reason is shown.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
REASON_LENGTH = 512


class Window(msgspec.Struct, frozen=True):
    """From when until when an approval holds."""

    effective_at: datetime
    expires_at: datetime


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done about an approval, and what is told of it unless the router has its say first.

    Neither published nor withdrawn: what stands of it among the sandbox's files stays as it is.
    """

    standing: Standing
    # Its document is to be among the sandbox's files (and, once it stands there, the router asked).
    published: Window | None = None
    # Its document is to be taken away from the sandbox's files.
    withdrawn: bool = False
    # Seconds until it is to be looked at again; None: only when something changes.
    after: float | None = None


def decide(approval: EgressApproval, *, running: bool, ceiling: int, now: datetime) -> Wanted:
    """Decide from the resource, whether its sandbox runs, the configured ceiling in seconds, and the time.

    An approval that is over stays over, whatever its spec becomes: another one is another resource.
    """
    known = window_of(approval)
    if (approval.status is not None and approval.status.phase == "Expired") or (known and now >= known.expires_at):
        return Wanted(standing=expired(), withdrawn=True)
    seconds = lifetime(approval.spec.ttl)
    fault = invalid(approval.spec.reason, seconds, ceiling)
    if fault is not None or seconds is None:
        reason, message = fault or ("TtlInvalid", "no duration")
        return Wanted(standing=pending(reason, message, broken=True), withdrawn=True, after=INVALID)
    if known is not None:
        # A spec that changed counts from the same beginning.
        window = Window(known.effective_at, known.effective_at + timedelta(seconds=seconds))
        if now >= window.expires_at:
            return Wanted(standing=expired(), withdrawn=True)
    elif running:
        window = Window(now, now + timedelta(seconds=seconds))
    else:
        window = None
    if not running or window is None:
        message = f"the KarsSandbox {approval.spec.sandbox} does not run"
        return Wanted(standing=pending("BlockedOnSandbox", message), after=soon(window, now, AWAIT))
    awaiting = pending("AwaitingRouterEcho", "the router has not reported it yet")
    return Wanted(standing=awaiting, published=window, after=soon(window, now, AWAIT))


def window_of(approval: EgressApproval) -> Window | None:
    """Return what the status says of when it holds."""
    status = approval.status
    if status is None or status.effective_at is None or status.expires_at is None:
        return None
    return Window(status.effective_at, status.expires_at)


def lifetime(ttl: str) -> int | None:
    """Return the seconds of a duration of days, hours, minutes and seconds (ISO 8601); None when it is none."""
    found = DURATION.fullmatch(ttl)
    if found is None or ttl.endswith(("P", "T")):
        return None
    parts = (int(part or 0) for part in found.groups())
    return sum(part * unit for part, unit in zip(parts, (86_400, 3600, 60, 1), strict=True)) or None


def invalid(reason: str, seconds: int | None, ceiling: int) -> tuple[str, str] | None:
    """Return why an approval cannot be: reason and message; None when it can."""
    if not reason.strip() or len(reason) > REASON_LENGTH or CONTROL.search(reason):
        return "ReasonInvalid", f"the reason needs 1 to {REASON_LENGTH} characters, none of them a control character"
    if seconds is None:
        return "TtlInvalid", "ttl is no duration of days, hours, minutes and seconds, such as PT2H"
    most = min(ceiling, CEILING) if ceiling > 0 else CEILING
    if seconds > most:
        return "TtlExceedsCeiling", f"ttl is {seconds} seconds, more than the {most} that are allowed"
    return None


def confirmed(window: Window, now: datetime) -> Wanted:
    """Say that the router has the approval in force."""
    told = conditions(ready=("True", "RouterConfirmed"), progressing="False", broken="False")
    standing = Standing(phase="Active", conditions=told, state="Confirmed")
    return Wanted(standing=standing, published=window, after=soon(window, now, ACTIVE))


def blocked(wanted: Wanted, message: str) -> Wanted:
    """Say why a published approval is not confirmed: it could not be written, or the router says another thing."""
    return msgspec.structs.replace(wanted, standing=pending("AwaitingRouterEcho", message))


def soon(window: Window | None, now: datetime, most: float) -> float:
    """Return when to look again: at its end at the latest, and never at once, so that nothing spins."""
    left = most if window is None else (window.expires_at - now).total_seconds()
    return max(1.0, min(most, left))


def pending(reason: str, message: str, *, broken: bool = False) -> Standing:
    """Say that it does not hold yet; `broken`: nor will it, as it is."""
    told = conditions(
        ready=("False", reason), progressing="True", broken="True" if broken else "False", message=message
    )
    return Standing(phase="Pending", conditions=told, state="Degraded" if broken else "Awaiting")


def expired() -> Standing:
    """Say that it is over."""
    told = conditions(ready=("False", "Expired"), progressing="False", broken="False")
    return Standing(phase="Expired", conditions=told)


def conditions(*, ready: tuple[str, str], progressing: str, broken: str, message: str = "") -> tuple[Condition, ...]:
    """Make the three conditions, which share one reason."""
    status, reason = ready
    return tuple(
        say(kind, value == "True", reason, message if kind == READY else "")
        for kind, value in ((READY, status), (PROGRESSING, progressing), (DEGRADED, broken))
    )
