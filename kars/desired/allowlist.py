"""Which list of destinations is in force for a sandbox, and what is told of it.

With a signed artifact the list in the resource is only compared with it, never a fallback. An artifact that cannot be
used leaves the last good one in force; without one, nothing may be reached and no pod is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec

from kars.desired.conditions import say
from kars.model.common import Condition
from kars.model.sandbox import Endpoint, NetworkPolicy

VERIFIED, AUTHORITATIVE, DRIFT = "AllowlistVerified", "AllowlistAuthoritative", "AllowlistDrift"
ALL = (VERIFIED, AUTHORITATIVE, DRIFT)
FAILED_CLOSED = "FailedClosed"
PORT = 443
# Before what is waited for, in the message of a condition that stays as it was.
WAITING = " | asked again: "
# Destinations that a drift's message names, of each side: enough to see what differs.
NAMED = 32


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact whose signature held."""

    endpoints: tuple[Endpoint, ...]
    digest: str
    generation: int


class Failed(msgspec.Struct, frozen=True):
    """An artifact that is not used. `Transient` may pass by itself; every other reason is a verdict."""

    reason: str
    message: str


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force."""

    endpoints: tuple[Endpoint, ...] = ()
    conditions: tuple[Condition, ...] = ()
    # Why the sandbox is degraded and gets no Deployment; empty when it is not.
    degraded: str = ""
    message: str = ""


def resolve(
    policy: NetworkPolicy | None,
    *,
    require_signed: bool,
    fetched: Signed | Failed | None = None,
    last_good: tuple[Endpoint, ...] | None = None,
    before: Iterable[Condition] = (),
) -> Resolved:
    """Decide from the spec, what became of its artifact, the last good list, and the conditions before.

    `fetched` is None only where the spec has no `allowlistRef`.
    """
    if policy is None:
        return Resolved()
    if policy.allowlist_ref is None:
        return from_inline(policy, require_signed=require_signed)
    kept = tuple(condition for condition in before if condition.type in ALL)
    if isinstance(fetched, Signed):
        return from_artifact(policy, fetched, kept)
    failed = fetched or Failed("Transient", "the artifact has not been fetched yet")
    drift = tuple(condition for condition in kept if condition.type == DRIFT)
    if failed.reason != "Transient":
        kept = (*refused(failed, stale=last_good is not None), *drift)
    elif last_good is None:
        # Nothing is in force, whatever was before.
        kept = (say(AUTHORITATIVE, "False", FAILED_CLOSED, "nothing may be reached"), *drift)
    else:
        kept = tuple(waiting(condition, failed) for condition in kept)
    if last_good is not None:
        return Resolved(endpoints=last_good, conditions=kept)
    message = f"no allowlist is in force, so nothing may be reached: {failed.reason}: {failed.message}"
    return Resolved(conditions=kept, degraded=FAILED_CLOSED, message=message)


def from_inline(policy: NetworkPolicy, *, require_signed: bool) -> Resolved:
    """Take the list in the resource, unless lists have to be signed."""
    if not policy.allowed_endpoints:
        return Resolved()
    unsigned = say(VERIFIED, "False", "Unsigned", "the list is in the KarsSandbox, where nobody signed it")
    if not require_signed:
        told = say(AUTHORITATIVE, "False", "Inline", "the list of the KarsSandbox is in force")
        return Resolved(endpoints=policy.allowed_endpoints, conditions=(unsigned, told))
    message = "allowlists must be signed here: name an artifact in networkPolicy.allowlistRef"
    told = say(AUTHORITATIVE, "False", FAILED_CLOSED, message)
    return Resolved(conditions=(unsigned, told), degraded="Unsigned", message=message)


def from_artifact(policy: NetworkPolicy, signed: Signed, kept: tuple[Condition, ...]) -> Resolved:
    """Take the artifact's list."""
    message = f"{signed.digest}, generation {signed.generation}"
    told = [say(VERIFIED, "True", "Verified", message), say(AUTHORITATIVE, "True", "Verified", message)]
    drift = compared(policy.allowed_endpoints, signed.endpoints, kept)
    return Resolved(endpoints=signed.endpoints, conditions=(*told, *drift))


def refused(failed: Failed, *, stale: bool) -> tuple[Condition, ...]:
    """Say that an artifact is refused, and what is in force instead."""
    if stale:
        instead = say(AUTHORITATIVE, "False", "StaleLKG", "the last good artifact stays in force")
    else:
        instead = say(AUTHORITATIVE, "False", FAILED_CLOSED, "nothing may be reached")
    return say(VERIFIED, "False", failed.reason, failed.message), instead


def waiting(condition: Condition, failed: Failed) -> Condition:
    """Leave a condition as it was, and say beside it what is waited for."""
    if condition.type != VERIFIED:
        return condition
    known = condition.message.partition(WAITING)[0]
    return say(condition.type, condition.status, condition.reason, f"{known}{WAITING}{failed.message}")


def compared(
    inline: tuple[Endpoint, ...], signed: tuple[Endpoint, ...], kept: tuple[Condition, ...]
) -> tuple[Condition, ...]:
    """Say how the list in the resource differs from the artifact's; once more, that it does no longer."""
    own, theirs = pairs(inline), pairs(signed)
    if own and own != theirs:
        added, removed = sorted(own - theirs), sorted(theirs - own)
        drift = {"added": added[:NAMED], "removed": removed[:NAMED]}
        text = (
            f"the list of the KarsSandbox is not the artifact's, which is in force:"
            f" {len(added)} added, {len(removed)} removed | drift={json.dumps(drift, separators=(',', ':'))}"
        )
        return (say(DRIFT, "True", "InlineDiffersFromArtifact", text),)
    if any(condition.type == DRIFT and condition.status == "True" for condition in kept):
        return (say(DRIFT, "False", "InlineCleared"),)
    return ()


def pairs(endpoints: Iterable[Endpoint]) -> set[str]:
    """Return destinations as `host:port`, for comparing: letter case and order do not count."""
    return {f"{one.host.strip().lower()}:{PORT if one.port is None else one.port}" for one in endpoints}
