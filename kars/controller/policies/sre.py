"""KarsSREAction: one change that an agent proposed and a person approved, done once, with no more rights than it needs.

    Proposed -> Approved -> Applied -> Recovered
       |           |           |
    Rejected     Failed      Failed   (and Recovered after all, within half an hour)
    Expired

The controller does none of it as itself. It binds the account `kars-sre/sre-writer` to the ClusterRole of the action,
in the namespace of the action only, asks for a token of that account that ends by itself, acts with that, and takes the
binding away again whatever happens. What the account may not do is not done.

Once an action ended it goes after an hour, and an event says so before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar

import msgspec

from kars.controller.cluster import Cluster
from kars.controller.policies import repairs, status
from kars.controller.policies.publisher import where
from kars.controller.reconcile import Done
from kars.desired.conditions import Standing, Status, say
from kars.kube import types
from kars.kube.client import Client
from kars.kube.errors import ApiError, Conflict, Forbidden
from kars.kube.types import DEPLOYMENT, EVENT, ROLE_BINDING, SERVICE_ACCOUNT, Key, Object
from kars.model.base import Resource
from kars.model.sre import KarsSREAction
from kars.policy.compiled.outcome import CONTROLLER, MANAGED_BY

MANAGER = "kars-controller/kars-sre-action"
WRITER = Key("kars-sre", "sre-writer")
# Namespaces that run the cluster or judge actions: none is ever repaired by an agent.
BARRED = frozenset({"kube-system", "kube-public", "kube-node-lease", "kars-system", "kars-sre", "agentmesh"})
DENIED = "NamespaceDenied"
ENDED = frozenset({"Recovered", "Failed", "Rejected", "Expired"})
# Seconds between two looks at whether things are well again: at first, and later on.
LOOK, LATE_LOOK = 10.0, 60.0
# How long things may take to be well again, and how long it still counts when they are late.
WINDOW, LATE = timedelta(seconds=600), timedelta(seconds=1800)
# Events of this long ago still speak against it.
QUIET = timedelta(seconds=30)
TROUBLE = frozenset({"FailedCreate", "BackOff", "FailedScheduling", "Failed"})
# How long an action that ended is kept.
KEPT = timedelta(seconds=3600)
# Seconds until rights that were just given are known to the API server's authorizer.
PROPAGATION, PROPAGATION_STEP = 5.0, 0.25


class Actions:
    """Reconciles KarsSREActions."""

    kind: ClassVar[type[Resource]] = KarsSREAction
    # None: an action is a record, and nothing of it lasts.
    finalizer: ClassVar[str] = ""

    async def reconcile(self, resource: Resource, cluster: Cluster) -> Done:
        """Move an action on from where its status says that it is."""
        assert isinstance(resource, KarsSREAction)  # noqa: S101 - the engine calls with its kind only
        phase = resource.status.phase if resource.status is not None else None
        if resource.metadata.namespace not in (WRITER.namespace, cluster.settings.namespace):
            return await self.deny(resource, cluster)
        if phase in ENDED:
            return await self.after_end(resource, cluster)
        if phase == "Applied":
            return await self.watch(resource, cluster)
        if phase == "Approved":
            return await self.act(resource, cluster)
        return await self.decide(resource, cluster)

    async def finalize(self, resource: Resource, cluster: Cluster) -> bool:  # noqa: ARG002 - the engine's call
        """Nothing lasts."""
        return True

    def touched(self, kind: str, key: Key, cluster: Cluster) -> Iterable[Key]:  # noqa: ARG002 - the engine's call
        """Nothing else wakes it."""
        return ()

    async def deny(self, resource: KarsSREAction, cluster: Cluster) -> Done:
        """Do nothing for an action of another place, whatever it says of itself.

        Who may write there may approve there, too, and what an action does is not limited to its own namespace.
        """
        before = status.condition(resource, "Available")
        if before is None or before.reason != DENIED:
            message = f"actions count in the namespaces {WRITER.namespace} and {cluster.settings.namespace} only"
            standing = ending(resource, "Failed", DENIED, message)
            await cluster.write_status(resource, status.of(resource, standing, {}, now=cluster.now()))
        return Done()

    # Proposed

    async def decide(self, resource: KarsSREAction, cluster: Cluster) -> Done:
        """Do what the person says; without a word it expires."""
        state, left = resource.spec.approval.state, self.left(resource, cluster)
        namespace = resource.spec.action.params.namespace
        if state == "Rejected":
            return await self.end(resource, cluster, "Rejected", "Rejected", resource.spec.approval.note or "")
        if namespace in BARRED or namespace == cluster.settings.namespace:
            message = f"nothing in the namespace {namespace} is changed by an action"
            return await self.end(resource, cluster, "Failed", DENIED, message)
        if left <= timedelta():
            # Also one that was approved meanwhile: what was true when it was proposed may not be any more.
            message = f"nobody decided within {resource.spec.ttl_minutes} minutes"
            return await self.end(resource, cluster, "Expired", "Expired", message)
        if state == "Approved":
            standing = progress("Approved", approved=True, executed=None, message="approved; about to be done")
            await self.write(resource, standing, {"writerCrbName": binding_name(resource)}, cluster)
            return Done(after=0.0)
        standing = progress("Proposed", approved=False, executed=False, message="waits for a person to decide")
        await self.write(resource, standing, {}, cluster)
        return Done(after=max(1.0, left.total_seconds()))

    def left(self, resource: KarsSREAction, cluster: Cluster) -> timedelta:
        """Return how long the proposal still stands."""
        began = resource.metadata.creation_timestamp or cluster.now()
        return began + timedelta(minutes=resource.spec.ttl_minutes) - cluster.now()

    # Approved

    async def act(self, resource: KarsSREAction, cluster: Cluster) -> Done:
        """Do it, as the writer and bound to one namespace. Doing it twice, after a crash in between, does no harm."""
        binding = role_binding(resource)
        key = types.key(binding)
        try:
            await cluster.client.apply(binding, manager=MANAGER)
            await cluster.client.apply(writer_account(), manager=MANAGER)
            async with cluster.client.acting_as(WRITER) as writer:
                await patient(writer, resource, approved_at(resource, cluster))
        except repairs.Refused as error:
            return await self.end(resource, cluster, "Failed", error.reason, str(error))
        except ApiError as error:
            if error.retryable or isinstance(error, Conflict):
                raise
            return await self.end(resource, cluster, "Failed", "ExecutionFailed", str(error))
        finally:
            await cluster.client.delete(ROLE_BINDING, key)
        standing = progress("Applied", approved=True, executed=True, message="done; waits for things to be well again")
        known = {"appliedAt": status.instant(cluster.now()), "writerCrbName": binding_name(resource)}
        await self.write(resource, standing, known, cluster)
        self.tell(resource, cluster, "Applied", resource.spec.action.type)
        return Done(after=LOOK)

    # Applied

    async def watch(self, resource: KarsSREAction, cluster: Cluster) -> Done:
        """Find out whether it helped."""
        began = applied_at(resource, cluster)
        trouble = await self.trouble(resource.spec.action.params.namespace, cluster)
        if not trouble:
            return await self.end(resource, cluster, "Recovered", "Recovered", "everything is available again")
        if cluster.now() - began >= WINDOW:
            return await self.end(resource, cluster, "Failed", "NotRecovered", trouble)
        return Done(after=LOOK)

    async def trouble(self, namespace: str, cluster: Cluster) -> str:
        """Say what is not well in a namespace; empty when everything is."""
        deployments, _ = await cluster.client.list(DEPLOYMENT, namespace=namespace)
        for one in deployments:
            wanted = one["spec"].get("replicas", 1)
            there = (one.get("status") or {}).get("availableReplicas", 0)
            if there < wanted:
                return f"Deployment {one['metadata']['name']} has {there} of {wanted} replicas"
        events, _ = await cluster.client.list(EVENT, namespace=namespace)
        for event in events:
            if event.get("reason") in TROUBLE and cluster.now() - last_seen(event) < QUIET:
                return f"{(event.get('regarding') or {}).get('name', 'an object')}: {event['reason']}"
        return ""

    # Ended

    async def after_end(self, resource: KarsSREAction, cluster: Cluster) -> Done:
        """See whether it helped after all; take the record away in the end."""
        assert resource.status is not None  # noqa: S101 - it has ended, and only the status says so
        applied = resource.status.applied_at
        if resource.status.phase == "Failed" and applied is not None and cluster.now() - applied < LATE:
            if not await self.trouble(resource.spec.action.params.namespace, cluster):
                return await self.end(resource, cluster, "Recovered", "LateRecovery", "everything is available again")
            return Done(after=LATE_LOOK)
        left = ended_at(resource, cluster) + KEPT - cluster.now()
        if left > timedelta():
            return Done(after=left.total_seconds())
        self.tell(resource, cluster, "Removed", f"it ended as {resource.status.phase} {KEPT} ago")
        await cluster.client.delete(types.custom(KarsSREAction), where(resource), uid=resource.metadata.uid)
        return Done()

    async def end(self, resource: KarsSREAction, cluster: Cluster, phase: str, reason: str, message: str) -> Done:
        """Say how it ended."""
        standing = ending(resource, phase, reason, message)
        await self.write(resource, standing, {}, cluster)
        self.tell(resource, cluster, phase, message or reason)
        late = phase == "Failed" and "appliedAt" in status.members(resource)
        return Done(after=LATE_LOOK if late else KEPT.total_seconds())

    async def write(self, resource: KarsSREAction, standing: Standing, more: dict[str, Any], cluster: Cluster) -> None:
        """Write the status; what it did and when stays."""
        before = status.members(resource)
        kept: dict[str, Any] = {name: before[name] for name in ("appliedAt", "writerCrbName") if name in before}
        await cluster.write_status(resource, status.of(resource, standing, {**kept, **more}, now=cluster.now()))

    def tell(self, resource: KarsSREAction, cluster: Cluster, reason: str, note: str) -> None:
        """Leave an event, which outlives the resource."""
        about = cluster.document(KarsSREAction, where(resource))
        if about is not None:
            kind: Any = "Warning" if reason == "Failed" else "Normal"
            cluster.recorder.tell(about, reason=reason, action="SREAction", note=note, type=kind)


async def patient(writer: Client, resource: KarsSREAction, approved: datetime) -> None:
    """Do it; a right that was just given takes the API server a moment to know of."""
    until = asyncio.get_running_loop().time() + PROPAGATION
    while True:
        try:
            return await repairs.repair(writer, resource.spec.action, approved=approved)
        except Forbidden:
            if asyncio.get_running_loop().time() >= until:
                raise
            await asyncio.sleep(PROPAGATION_STEP)


def binding_name(resource: KarsSREAction) -> str:
    """Return the name of the binding that lasts for the action."""
    return f"kars-sre-write-{resource.metadata.uid.partition('-')[0]}"


def role_binding(resource: KarsSREAction) -> Object:
    """Return the binding: the writer, to what the action needs, in the namespace of the action."""
    quota = resource.spec.action.type == "DeleteResourceQuota"
    role = "kars-sre-writer-quotas" if quota else "kars-sre-writer-workloads"
    namespace = resource.spec.action.params.namespace
    return {
        "apiVersion": ROLE_BINDING.api_version,
        "kind": ROLE_BINDING.kind,
        "metadata": {"name": binding_name(resource), "namespace": namespace, "labels": {MANAGED_BY: CONTROLLER}},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": WRITER.name, "namespace": WRITER.namespace}],
    }


def writer_account() -> Object:
    """Return the account that acts; no pod runs as it, and its token is in none."""
    metadata = {"name": WRITER.name, "namespace": WRITER.namespace, "labels": {MANAGED_BY: CONTROLLER}}
    return {
        "apiVersion": SERVICE_ACCOUNT.api_version,
        "kind": SERVICE_ACCOUNT.kind,
        "metadata": metadata,
        "automountServiceAccountToken": False,
    }


def approved_at(resource: KarsSREAction, cluster: Cluster) -> datetime:
    """Return when the approval was seen."""
    found = status.condition(resource, "Approved")
    return cluster.now() if found is None else found.last_transition_time


def applied_at(resource: KarsSREAction, cluster: Cluster) -> datetime:
    """Return when it was done."""
    found = resource.status.applied_at if resource.status is not None else None
    return found or cluster.now()


def ended_at(resource: KarsSREAction, cluster: Cluster) -> datetime:
    """Return when it ended: no condition changed later."""
    times = [one.last_transition_time for one in status.conditions(resource)]
    return max(times, default=resource.metadata.creation_timestamp or cluster.now())


def last_seen(event: Object) -> datetime:
    """Return when an event last happened (events.k8s.io/v1, or written by an older client)."""
    series = event.get("series") or {}
    text = series.get("lastObservedTime") or event.get("deprecatedLastTimestamp") or event.get("eventTime")
    text = text or event["metadata"]["creationTimestamp"]
    return msgspec.convert(text, datetime)


def progress(phase: str, *, approved: bool, executed: bool | None, message: str) -> Standing:
    """Say how far it is."""
    done: Status | bool = "Unknown" if executed is None else executed
    return Standing(
        phase=phase,
        conditions=(
            say("Available", False, phase, message),
            say("Approved", approved, "Approved" if approved else "Pending"),
            say("Executed", done, phase),
            say("Degraded", False, "Reconciled"),
        ),
    )


def ending(resource: KarsSREAction, phase: str, reason: str, message: str) -> Standing:
    """Say how it ended; what was approved and done is told as before."""
    before = {one.type: one for one in status.conditions(resource)}
    executed = before.get("Executed")
    approved = resource.spec.approval.state == "Approved"
    was_done = executed is not None and executed.status == "True"
    return Standing(
        phase=phase,
        conditions=(
            say("Available", phase == "Recovered", reason, message),
            say("Approved", approved, resource.spec.approval.state, resource.spec.approval.note or ""),
            say("Executed", was_done, "Applied" if was_done else reason),
            say("Degraded", phase == "Failed", reason if phase == "Failed" else "Reconciled", message),
        ),
    )
