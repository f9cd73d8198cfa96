"""How a sandbox stands, as a table."""

import pytest

from kars.controller.standing import Standing, blocked, conditions
from kars.desired.conditions import say

LIST, POLICY = "EgressAllowlist", "InferencePolicy"
MOUNTED = {POLICY: "sha256:p", LIST: "sha256:a"}
HEARD = {POLICY: ("sha256:p", None), LIST: ("sha256:a", None)}
UP = {"updated": 1, "ready": 1, "mounted": MOUNTED, "heard": HEARD}


def told(standing):
    phase, made = conditions(standing)
    return phase, {one.type: (one.status, one.reason) for one in made}


@pytest.mark.parametrize(
    ("changes", "phase", "ready", "progressing"),
    [
        ({}, "Running", ("True", "Reconciled"), "False"),
        ({"ready": 0}, "Creating", ("False", "PodsNotReady"), "True"),
        # The old pod is ready; the new template's is not there yet.
        ({"updated": 0}, "Creating", ("False", "PodsNotReady"), "True"),
        # Both are there; the one that is ready may be the old one.
        ({"old": 1}, "Creating", ("False", "PodsNotReady"), "True"),
        ({"ready": 0, "waiting": (("p", "ImagePullBackOff", "no such image"),)}, "Degraded", ("False", "ImagePullBackOff"), "False"),
        ({"ready": 0, "waiting": (("p", "ContainerCreating", ""),)}, "Creating", ("False", "PodsNotReady"), "True"),
        ({"ready": 0, "refused": "exceeded quota"}, "Degraded", ("False", "PodsRefused"), "False"),
        ({"deaf": "connection refused"}, "Creating", ("False", "AwaitingRouterEnforcement"), "True"),
        ({"heard": {}}, "Creating", ("False", "AwaitingRouterEnforcement"), "True"),
        ({"heard": {**HEARD, LIST: ("sha256:old", None)}}, "Creating", ("False", "AwaitingRouterEnforcement"), "True"),
        ({"heard": {**HEARD, LIST: ("sha256:old", "not JSON")}}, "Degraded", ("False", "PolicyRefusedByRouter"), "False"),
        ({"suspended": True}, "Pending", ("False", "SuspendedBySpec"), "False"),
    ],
)  # fmt: skip
def test_ready_needs_pods_and_routers_and_says_which_is_missing(changes, phase, ready, progressing):
    found, made = told(Standing(**{**UP, **changes}))
    assert (found, made["Ready"], made["Progressing"][0]) == (phase, ready, progressing)
    assert ("Degraded" in made) == (phase == "Degraded")


def test_an_error_of_a_router_counts_only_while_its_digest_is_another():
    heard = {**HEARD, LIST: ("sha256:a", "the next one was refused")}
    assert told(Standing(**{**UP, "heard": heard}))[0] == "Running"


def test_nobody_is_asked_while_no_pod_is_ready():
    _, made = told(Standing(**{**UP, "ready": 0}))
    assert made["PoliciesEnforced"] == ("Unknown", "PodsNotReady")


def test_what_this_router_does_not_read_is_named():
    _, made = conditions(Standing(**UP, unreported=("AgtProfile",)))
    message = next(one.message for one in made if one.type == "PoliciesEnforced")
    assert "AgtProfile" in message and "not read by this router" in message


def test_a_pods_own_words_are_told():
    waiting = (("demo-1", "CrashLoopBackOff", "back-off 10s"),)
    _, made = conditions(Standing(**{**UP, "ready": 0, "waiting": waiting}))
    message = next(one.message for one in made if one.type == "Ready")
    assert "demo-1: CrashLoopBackOff: back-off 10s" in message


def test_suspended_stays_as_false_once_it_was_true():
    before = (say("Suspended", "True", "SuspendedBySpec"),)
    assert told(Standing(**UP, before=before))[1]["Suspended"] == ("False", "Active")
    assert "Suspended" not in told(Standing(**UP))[1]


@pytest.mark.parametrize(("final", "phase", "progressing"), [(True, "Degraded", "False"), (False, "Pending", "True")])
def test_what_blocks_is_degraded_only_where_nothing_comes_by_itself(final, phase, progressing):
    found, made = blocked("SpecInvalid", "why", final=final, suspended=False, before=())
    told = {one.type: one.status for one in made}
    assert (found, told["Ready"], told["Progressing"]) == (phase, "False", progressing)
    assert told.get("Degraded", "False") == ("True" if final else "False")
