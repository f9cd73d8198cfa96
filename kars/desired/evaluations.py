"""What becomes of a KarsEval: it waits for a run, runs, and says whether its sandbox does what the corpus asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from kars.desired.conditions import DEGRADED, PROGRESSING, READY, RECONCILED, Standing, say
from kars.model.common import Condition
from kars.model.evaluation import EvalResult, EvalRun, KarsEval

CONFORMANCE = "ConformanceDrift"
# Runs that a status remembers, and cases that it names.
HISTORY, NAMED = 20, 5
# Seconds until it is looked at again: a run that passed, one that did not, none yet.
PASSED_AFTER, FAILED_AFTER, WAITING_AFTER = 300.0, 60.0, 30.0


class Evaluated(msgspec.Struct, frozen=True):
    """What is told of an evaluation, and when it is to be looked at again, in seconds."""

    standing: Standing
    after: float


def decide(
    evaluation: KarsEval, result: EvalResult | None, *, digest: str, running: bool, triggered: bool
) -> Evaluated:
    """Decide from the last result, the corpus's digest, whether a run is under way, and whether it was asked for.

    A result of another corpus says nothing about this one.
    """
    if result is not None and result.corpus_digest == digest:
        return judged(result)
    waiting = "Scheduled" if evaluation.spec.schedule else RECONCILED
    reason = "RunTriggered" if triggered or running else waiting
    phase = "Running" if running else "Pending"
    message = "a run is under way" if running or triggered else "no run of this corpus has ended yet"
    told = (say(READY, "False", reason, message), say(PROGRESSING, "True", reason), say(DEGRADED, "False", reason))
    return Evaluated(Standing(phase=phase, conditions=told), WAITING_AFTER)


def judged(result: EvalResult) -> Evaluated:
    """Say what a result comes to. Only a run in which every case was tried and passed is a pass."""
    total, passed, failed = result.total or 0, result.passed or 0, result.failed or 0
    errored = max(result.errored or 0, total - passed - failed)
    if total > 0 and not failed and not errored:
        message = f"{passed}/{total} cases passed"
        told = (
            say(READY, "True", "AllPassed", message),
            say(PROGRESSING, "False", RECONCILED),
            say(DEGRADED, "False", "AllPassed"),
            say(CONFORMANCE, "False", "AllPassed"),
        )
        return Evaluated(Standing(phase="Ready", conditions=told), PASSED_AFTER)
    reason = "DriftDetected" if failed else "CasesErrored"
    first = f": {', '.join(result.first_failing_cases[:NAMED])}" if result.first_failing_cases else ""
    message = f"{passed}/{total} cases passed, {failed} failed, {errored} could not be tried{first}"
    told = (
        say(READY, "False", reason, message),
        say(PROGRESSING, "False", "Failed"),
        say(DEGRADED, "True", reason, message),
        say(CONFORMANCE, "True" if failed else "Unknown", reason, message),
    )
    return Evaluated(Standing(phase="Degraded", conditions=told, state="Degraded"), FAILED_AFTER)


def history(before: Iterable[EvalRun], run: EvalRun) -> tuple[EvalRun, ...]:
    """Put a run before the others, newest first, each Job once."""
    return (run, *(one for one in before if one.job_name != run.job_name))[:HISTORY]


def finished(job: dict[str, Any]) -> bool:
    """Whether a Job has ended, well or not: the runner ends with an error when a case fails, which its report tells."""
    status = job.get("status") or {}
    conditions = status.get("conditions") or ()
    ended = {condition.get("type") for condition in conditions if condition.get("status") == "True"}
    return bool(ended & {"Complete", "Failed"} or status.get("succeeded"))


def sandbox_drift(evaluations: Iterable[KarsEval], sandbox: str) -> Condition | None:
    """Return the condition that failing evaluations put on their sandbox; None when no one asks for it.

    The sandbox's own reconciler merges it with its other conditions, so that neither overwrites the other's.
    """
    drifting = sorted(
        one.metadata.name
        for one in evaluations
        if one.spec.fail_sandbox_on_drift
        and one.spec.target_sandbox_ref.name == sandbox
        and one.status is not None
        and any(told.type == CONFORMANCE and told.status == "True" for told in one.status.conditions)
    )
    if not drifting:
        return None
    return say(DEGRADED, "True", CONFORMANCE, f"cases of {', '.join(drifting[:NAMED])} fail")
