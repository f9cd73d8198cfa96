"""What becomes of a KarsSREAction: proposed, decided about by a person, done once, and watched until it has helped.

    Proposed --approved--> Approved --done--> Applied --healthy--> Recovered
        |                      |                 |--not in time--> Failed --healthy late--> Recovered
        |--rejected--> Rejected, --too old--> Expired, --may never be done--> Failed

Times are aware and UTC. The phase `Approved` is written before anything is done, so that a controller that dies between
the two is seen to have meant it, and its successor does it again: each action done twice is the same as done once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from kars.desired.conditions import DEGRADED, Standing, say
from kars.kube.types import Object
from kars.model.sre import KarsSREAction

AVAILABLE, APPROVED, EXECUTED = "Available", "Approved", "Executed"
# Whose failure nobody could repair from inside the cluster, and the controller's own.
DENIED_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease", "kars-system", "kars-sre", "agentmesh"})
# Seconds: an action has to help within the first, may still within the second; its resource goes after the third.
RECOVERY, LATE_RECOVERY, KEPT = 600, 1800, 3600
# Seconds until it is looked at again.
PROPOSED_AFTER, APPLIED_AFTER, TERMINAL_AFTER, LATE_AFTER = 15.0, 10.0, 300.0, 60.0
TERMINAL = frozenset({"Recovered", "Rejected", "Expired", "Failed"})
# Events that say that something still does not start, while they are this many seconds young.
TROUBLE = frozenset({"FailedCreate", "BackOff", "FailedScheduling", "Failed"})
TROUBLE_AGE = 30


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What to do next."""

    # `apply`: write the standing, do the action, then say `applied` or `failed`. `check`: look at the target's health
    # and ask again with it. `delete`: take the resource away.
    do: Literal["", "apply", "check", "delete"] = ""
    standing: Standing
    after: float


def step(action: KarsSREAction, *, now: datetime, healthy: bool | None = None) -> Step:
    """Decide from the resource, the time, and the health of its target where it was looked at."""
    phase = (action.status.phase if action.status else None) or "Proposed"
    applied_at = action.status.applied_at if action.status else None
    if phase in TERMINAL and not late(phase, applied_at, now):
        return finished(action, phase, now)
    if applied_at is not None:
        return watched(action, phase, applied_at, now, healthy)
    return undone(action, phase, now)


def undone(action: KarsSREAction, phase: str, now: datetime) -> Step:
    """Decide about an action that has not been done."""
    if why := barred(action):
        return Step(standing=failed(action, why, reason="NamespaceDenied"), after=TERMINAL_AFTER)
    decision = action.spec.approval.state
    if decision == "Rejected":
        told = standing("Rejected", {APPROVED: ("False", "Rejected")}, action.spec.approval.note or "")
        return Step(standing=told, after=TERMINAL_AFTER)
    left = (created(action) + timedelta(minutes=lifetime(action)) - now).total_seconds()
    if left <= 0 and phase != "Approved":
        message = f"not decided about within {lifetime(action)} minutes"
        return Step(standing=standing("Expired", {APPROVED: ("False", "Expired")}, message), after=TERMINAL_AFTER)
    if decision == "Approved":
        return Step(do="apply", standing=standing("Approved", {APPROVED: ("True", "Approved")}), after=APPLIED_AFTER)
    told = standing("Proposed", {APPROVED: ("False", "Pending")})
    return Step(standing=told, after=max(1.0, min(PROPOSED_AFTER, left)))


def watched(action: KarsSREAction, phase: str, applied_at: datetime, now: datetime, healthy: bool | None) -> Step:
    """Decide about an action that has been done."""
    if healthy is None:
        return Step(do="check", standing=current(action, phase), after=APPLIED_AFTER)
    if healthy:
        reason = "LateRecovery" if phase == "Failed" else "Recovered"
        return Step(standing=done("Recovered", {AVAILABLE: ("True", reason)}), after=TERMINAL_AFTER)
    if phase == "Failed":
        return Step(standing=current(action, phase), after=LATE_AFTER)
    if now - applied_at >= timedelta(seconds=RECOVERY):
        message = f"the target has not recovered within {RECOVERY} seconds"
        over = ("False", "RecoveryTimeout")
        told = done("Failed", {AVAILABLE: over, DEGRADED: ("True", "RecoveryTimeout")}, message)
        return Step(standing=told, after=LATE_AFTER)
    return Step(standing=done("Applied", {AVAILABLE: ("False", "AwaitingRecovery")}), after=APPLIED_AFTER)


def finished(action: KarsSREAction, phase: str, now: datetime) -> Step:
    """Keep a resource of which nothing more is to be expected for a time, then take it away."""
    left = (created(action) + timedelta(seconds=KEPT) - now).total_seconds()
    return Step(
        do="delete" if left <= 0 else "", standing=current(action, phase), after=max(1.0, min(TERMINAL_AFTER, left))
    )


