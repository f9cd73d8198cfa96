"""The decision tree of a sandbox's allowlist, row by row."""

import json

import pytest

from kars.desired.allowlist import Failed, Signed, resolve
from kars.desired.conditions import say
from kars.model.sandbox import AllowlistRef, Endpoint, NetworkPolicy

REF = AllowlistRef(
    registry="r",
    repository="p",
    digest="sha256:" + "01" * 32,
    artifact_type="application/vnd.kars.egress-allowlist.v1+yaml",
)
INLINE = (Endpoint(host="inline.example", port=443),)
ARTIFACT = (Endpoint(host="signed.example", port=443),)
OLD = (Endpoint(host="old.example"),)
GOOD = Signed(endpoints=ARTIFACT, digest="sha256:aa", generation=7)
TERMINAL, TRANSIENT = Failed("SignatureVerifyFailed", "no"), Failed("Transient", "timed out")
DRIFTED = say("AllowlistDrift", "True", "InlineDiffersFromArtifact", "x")
VERIFIED = (say("AllowlistVerified", "True", "Verified"), say("AllowlistAuthoritative", "True", "Verified"))

V, A, D = "AllowlistVerified", "AllowlistAuthoritative", "AllowlistDrift"
ROWS = {
    "no block": (None, {}, (), {}, ""),
    "inline empty, no ref": (((), None), {}, (), {}, ""),
    "inline only": ((INLINE, None), {}, INLINE, {V: ("False", "Unsigned"), A: ("False", "Inline")}, ""),
    "inline only, signatures required": (
        (INLINE, None),
        {"require_signed": True},
        (),
        {V: ("False", "Unsigned"), A: ("False", "FailedClosed")},
        "Unsigned",
    ),
    "inline empty, signatures required": (((), None), {"require_signed": True}, (), {}, ""),
    "verified": (((), REF), {"fetched": GOOD}, ARTIFACT, {V: ("True", "Verified"), A: ("True", "Verified")}, ""),
    "verified, signatures required": (
        ((), REF),
        {"fetched": GOOD, "require_signed": True},
        ARTIFACT,
        {V: ("True", "Verified"), A: ("True", "Verified")},
        "",
    ),
    "verified, inline differs": (
        (INLINE, REF),
        {"fetched": GOOD},
        ARTIFACT,
        {V: ("True", "Verified"), A: ("True", "Verified"), D: ("True", "InlineDiffersFromArtifact")},
        "",
    ),
    "verified, inline says the same": (
        ((Endpoint(host=" Signed.EXAMPLE"),), REF),
        {"fetched": GOOD},
        ARTIFACT,
        {V: ("True", "Verified"), A: ("True", "Verified")},
        "",
    ),
    "verified, inline no longer differs": (
        ((), REF),
        {"fetched": GOOD, "before": (DRIFTED,)},
        ARTIFACT,
        {V: ("True", "Verified"), A: ("True", "Verified"), D: ("False", "InlineCleared")},
        "",
    ),
    "verified, cleared before": (
        ((), REF),
        {"fetched": GOOD, "before": (say(D, "False", "InlineCleared"),)},
        ARTIFACT,
        {V: ("True", "Verified"), A: ("True", "Verified")},
        "",
    ),
    "terminal, last good": (
        (INLINE, REF),
        {"fetched": TERMINAL, "last_good": OLD, "before": (DRIFTED, *VERIFIED)},
        OLD,
        {V: ("False", "SignatureVerifyFailed"), A: ("False", "StaleLKG"), D: ("True", "InlineDiffersFromArtifact")},
        "",
    ),
    "terminal, an empty last good": (
        ((), REF),
        {"fetched": TERMINAL, "last_good": ()},
        (),
        {V: ("False", "SignatureVerifyFailed"), A: ("False", "StaleLKG")},
        "",
    ),
    "terminal, no last good": (
        (INLINE, REF),
        {"fetched": TERMINAL},
        (),
        {V: ("False", "SignatureVerifyFailed"), A: ("False", "FailedClosed")},
        "FailedClosed",
    ),
    "transient, last good": (
        (INLINE, REF),
        {"fetched": TRANSIENT, "last_good": OLD, "before": (*VERIFIED, DRIFTED)},
        OLD,
        {V: ("True", "Verified"), A: ("True", "Verified"), D: ("True", "InlineDiffersFromArtifact")},
        "",
    ),
    "transient, no last good": (
        (INLINE, REF),
        {"fetched": TRANSIENT, "before": (*VERIFIED, DRIFTED)},
        (),
        {A: ("False", "FailedClosed"), D: ("True", "InlineDiffersFromArtifact")},
        "FailedClosed",
    ),
    "not fetched yet": ((INLINE, REF), {}, (), {A: ("False", "FailedClosed")}, "FailedClosed"),
}


@pytest.mark.parametrize("row", ROWS)
def test_the_decision_tree(row):
    spec, facts, endpoints, expected, degraded = ROWS[row]
    policy = None if spec is None else NetworkPolicy(allowed_endpoints=spec[0], allowlist_ref=spec[1])
    found = resolve(policy, **{"require_signed": False, **facts})
    assert found.endpoints == endpoints
    assert {one.type: (one.status, one.reason) for one in found.conditions} == expected
    assert found.degraded == degraded
    assert bool(found.message) == bool(degraded)


def test_inline_entries_are_never_a_fallback_for_an_artifact():
    policy = NetworkPolicy(allowed_endpoints=INLINE, allowlist_ref=REF)
    for fetched in (GOOD, TERMINAL, TRANSIENT, None):
        for last_good in (None, (), OLD):
            found = resolve(policy, require_signed=False, fetched=fetched, last_good=last_good)
            assert not set(found.endpoints) & set(INLINE)


def test_the_verified_message_names_digest_and_generation():
    found = resolve(NetworkPolicy(allowlist_ref=REF), require_signed=False, fetched=GOOD)
    assert "sha256:aa" in found.conditions[0].message and "7" in found.conditions[0].message


def test_what_is_waited_for_is_told_beside_the_condition_that_stays_and_only_once():
    before = (say(V, "True", "Verified", "sha256:aa, generation 7"), *VERIFIED[1:])
    for _ in range(3):
        found = resolve(
            NetworkPolicy(allowlist_ref=REF), require_signed=False, fetched=TRANSIENT, last_good=OLD, before=before
        )
        before = found.conditions
    assert before[0].message == "sha256:aa, generation 7 | asked again: timed out"
    found = resolve(NetworkPolicy(allowlist_ref=REF), require_signed=False, fetched=GOOD, before=before)
    assert found.conditions[0].message == "sha256:aa, generation 7"


def test_a_drift_message_ends_in_bounded_json_that_can_be_read():
    inline = tuple(Endpoint(host=f"h{n}.example", port=n + 1) for n in range(512))
    found = resolve(NetworkPolicy(allowed_endpoints=inline, allowlist_ref=REF), require_signed=False, fetched=GOOD)
    text = found.conditions[-1].message
    drift = json.loads(text.rpartition(" | drift=")[2])
    assert len(drift["added"]) == 32 and drift["removed"] == ["signed.example:443"]
    assert "512 added, 1 removed" in text and len(text) < 32_768


def test_conditions_of_an_artifact_go_with_its_reference():
    policy = NetworkPolicy(allowed_endpoints=INLINE)
    found = resolve(policy, require_signed=False, last_good=OLD, before=(*VERIFIED, DRIFTED))
    assert found.endpoints == INLINE and [one.reason for one in found.conditions] == ["Unsigned", "Inline"]
