"""Statuses as documents: what differs, what is sent, and whose members are whose."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kars.controller import status
from kars.model.inference import InferencePolicy
from kars.model.kinds import KINDS

NOW = "2026-01-01T00:00:00Z"
LATER = "2026-01-02T00:00:00Z"
NONE = frozenset()


def condition(kind="Ready", value="True", reason="Reconciled", at=NOW, **more):
    return {"type": kind, "status": value, "reason": reason, "message": "", "lastTransitionTime": at, **more}


def bearing(*conditions, **members):
    return {**members, "conditions": list(conditions)} if conditions else dict(members)


def differs(wanted, held, owned=NONE):
    return status.differs(status.settled(wanted, held), held, owned)


def test_the_time_of_a_condition_that_stays_is_no_difference():
    assert not differs(bearing(condition(at=LATER)), bearing(condition(at=NOW)))


def test_the_time_that_is_sent_moves_only_with_the_status():
    held = bearing(condition(at=NOW))
    stays = status.settled(bearing(condition(reason="Other", at=LATER)), held)
    flips = status.settled(bearing(condition(value="False", at=LATER)), held)
    assert stays["conditions"][0]["lastTransitionTime"] == NOW
    assert flips["conditions"][0]["lastTransitionTime"] == LATER


@pytest.mark.parametrize(
    "change", [{"value": "False"}, {"reason": "Other"}, {"message": "m"}, {"observedGeneration": 2}]
)
def test_anything_else_of_a_condition_is_a_difference(change):
    assert differs(bearing(condition(**change)), bearing(condition()))


def test_conditions_of_others_are_no_difference_and_the_order_is_none_either():
    held = bearing(condition("Drift"), condition("Degraded", "False"), condition())
    wanted = bearing(condition(), condition("Degraded", "False"))
    assert not differs(wanted, held, frozenset({"conditions/Ready", "conditions/Degraded"}))


def test_a_member_or_condition_of_ours_that_is_no_longer_wanted_is_a_difference():
    held = bearing(condition(), condition("Degraded"), phase="Ready", versionHash="abc")
    wanted = bearing(condition(), phase="Ready")
    assert differs(wanted, held, frozenset({"conditions/Ready", "conditions/Degraded"}))
    assert differs(wanted, held, frozenset({"versionHash"}))
    assert not differs(wanted, held, frozenset({"conditions/Ready", "phase"}))


def test_when_it_was_last_looked_at_is_no_reason_to_write():
    assert not differs({"lastCompiledAt": LATER, "phase": "Ready"}, {"lastCompiledAt": NOW, "phase": "Ready"})
    assert differs({"lastCompiledAt": LATER, "phase": "Ready"}, {"lastCompiledAt": NOW, "phase": "Pending"})
    assert differs({"expiresAt": LATER}, {"expiresAt": NOW})


def test_a_status_is_written_one_way_however_it_was_given():
    given = {"phase": "Ready", "conditions": (condition(at=datetime(2026, 1, 1, tzinfo=UTC)),)}
    assert status.normal(InferencePolicy, given) == bearing(condition(), phase="Ready")


def test_a_member_that_a_kind_does_not_have_is_refused():
    with pytest.raises(msgspec.ValidationError):
        status.normal(InferencePolicy, {"phaze": "Ready"})


def test_every_kind_has_a_status_that_can_bear_conditions_and_a_manager():
    for name, kind in KINDS.items():
        assert status.normal(kind, bearing(condition()))["conditions"]
        assert status.manager(name).startswith("kars-controller/")


def fields(*names, conditions=()):
    found = {f"f:{name}": {} for name in names}
    if conditions:
        found["f:conditions"] = {f'k:{{"type":"{kind}"}}': {".": {}, "f:status": {}} for kind in conditions}
    return {"f:status": found}


def entry(manager, found, operation="Apply", subresource="status"):
    return {"manager": manager, "operation": operation, "subresource": subresource, "fieldsV1": found}


def test_owners_are_read_by_manager_and_only_of_the_status():
    metadata = {
        "managedFields": [
            entry("kars-controller/inferencepolicy", fields("phase", conditions=["Ready"])),
            entry("kars-controller/karseval-drift", fields(conditions=["ConformanceDrift"])),
            entry("kars-controller/inferencepolicy", fields("other"), subresource=""),
            entry("kubectl-edit", fields("note"), operation="Update"),
        ]
    }
    assert dict(status.owners(metadata, {})) == {
        "kars-controller/inferencepolicy": {"phase", "conditions/Ready"},
        "kars-controller/karseval-drift": {"conditions/ConformanceDrift"},
    }


def test_what_only_an_earlier_controller_owns_is_nobodys_and_is_taken_away_when_nobody_wants_it():
    metadata = {
        "managedFields": [
            entry("unknown", fields("phase", "old", conditions=["Ready", "Stale"]), operation="Update"),
            entry("kars-controller/x", fields("phase", conditions=["Ready"])),
        ]
    }
    nobodys = dict(status.owners(metadata, {}))[""]
    assert nobodys == {"old", "conditions/Stale"}
    held = bearing(condition(), condition("Stale"), phase="Ready", old=1)
    assert status.left_behind(bearing(condition(), phase="Ready"), held, nobodys) == {
        "old": None,
        "conditions": [condition()],
    }
    assert status.left_behind(held, held, nobodys) == {}


def test_sets_of_owners_are_kept_once():
    known = {}
    metadata = {"managedFields": [entry("kars-controller/x", fields("phase"))]}
    assert status.owners(metadata, known) is status.owners(metadata, known)


junk = st.recursive(
    st.none()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["f:status", "f:conditions", "k:{}", "k:[]", "k:{"]),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.sampled_from(["f:status", "f:conditions", "k:{", 'k:{"type":1}', "f:a", "k:[1]"]), below)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3) | st.just("f:conditions"), junk))
def test_odd_managed_fields_are_passed_over(found):
    below = {name: value if isinstance(value, dict) else {} for name, value in found.items()}
    metadata = {"managedFields": [entry("kars-controller/x", {"f:status": below})]}
    assert isinstance(status.owners(metadata, {}), tuple)
