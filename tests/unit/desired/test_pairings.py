"""What becomes of a pairing, and what the other side may do under it."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from kars.desired.pairings import decide, match, refusal
from kars.model.decode import decode

NOW = datetime(2026, 7, 1, 9, tzinfo=UTC)
SECRET = b"one-time secret"


def pairing(status=None, *, left=3600, secret=SECRET, **spec):
    document = {
        "apiVersion": "kars.azure.com/v1alpha1",
        "kind": "KarsPairing",
        "metadata": {"name": "p", "namespace": "kars-system"},
        "spec": {
            "tokenHash": sha256(secret).hexdigest(),
            "expiresAt": (NOW + timedelta(seconds=left)).isoformat(),
            **spec,
        },
    }
    return decode({**document, "status": status} if status else document)


@pytest.mark.parametrize(
    ("status", "left", "phase", "after"),
    [
        (None, 3600, "PendingPairing", 60),
        (None, 30, "PendingPairing", 30),
        (None, 3, "PendingPairing", 10),
        (None, 0, "Expired", 3600),
        ({"phase": "Active"}, 3600, "Active", 300),
        ({"phase": "Active"}, 100, "Active", 100),
        ({"phase": "Active"}, 1, "Active", 10),
        ({"phase": "Active"}, -1, "Expired", 3600),
        ({"phase": "Revoked"}, 3600, "Revoked", 3600),
        ({"phase": "Revoked"}, -1, "Revoked", 3600),
        ({"phase": "Expired"}, 3600, "Expired", 3600),
    ],
)
def test_phases(status, left, phase, after):
    found = decide(pairing(status, left=left), now=NOW)
    assert (found.standing.phase, found.after) == (phase, after)
    told = {one.type: one.status for one in found.standing.conditions}
    assert told["Ready"] == ("True" if phase == "Active" else "False") and told["Degraded"] == "False"


def test_a_secret_finds_the_pairing_that_waits_for_it():
    waiting, other = pairing(), pairing(secret=b"another")
    assert match([other, waiting], SECRET, now=NOW) is waiting
    assert match([other], SECRET, now=NOW) is None


@pytest.mark.parametrize("gone", [pairing(left=0), pairing({"phase": "Active"}), pairing({"phase": "Revoked"})])
def test_a_secret_counts_once_and_in_time(gone):
    assert match([gone], SECRET, now=NOW) is None


ACTIVE = {"phase": "Active", "boundAmid": "amid-1"}


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (pairing(ACTIVE), ""),
        (pairing(), "PendingPairing"),
        (pairing(ACTIVE, left=0), "Expired"),
        (pairing({**ACTIVE, "boundAmid": "amid-2"}), "another peer"),
        (pairing({"phase": "Active"}), "another peer"),
        (pairing(ACTIVE, capabilities=["handoff"]), "no capability"),
        (pairing({**ACTIVE, "slotsUsed": 1}), "1 of 1 slots"),
        (pairing({**ACTIVE, "slotsUsed": 1}, slotsMax=2), ""),
        (pairing({**ACTIVE, "tokensUsed": 500_000}), "500000 of 500000 tokens"),
        (pairing({**ACTIVE, "tokensUsed": 499_999}), ""),
        (pairing(ACTIVE, tokenBudget=0), "0 of 0 tokens"),
    ],
)
def test_who_may_have_another_sandbox(one, why):
    refused = refusal(one, capability="offload", amid="amid-1", now=NOW)
    assert why in refused and bool(refused) == bool(why)
