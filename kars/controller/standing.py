"""How a sandbox stands: from its pods and from what its routers say, to phase and conditions. Pure.

Ready means that a pod of the newest template is ready and that every ready router has in force what was mounted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kars.desired.conditions import DEGRADED, PROGRESSING, READY, RECONCILED, RUNTIME_READY, say, suspension
from kars.kube.types import Object
from kars.model.common import Condition
from kars.policy.compiled.canonical import digest

CREATING = "Creating"
POLICIES_ENFORCED = "PoliciesEnforced"
AWAITING = "AwaitingRouterEnforcement"

# Kinds of bundle by the file that each is made of: those that the router reports, and those that it does not read yet.
REPORTED = {"InferencePolicy": "inference-policy.json", "EgressAllowlist": "allowlist.json"}
UNREPORTED = {"AgtProfile": "agt-profile.yaml", "Memory": "binding.json"}

# What no waiting will mend.
HOPELESS = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "PodsRefused",
        "PolicyRefusedByRouter",
        "RunContainerError",
    }
)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the pods and routers of a sandbox that has been applied."""

    suspended: bool = False
    # The conditions as they were last written.
    before: tuple[Condition, ...] = ()
    # Of the Deployment: pods wanted, of the newest template, of older ones, ready.
    wanted: int = 1
    updated: int = 0
    old: int = 0
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


def conditions(standing: Standing) -> tuple[str, tuple[Condition, ...]]:
    """Return the phase and the conditions Ready, Progressing, RuntimeReady, PoliciesEnforced, Degraded, Suspended."""
    pause = suspension(standing.suspended, standing.before)
    if standing.suspended:
        words = "spec.suspended is true: the pod sleeps, everything else stands"
        kinds = (READY, PROGRESSING, RUNTIME_READY)
        return "Pending", (*(say(kind, "False", "SuspendedBySpec", words) for kind in kinds), *pause)
    pods = runtime(standing)
    policies = enforcement(standing, running=pods.status == "True")
    first = pods if pods.status != "True" else policies
    if first.status == "True":
        ready = say(READY, "True", RECONCILED, "the pod is ready and its router enforces what was mounted")
        return "Running", (ready, say(PROGRESSING, "False", RECONCILED), pods, policies, *pause)
    hopeless = first.reason in HOPELESS
    told = [
        say(READY, "False", first.reason, first.message),
        say(PROGRESSING, not hopeless, first.reason, first.message),
        pods,
        policies,
    ]
    if hopeless:
        told.append(say(DEGRADED, "True", first.reason, first.message))
    return "Degraded" if hopeless else CREATING, (*told, *pause)


def blocked(
    reason: str, message: str, *, final: bool, suspended: bool, before: Iterable[Condition]
) -> tuple[str, tuple[Condition, ...]]:
    """Return the phase and conditions of a sandbox that cannot be made, or not yet."""
    told = [say(READY, "False", reason, message), say(PROGRESSING, not final, reason, message)]
    if final:
        told.append(say(DEGRADED, "True", reason, message))
    return "Degraded" if final else "Pending", (*told, *suspension(suspended, before))


def runtime(standing: Standing) -> Condition:
    """Return the condition of the pods."""
    if standing.refused:
        return say(RUNTIME_READY, "False", "PodsRefused", standing.refused)
    if standing.updated >= standing.wanted and standing.ready >= standing.wanted and not standing.old:
        return say(RUNTIME_READY, "True", RECONCILED, f"{standing.ready} of {standing.wanted} pods ready")
    told = [f"{pod}: {reason}{': ' + words if words else ''}" for pod, reason, words in standing.waiting]
    worst = next((reason for _, reason, _ in standing.waiting if reason in HOPELESS), "PodsNotReady")
    counts = f"{standing.ready} of {standing.wanted} pods ready"
    if standing.updated < standing.wanted:
        counts += f", {standing.updated} of the newest template"
    elif standing.old:
        counts += f", {standing.old} of an older template"
    return say(RUNTIME_READY, "False", worst, "; ".join([counts, *told]))


def enforcement(standing: Standing, *, running: bool) -> Condition:
    """Return the condition of what the routers have in force."""
    if not running:
        return say(POLICIES_ENFORCED, "Unknown", "PodsNotReady", "no router to ask")
    if standing.deaf:
        return say(POLICIES_ENFORCED, "False", AWAITING, standing.deaf)
    late: list[str] = []
    bad: list[str] = []
    for kind, wanted in sorted(standing.mounted.items()):
        loaded, error = standing.heard.get(kind, (None, None))
        if loaded != wanted:
            (bad if error else late).append(f"{kind}: {error or 'not loaded yet'}")
    if bad:
        return say(POLICIES_ENFORCED, "False", "PolicyRefusedByRouter", "; ".join(bad + late))
    if late:
        return say(POLICIES_ENFORCED, "False", AWAITING, "; ".join(late))
    words = f"in force: {', '.join(sorted(standing.mounted))}"
    if standing.unreported:
        words += f"; mounted and not read by this router yet: {', '.join(standing.unreported)}"
    return say(POLICIES_ENFORCED, "True", "RouterEnforcing", words)


def mounted(wanted: Iterable[Object]) -> dict[str, str]:
    """Return the digests of the bundles that the router reports, as they are planned."""
    found = {}
    for one in wanted:
        for kind, file in REPORTED.items():
            if one["kind"] == "ConfigMap" and file in (one.get("data") or {}):
                found[kind] = digest([(file, one["data"][file].encode())])
    return found


def unreported(wanted: Iterable[Object]) -> tuple[str, ...]:
    """Return the kinds of bundle that are mounted and that the router of this version does not report."""
    files = {file for one in wanted if one["kind"] == "ConfigMap" for file in (one.get("data") or {})}
    return tuple(kind for kind, file in UNREPORTED.items() if file in files)
