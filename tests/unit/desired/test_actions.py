"""What becomes of a proposed change to the cluster."""

from datetime import UTC, datetime, timedelta

import pytest

from kars.desired import actions
from kars.desired.actions import recovered, step
from kars.desired.conditions import merge
from kars.model.decode import decode

MADE = datetime(2026, 7, 1, 9, tzinfo=UTC)


def at(seconds):
    return MADE + timedelta(seconds=seconds)


def action(phase=None, *, approval="Pending", applied=None, namespace="team-a", ttl=15, note=None):
    document = {
        "apiVersion": "kars.azure.com/v1alpha1",
        "kind": "KarsSREAction",
        "metadata": {
            "name": "a",
            "namespace": "n",
            "uid": "0a1b2c3d-1111-2222",
            "creationTimestamp": MADE.isoformat(),
            "generation": 3,
        },
        "spec": {
            "action": {"type": "DeletePod", "params": {"namespace": namespace, "name": "p"}},
            "approval": {"state": approval, **({"note": note} if note else {})},
            "ttlMinutes": ttl,
        },
    }
    if phase:
        document["status"] = {"phase": phase, **({"appliedAt": applied.isoformat()} if applied else {})}
    return decode(document)


def table(standing):
    return {one.type: (one.status, one.reason) for one in standing.conditions}


def test_a_proposal_waits_for_a_person():
    found = step(action(), now=at(10))
    assert (found.do, found.standing.phase, found.after) == ("", "Proposed", 15)
    assert set(table(found.standing)) == {"Available", "Approved", "Executed", "Degraded"}
    assert step(action(), now=at(15 * 60 - 4)).after == 4


@pytest.mark.parametrize("state", ["Pending", "Approved"])
def test_a_proposal_that_is_too_old_expires_even_when_it_is_approved_late(state):
    found = step(action("Proposed", approval=state), now=at(15 * 60))
    assert (found.do, found.standing.phase) == ("", "Expired")
    assert step(action("Proposed", approval=state, ttl=16), now=at(15 * 60)).standing.phase != "Expired"


def test_a_rejection_is_told_with_its_note():
    found = step(action(approval="Rejected", note="not now"), now=at(1))
    assert found.standing.phase == "Rejected" and table(found.standing)["Approved"] == ("False", "Rejected")
    assert found.standing.conditions[1].message == "not now"


def test_an_approval_is_written_before_anything_is_done():
    found = step(action("Proposed", approval="Approved"), now=at(60))
    assert (found.do, found.standing.phase) == ("apply", "Approved")
    assert table(found.standing)["Approved"] == ("True", "Approved")


def test_an_approval_that_was_seen_in_time_is_carried_out_after_a_restart():
    assert step(action("Approved", approval="Approved"), now=at(16 * 60)).do == "apply"


@pytest.mark.parametrize("namespace", sorted(actions.DENIED_NAMESPACES))
def test_nothing_is_ever_changed_where_the_cluster_itself_lives(namespace):
    found = step(action("Approved", approval="Approved", namespace=namespace), now=at(1))
    assert (found.do, found.standing.phase) == ("", "Failed")
    assert table(found.standing)["Degraded"] == ("True", "NamespaceDenied")


def test_what_was_done_is_watched_until_it_has_helped():
    one = action("Applied", approval="Approved", applied=at(60))
    assert step(one, now=at(70)).do == "check"
    waiting = step(one, now=at(70), healthy=False)
    assert (waiting.standing.phase, waiting.after) == ("Applied", 10)
    good = step(one, now=at(70), healthy=True)
    assert good.standing.phase == "Recovered" and table(good.standing)["Available"] == ("True", "Recovered")


def test_what_has_not_helped_in_time_has_failed_and_may_still_help():
    failed = step(action("Applied", approval="Approved", applied=at(0)), now=at(600), healthy=False)
    assert failed.standing.phase == "Failed" and failed.after == 60
    assert (
        step(action("Applied", approval="Approved", applied=at(0)), now=at(599), healthy=False).standing.phase
        == "Applied"
    )
    late = action("Failed", approval="Approved", applied=at(0))
    assert step(late, now=at(1799)).do == "check"
    assert step(late, now=at(1799), healthy=False).after == 60
    saved = step(late, now=at(1799), healthy=True)
    assert saved.standing.phase == "Recovered" and table(saved.standing)["Available"] == ("True", "LateRecovery")
    assert step(late, now=at(1800)).do == ""


@pytest.mark.parametrize("phase", ["Recovered", "Rejected", "Expired", "Failed"])
def test_what_is_over_goes_after_an_hour(phase):
    early = step(action(phase), now=at(3500))
    assert (early.do, early.standing.phase, early.after) == ("", phase, 100)
    assert step(action(phase), now=at(3600)).do == "delete"


def test_a_failure_tells_whether_it_was_approved():
    told = table(actions.failed(action(approval="Approved"), "403"))
    assert told["Approved"] == ("True", "Approved") and told["Executed"] == ("False", "ExecutionFailed")


def test_conditions_bear_the_generation_and_keep_their_times():
    once = merge((), actions.applied().conditions, generation=3, now=at(0))
    again = merge(once, actions.applied().conditions, generation=3, now=at(500))
    assert again == once and {one.observed_generation for one in once} == {3}


def deployment(wanted, available):
    spec = {} if wanted is None else {"replicas": wanted}
    return {"spec": spec, "status": {} if available is None else {"availableReplicas": available}}


def event(reason, **times):
    return {"reason": reason, **times}


NOW = at(1000)
YOUNG, OLD = at(975).isoformat(), at(960).isoformat()


@pytest.mark.parametrize(
    ("deployments", "events", "expected"),
    [
        ([], [], True),
        ([deployment(2, 2), deployment(0, None)], [], True),
        ([deployment(2, 1)], [], False),
        ([deployment(None, None)], [], False),
        ([deployment(1, 1)], [event("BackOff", lastTimestamp=YOUNG)], False),
        ([deployment(1, 1)], [event("BackOff", lastTimestamp=OLD)], True),
        ([deployment(1, 1)], [event("Pulled", lastTimestamp=YOUNG)], True),
        ([deployment(1, 1)], [event("Failed", eventTime=OLD, series={"lastObservedTime": YOUNG})], False),
        ([deployment(1, 1)], [event("FailedCreate", eventTime=None, deprecatedLastTimestamp=YOUNG)], False),
        ([deployment(1, 1)], [event("FailedScheduling")], False),
    ],
)
def test_recovery_is_every_replica_and_no_young_trouble(deployments, events, expected):
    assert recovered(deployments, events, now=NOW) is expected


def test_names_of_the_right_that_lasts_for_an_action():
    assert actions.writer_binding(action()) == "kars-sre-write-0a1b2c3d"
    assert actions.writer_role(action()) == "kars-sre-writer-workloads"
    assert actions.protected({"metadata": {"labels": {"kars.azure.com/managed-by": "controller"}}})
    assert not actions.protected({"metadata": {}})
