"""What becomes of a KarsPairing, and what the other side may do under it.

Expired and Revoked are final: a secret that has been shown once is not to be shown again. Times are aware and UTC.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256

import msgspec

from kars.desired.conditions import DEGRADED, PROGRESSING, READY, Standing, say
from kars.model.pairing import KarsPairing

FIRST, MOST, LEAST, FINAL = 60.0, 300.0, 10.0, 3600.0


class Paired(msgspec.Struct, frozen=True):
    """What is told of a pairing, and when it is to be looked at again, in seconds."""

    standing: Standing
    after: float


def decide(pairing: KarsPairing, *, now: datetime) -> Paired:
    """Decide from the resource and the time."""
    phase = phase_of(pairing, now)
    if phase in {"Expired", "Revoked"}:
        return Paired(told(phase, ready=(False, phase), progressing=(False, phase)), FINAL)
    left = (pairing.spec.expires_at - now).total_seconds()
    if phase == "Active":
        after = max(LEAST, min(MOST, left))
        return Paired(told(phase, ready=(True, "Paired"), progressing=(False, "Paired")), after)
    waiting = told(phase, ready=(False, "AwaitingPeer"), progressing=(True, "AwaitingPeer"))
    return Paired(waiting, max(LEAST, min(FIRST, left)))


def phase_of(pairing: KarsPairing, now: datetime) -> str:
    """Return the phase at a time; one that is final stays."""
    phase = (pairing.status.phase if pairing.status else None) or "PendingPairing"
    if phase in {"Expired", "Revoked"}:
        return phase
    return "Expired" if now >= pairing.spec.expires_at else phase


def told(phase: str, *, ready: tuple[bool, str], progressing: tuple[bool, str]) -> Standing:
    """Make the conditions."""
    three = (say(READY, *ready), say(PROGRESSING, *progressing), say(DEGRADED, "False", ready[1]))
    return Standing(phase=phase, conditions=three)


def match(pairings: Iterable[KarsPairing], secret: bytes, *, now: datetime) -> KarsPairing | None:
    """Return the pairing that waits for this secret; None when none does."""
    shown = sha256(secret).hexdigest()
    waiting = (one for one in pairings if phase_of(one, now) == "PendingPairing")
    # Every one is compared, so that the time taken says nothing about where one matched.
    found = [one for one in waiting if hmac.compare_digest(one.spec.token_hash, shown)]
    return found[0] if found else None


def refusal(pairing: KarsPairing, *, capability: str, amid: str, now: datetime) -> str:
    """Say why the other side may not have another sandbox; empty when it may. A budget of 0 allows nothing."""
    phase, status = phase_of(pairing, now), pairing.status
    if phase != "Active" or status is None:
        return f"the pairing is {phase}"
    if not status.bound_amid or not hmac.compare_digest(status.bound_amid.encode(), amid.encode()):
        return "the pairing is bound to another peer"
    if capability not in pairing.spec.capabilities:
        return f"the pairing has no capability {capability}"
    used, spent = status.slots_used or 0, status.tokens_used or 0
    if used >= pairing.spec.slots_max:
        return f"{used} of {pairing.spec.slots_max} slots are taken"
    if spent >= pairing.spec.token_budget:
        return f"{spent} of {pairing.spec.token_budget} tokens are spent"
    return ""