def late(phase: str, applied_at: datetime | None, now: datetime) -> bool:
    """Whether an action that failed to help may still help."""
    return phase == "Failed" and applied_at is not None and now - applied_at < timedelta(seconds=LATE_RECOVERY)


def applied() -> Standing:
    """Say that the action has been done; `appliedAt` is then now."""
    return done("Applied", {AVAILABLE: ("False", "AwaitingRecovery")})


def failed(action: KarsSREAction, message: str, *, reason: str = "ExecutionFailed") -> Standing:
    """Say that the action could not be done, or never may be."""
    decision = action.spec.approval.state
    approved = ("True" if decision == "Approved" else "False", decision)
    told = {APPROVED: approved, EXECUTED: ("False", reason), DEGRADED: ("True", reason)}
    return standing("Failed", told, message)


def barred(action: KarsSREAction) -> str:
    """Say why an action may never be done; empty when it may."""
    namespace = action.spec.action.params.namespace
    return f"nothing is changed in the namespace {namespace}" if namespace in DENIED_NAMESPACES else ""


def protected(quota: Object) -> bool:
    """Whether a ResourceQuota is one that the controller made, which no action takes away."""
    labels = quota.get("metadata", {}).get("labels") or {}
    return bool(labels.get("kars.azure.com/managed-by") == "controller")


def writer_binding(action: KarsSREAction) -> str:
    """Return the name of the ClusterRoleBinding that lasts for the action."""
    return f"kars-sre-write-{action.metadata.uid.partition('-')[0]}"


def writer_role(action: KarsSREAction) -> str:
    """Return the ClusterRole that the action needs."""
    return "kars-sre-writer-quotas" if action.spec.action.type == "DeleteResourceQuota" else "kars-sre-writer-workloads"


def recovered(deployments: Iterable[Object], events: Iterable[Object], *, now: datetime) -> bool:
    """Whether every Deployment of a namespace has its replicas, and no young event says that one does not start."""
    return all(available(one) for one in deployments) and not any(troubling(one, now) for one in events)


def available(deployment: Object) -> bool:
    """Whether a Deployment has the replicas that it wants."""
    wanted = deployment.get("spec", {}).get("replicas", 1)
    return bool((deployment.get("status", {}).get("availableReplicas") or 0) >= wanted)


def troubling(event: Object, now: datetime) -> bool:
    """Whether an event, of events.k8s.io/v1 or core/v1, says that something does not start now."""
    if event.get("reason") not in TROUBLE:
        return False
    series: dict[str, Any] = event.get("series") or {}
    times = (
        series.get("lastObservedTime"),
        event.get("deprecatedLastTimestamp"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event.get("metadata", {}).get("creationTimestamp"),
    )
    # Of several times the latest counts: an event that repeats keeps its first one, too.
    seen = max((moment(text) for text in times if text), default=None)
    return seen is None or now - seen <= timedelta(seconds=TROUBLE_AGE)


def moment(text: str) -> datetime:
    """Read a time of the API server's."""
    return datetime.fromisoformat(text).astimezone(UTC)


def lifetime(action: KarsSREAction) -> int:
    """Return the minutes that a proposal lasts."""
    return max(1, min(60, action.spec.ttl_minutes))


def created(action: KarsSREAction) -> datetime:
    """Return when the resource was made."""
    return action.metadata.creation_timestamp or datetime(1970, 1, 1, tzinfo=UTC)


def current(action: KarsSREAction, phase: str) -> Standing:
    """Say what was said before."""
    return Standing(phase=phase, conditions=action.status.conditions if action.status else ())


def done(phase: str, told: Mapping[str, tuple[str, str]], message: str = "") -> Standing:
    """Say what became of an action that has been done."""
    return standing(phase, {APPROVED: ("True", "Approved"), EXECUTED: ("True", "Applied"), **told}, message)


# What is told of an action until there is something else to tell: status and reason.
UNTOLD = {
    AVAILABLE: ("False", "NotExecuted"),
    APPROVED: ("False", "Pending"),
    EXECUTED: ("False", "NotExecuted"),
    DEGRADED: ("False", "Reconciled"),
}


def standing(phase: str, told: Mapping[str, tuple[str, str]], message: str = "") -> Standing:
    """Make the four conditions."""
    all_told = {**UNTOLD, **told}
    conditions = tuple(say(kind, status == "True", reason, message) for kind, (status, reason) in all_told.items())
    return Standing(
        phase=phase, conditions=conditions, state="Degraded" if all_told[DEGRADED][0] == "True" else "NotApplicable"
    )
