"""How a sandbox stands: from its pods and from what its routers say, to phase and conditions. Pure.

Ready means that a pod of the newest template is ready and that every ready router has in force what was mounted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from kars.model.common import Condition

Answer = Literal["True", "False", "Unknown"]

# What a container waits for that no waiting will bring.
HOPELESS = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)


class Verdict(msgspec.Struct, frozen=True):
    """One aspect: whether it holds, why, and in words."""

    type: str
    status: Answer
    reason: str
    message: str = ""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the pods and routers of a sandbox that has been applied."""

    suspended: bool = False
    was_suspended: bool = False
    # Of the Deployment: pods wanted, of the newest template, ready.
    wanted: int = 1
    updated: int = 0
    ready: int = 0
    # Why a pod is not ready: its name, the reason that the kubelet gives, the words.
    waiting: tuple[tuple[str, str, str], ...] = ()
    # A refusal of the Deployment's controller to make pods (quota, admission).
    refused: str = ""
    # Kind of bundle to the digest that was mounted, and what the routers said: digest in force and last error.
    mounted: Mapping[str, str] = msgspec.field(default_factory=dict)
    heard: Mapping[str, tuple[str | None, str | None]] = msgspec.field(default_factory=dict)
    # Why the routers could not be asked.
    deaf: str = ""
    # Kinds that are mounted and that this version of the router does not report.
    unreported: tuple[str, ...] = ()


def conditions(standing: Standing) -> tuple[str, tuple[Verdict, ...]]:
    """Return the phase and the verdicts on Ready, Progressing, RuntimeReady, PoliciesEnforced and Suspended."""
    pause = suspension(standing)
    if standing.suspended:
        words = "spec.suspended is true: the pod sleeps, everything else stands"
        return "Pending", (
            Verdict("Ready", "False", "SuspendedBySpec", words),
            Verdict("Progressing", "False", "SuspendedBySpec", words),
            Verdict("RuntimeReady", "False", "SuspendedBySpec", words),
            *pause,
        )
    pods = runtime(standing)
    policies = enforcement(standing, running=pods.status == "True")
    first = pods if pods.status != "True" else policies
    if first.status == "True":
        ready = Verdict("Ready", "True", "Reconciled", "the pod is ready and its router enforces what was mounted")
        progressing = Verdict("Progressing", "False", "Reconciled", "")
        return "Running", (ready, progressing, pods, policies, *pause)
    hopeless = first.reason in HOPELESS or first.reason in {"PodsRefused", "PolicyRefusedByRouter"}
    verdicts = [
        Verdict("Ready", "False", first.reason, first.message),
        Verdict("Progressing", "False" if hopeless else "True", first.reason, first.message),
        pods,
        policies,
    ]
    if hopeless:
        verdicts.append(Verdict("Degraded", "True", first.reason, first.message))
    return "Degraded" if hopeless else "Creating", (*verdicts, *pause)


def blocked(reason: str, message: str, *, final: bool) -> tuple[str, tuple[Verdict, ...]]:
    """Return the phase and verdicts of a sandbox that cannot be made, or not yet."""
    verdicts = (
        Verdict("Ready", "False", reason, message),
        Verdict("Progressing", "False" if final else "True", reason, message),
    )
    if not final:
        return "Pending", verdicts
    return "Degraded", (*verdicts, Verdict("Degraded", "True", reason, message))


def suspension(standing: Standing) -> tuple[Verdict, ...]:
    """Return the verdict on Suspended; there is none as long as a sandbox never was."""
    if standing.suspended:
        return (Verdict("Suspended", "True", "SuspendedBySpec", "spec.suspended is true"),)
    if standing.was_suspended:
        return (Verdict("Suspended", "False", "Active", "spec.suspended is false"),)
    return ()


def runtime(standing: Standing) -> Verdict:
    """Return the verdict on the pods."""
    if standing.refused:
        return Verdict("RuntimeReady", "False", "PodsRefused", standing.refused)
    if standing.updated >= standing.wanted and standing.ready >= standing.wanted:
        return Verdict("RuntimeReady", "True", "Reconciled", f"{standing.ready} of {standing.wanted} pods ready")
    told = [f"{pod}: {reason}{': ' + words if words else ''}" for pod, reason, words in standing.waiting]
    worst = next((reason for _, reason, _ in standing.waiting if reason in HOPELESS), "PodsNotReady")
    counts = f"{standing.ready} of {standing.wanted} pods ready"
    if standing.updated < standing.wanted:
        counts += f", {standing.updated} of the newest template"
    return Verdict("RuntimeReady", "False", worst, "; ".join([counts, *told]))


def enforcement(standing: Standing, *, running: bool) -> Verdict:
    """Return the verdict on what the routers have in force."""
    if not running:
        return Verdict("PoliciesEnforced", "Unknown", "PodsNotReady", "no router to ask")
    if standing.deaf:
        return Verdict("PoliciesEnforced", "False", "AwaitingRouterEnforcement", standing.deaf)
    late, bad = [], []
    for kind, digest in sorted(standing.mounted.items()):
        loaded, error = standing.heard.get(kind, (None, None))
        if loaded != digest:
            (bad if error else late).append(f"{kind}: {error or 'not loaded yet'}")
    if bad:
        return Verdict("PoliciesEnforced", "False", "PolicyRefusedByRouter", "; ".join(bad + late))
    if late:
        return Verdict("PoliciesEnforced", "False", "AwaitingRouterEnforcement", "; ".join(late))
    words = f"{len(standing.mounted)} kinds of policy in force"
    if standing.unreported:
        words += f"; mounted and not reported by this router: {', '.join(standing.unreported)}"
    return Verdict("PoliciesEnforced", "True", "RouterEnforcing", words)


def stamped(verdicts: Iterable[Verdict], *, generation: int, now: datetime) -> tuple[Condition, ...]:
    """Turn verdicts into conditions; `desired.conditions.merge` then keeps the times of what did not change."""
    return tuple(
        Condition(
            type=verdict.type,
            status=verdict.status,
            reason=verdict.reason,
            message=verdict.message,
            last_transition_time=now,
            observed_generation=generation,
        )
        for verdict in verdicts
    )
