"""What becomes of an evaluation."""

import pytest

from kars.desired.conditions import say
from kars.desired.evaluations import decide, finished, history, sandbox_drift
from kars.model.decode import decode
from kars.model.evaluation import EvalResult, EvalRun

DIGEST = "sha256:aa"


def evaluation(name="e", *, sandbox="demo", drift=None, fail=True, **spec):
    document = {
        "apiVersion": "kars.azure.com/v1alpha1",
        "kind": "KarsEval",
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"corpus": {"builtin": "x"}, "targetSandboxRef": {"name": sandbox}, "failSandboxOnDrift": fail, **spec},
    }
    if drift is not None:
        told = {
            "type": "ConformanceDrift",
            "status": drift,
            "reason": "X",
            "message": "",
            "lastTransitionTime": "2026-07-01T09:00:00Z",
        }
        document["status"] = {"conditions": [told]}
    return decode(document)


def result(passed, failed=0, *, total=None, errored=None, digest=DIGEST, **more):
    return EvalResult(
        total=passed + failed if total is None else total,
        passed=passed,
        failed=failed,
        errored=errored,
        corpus_digest=digest,
        **more,
    )


def look(found, *, running=False, triggered=False, **spec):
    return decide(evaluation(**spec), found, digest=DIGEST, running=running, triggered=triggered)


def table(found):
    return {one.type: (one.status, one.reason) for one in found.standing.conditions}


def test_before_the_first_run_it_is_pending():
    found = look(None)
    assert (found.standing.phase, found.after, table(found)["Ready"]) == ("Pending", 30, ("False", "Reconciled"))
    assert table(look(None, schedule="0 * * * *"))["Ready"] == ("False", "Scheduled")
    assert table(look(None, triggered=True))["Ready"] == ("False", "RunTriggered")
    assert look(None, running=True).standing.phase == "Running"


def test_every_case_passed_is_ready():
    found = look(result(5))
    assert (found.standing.phase, found.after) == ("Ready", 300)
    assert table(found)["Ready"] == ("True", "AllPassed") and table(found)["ConformanceDrift"] == ("False", "AllPassed")


def test_a_failed_case_is_drift_and_is_named():
    found = look(result(4, 1, first_failing_cases=("jb-7",)))
    assert (found.standing.phase, found.after) == ("Degraded", 60)
    assert table(found)["ConformanceDrift"] == ("True", "DriftDetected") == table(found)["Degraded"]
    assert "jb-7" in found.standing.conditions[0].message


@pytest.mark.parametrize("found", [result(4, total=5), result(5, errored=1), result(0)])
def test_a_run_that_did_not_try_everything_is_no_pass_and_no_drift(found):
    told = table(look(found))
    assert told["Ready"] == ("False", "CasesErrored") and told["ConformanceDrift"][0] == "Unknown"


def test_a_result_of_another_corpus_says_nothing():
    assert look(result(5, digest="sha256:bb")).standing.phase == "Pending"


def test_history_is_newest_first_bounded_and_has_each_job_once():
    runs = tuple(EvalRun(job_name=f"j{n}") for n in range(20))
    longer = history(runs, EvalRun(job_name="new"))
    assert len(longer) == 20 and longer[0].job_name == "new"
    assert history(longer, EvalRun(job_name="j3", total=1))[:2] == (EvalRun(job_name="j3", total=1), longer[0])
    assert len(history(runs, runs[5])) == 20


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, False),
        ({"active": 1}, False),
        ({"succeeded": 1}, True),
        ({"conditions": [{"type": "Failed", "status": "True"}]}, True),
        ({"conditions": [{"type": "Failed", "status": "False"}]}, False),
    ],
)
def test_a_job_whose_runner_ended_with_an_error_has_ended_too(status, expected):
    assert finished({"status": status}) is expected


def test_failing_evaluations_degrade_the_sandbox_that_they_are_about_when_asked_to():
    told = sandbox_drift([evaluation("b", drift="True"), evaluation("a", drift="True")], "demo")
    assert told == say("Degraded", "True", "ConformanceDrift", "cases of a, b fail")
    others = [
        evaluation(drift="True", fail=False),
        evaluation(drift="True", sandbox="other"),
        evaluation(drift="False"),
        evaluation(drift="Unknown"),
        evaluation(),
    ]
    assert sandbox_drift(others, "demo") is None
