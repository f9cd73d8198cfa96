"""The reconciler of every policy kind: resolve, compile, bring, ask, tell.

What a resource says, or what the signed artifact says that it names, is compiled and brought into the cluster. Then the
routers of the sandboxes that refer to it are asked whether they have it in force, and the status says so. When nothing
can be made of a resource, what stands in the cluster stays as it is: a policy never goes because its successor is bad.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from kars.artifacts.refused import Refused
from kars.controller.cluster import ROUTER, Cluster
from kars.controller.pace import Pace
from kars.controller.policies import referrers, status
from kars.controller.policies.confirmation import Confirmations, Poll
from kars.controller.policies.table import Row
from kars.controller.reconcile import Done, Temporary
from kars.controller.references import DEFAULT_TOOL_POLICY
from kars.desired import conditions
from kars.desired.conditions import Standing, is_ready
from kars.desired.plan import stamp
from kars.kube.errors import ApiError
from kars.kube.types import CONFIG_MAP, Key, Object
from kars.kube.types import key as key_of
from kars.model.base import Resource
from kars.policy.compiled.outcome import Compiled, Given, Unfit

# The ConfigMap that says who may sign.
SIGNER_POLICY = "kars-signer-policy"
# Seconds until something that is wrong is tried again, as registries and rights change without telling us: half of how
# long it has been wrong, within these.
SOONEST, LATEST = 60.0, 900.0
# Seconds until it is told that routers are waited for, which most times is over by then; and until it is told again,
# as what is counted on while sandboxes come up.
FIRST_STEP, STEPS = 1.0, 5.0


class Unwritten(Exception):
    """The API server would not take an object; the same request will not pass either."""


class Publisher:
    """Reconciles one kind of policy."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.kind = row.kind
        self.finalizer = row.finalizer
        self.index = None if row.refers is None else referrers.sandboxes(row.refers)
        self.confirmations = Confirmations()
        self.pace: Pace[Key] = Pace(first=FIRST_STEP, between=STEPS)

    async def reconcile(self, resource: Resource, cluster: Cluster) -> Done:
        """Bring what the resource says into the cluster, and tell what is in force."""
        known = status.members(resource)
        try:
            given = await self.gather(resource, cluster)
            compiled = self.row.render(resource, given)
            known = await self.bring(compiled, known, cluster)
        except (Refused, Unfit) as error:
            words = error.told if isinstance(error, Refused) else str(error)
            return await self.degrade(resource, known, cluster, error.reason, words)
        except Unwritten as error:
            return await self.degrade(resource, known, cluster, self.row.unwritten, str(error))
        standing, after = await self.judge(resource, compiled, known, cluster)
        if compiled.until is not None:
            turn = max(1.0, (compiled.until - cluster.now()).total_seconds())
            after = turn if after is None else min(after, turn)
        return await self.tell(resource, known, standing, cluster, after=after)

    # What it takes

    async def gather(self, resource: Resource, cluster: Cluster) -> Given:
        """Return what the compiler is told beside the resource."""
        settings = cluster.settings
        given = Given(namespace=settings.namespace, now=cluster.now(), safety_floor=settings.content_safety_floor)
        reference = self.row.bundle(resource)
        if reference is None:
            return given
        media_type: str = reference.artifact_type  # type: ignore[attr-defined]
        verified = await cluster.artifacts.fetch(reference, media_type, cluster.signers())
        return msgspec.structs.replace(
            given, content=verified.content, body=verified.body, bundle_digest=verified.digest
        )

    async def bring(self, compiled: Compiled, known: Mapping[str, Any], cluster: Cluster) -> dict[str, Any]:
        """Bring the objects into the cluster; return the members of the status that follow from them."""
        wanted = [stamp(one) for one in compiled.objects]
        # What stands may not have been told yet.
        same = all(self.stands(one, cluster) for one in wanted) and tells(known, compiled.status)
        try:
            await cluster.children.bring(wanted, manager=self.row.field_manager)
        except ApiError as error:
            if error.retryable:
                raise Temporary(str(error)) from error
            raise Unwritten(f"HTTP {error.status} {error.reason}: {error}") from error
        at = self.row.compiled_at
        moved = {} if not at or (same and known.get(at)) else {at: status.instant(cluster.now())}
        kept = {at: known[at]} if at and known.get(at) else {}
        return {**kept, **moved, **compiled.status}

    def stands(self, wanted: Object, cluster: Cluster) -> bool:
        """Whether the document that is wanted is the one that stands, whatever else of the object changed."""
        found = cluster.children.find(CONFIG_MAP, key_of(wanted)) if wanted["kind"] == CONFIG_MAP.kind else wanted
        return found is not None and found.get("data") == wanted.get("data")

    # What is in force

    async def judge(
        self,
        resource: Resource,
        compiled: Compiled,
        known: dict[str, Any],  # noqa: ARG002 - kinds with more to tell add it here
        cluster: Cluster,
    ) -> tuple[Standing, float | None]:
        """Return what is to be told, and when to look again."""
        note = "; ".join(compiled.notes)
        if self.index is None or compiled.echo_kind is None:
            return conditions.settled(note), None
        key = where(resource)
        live = self.row.governs(key, self.index.referrers(key, cluster), cluster)
        idle = self.row.governs(key, self.index.idlers(key, cluster), cluster)
        if only := self.row.sandbox(resource):
            live, idle = live & {Key(key.namespace, only)}, idle & {Key(key.namespace, only)}
        poll = await self.confirmations.poll(key, live, cluster, kind=compiled.echo_kind, digest=compiled.digest)
        if fault := conditions.memory_fault(poll.errors):
            return conditions.degraded(*fault, phase=self.row.failed), poll.after
        standing = conditions.enforcement(compiled.digest, poll.answers, asleep=len(idle), note=note)
        return standing, waiting(standing, poll)

    async def tell(
        self,
        resource: Resource,
        known: dict[str, Any],
        standing: Standing,
        cluster: Cluster,
        *,
        after: float | None,
    ) -> Done:
        """Write the status, and an event when a policy that is not enforced is news."""
        key, before = where(resource), status.condition(resource)
        if standing.confirmed and "compiledDigest" in known:
            known["loadedDigest"] = known["compiledDigest"]
        said = status.of(resource, standing, known, now=cluster.now())
        only_words = only_counts(status.members(resource), said)
        if not only_words and (standing.state != "Awaiting" or is_ready(status.conditions(resource))):
            self.pace.forget(key)
        elif cluster.is_news(resource, said) and (pause := self.pace.wait(key)):
            return Done(after=pause if after is None else min(pause, after))
        await cluster.write_status(resource, said)
        if standing.note and (before is None or before.reason != standing.conditions[0].reason):
            self.warn(resource, standing, cluster)
        return Done(after=after)

    async def degrade(
        self, resource: Resource, known: Mapping[str, Any], cluster: Cluster, reason: str, message: str
    ) -> Done:
        """Tell what is wrong; what stands in the cluster, and the members of the status about it, stay."""
        standing = conditions.degraded(reason, message, phase=self.row.failed)
        await cluster.write_status(resource, status.of(resource, standing, known, now=cluster.now()))
        return Done(after=None if reason == "SpecInvalid" else retry_after(resource, reason, cluster.now()))

    def warn(self, resource: Resource, standing: Standing, cluster: Cluster) -> None:
        """Tell of a policy that is not enforced."""
        about = cluster.document(self.kind, where(resource))
        if about is not None:
            cluster.recorder.tell(
                about,
                reason="PolicyNotEnforced",
                action="AwaitingRouterConfirmation",
                note=standing.note,
                type="Warning",
            )

    # Ends

    async def finalize(self, resource: Resource, cluster: Cluster) -> bool:
        """Take the ConfigMap away."""
        key = where(resource)
        await cluster.children.remove(CONFIG_MAP, self.row.config_map(key, cluster.settings.namespace))
        self.confirmations.forget(key)
        self.pace.forget(key)
        return True

    # What wakes it

    def touched(self, kind: str, key: Key, cluster: Cluster) -> Iterable[Key]:
        """Return the policies that a change can have to do with."""
        if kind == "ConfigMap":
            return {*self.own(key, cluster), *self.copied(key, cluster), *self.signed(key, cluster)}
        if self.index is None:
            return ()
        if kind == "KarsSandbox":
            # It may say now that its routers agree, or have turned to another policy.
            return self.hint(self.index.change(key, cluster), {key})
        if kind == self.kind.__name__ and key.name == DEFAULT_TOOL_POLICY:
            return {Key(cluster.settings.namespace, key.name)}  # whom it governs depends on who is beside it
        if kind == ROUTER and (name := referrers.of_namespace(key.namespace)):
            found = self.index.called(name, cluster)
            return self.doubt({policy for sandbox in found for policy in self.index.of(sandbox)}, found)
        return ()

    def hint(self, policies: Iterable[Key], sandboxes: Iterable[Key]) -> set[Key]:
        """Have sandboxes that have not confirmed asked again by their policies."""
        found = set(policies)
        for policy in found:
            for sandbox in sandboxes:
                self.confirmations.hint(policy, sandbox)
        return found

    def doubt(self, policies: Iterable[Key], sandboxes: Iterable[Key]) -> set[Key]:
        """Have sandboxes asked again by their policies, whether or not they have confirmed."""
        found = set(policies)
        for policy in found:
            for sandbox in sandboxes:
                self.confirmations.doubt(policy, sandbox)
        return found

    def own(self, key: Key, cluster: Cluster) -> set[Key]:
        """Return whose ConfigMap this is; a sandbox's copy, in its own namespace, is nobody's."""
        name = self.row.owner(key.name)
        namespace = key.namespace if self.kind.NAMES.namespaced else ""
        here = self.kind.NAMES.namespaced or key.namespace == cluster.settings.namespace
        found = Key(namespace, name)
        return {found} if name and here and cluster.known(self.kind, found) is not None else set()

    def copied(self, key: Key, cluster: Cluster) -> set[Key]:
        """Return whose ConfigMap this is a sandbox's copy of."""
        policy, sandbox = self.row.owner(key.name), referrers.of_namespace(key.namespace)
        if self.index is None or not (policy and sandbox):
            return set()
        found = self.index.called(sandbox, cluster)
        return self.doubt({one for at in found for one in self.index.of(at) if one.name == policy}, found)

    def signed(self, key: Key, cluster: Cluster) -> set[Key]:
        """Return every policy that needs a signature, when it changed who may sign."""
        if key != Key(cluster.settings.namespace, SIGNER_POLICY):
            return set()
        return {where(one) for one in cluster.resources(self.kind) if self.row.bundle(one) is not None}


def where(resource: Resource) -> Key:
    """Return where a resource is."""
    return Key(resource.metadata.namespace, resource.metadata.name)


def tells(known: Mapping[str, Any], members: Mapping[str, Any]) -> bool:
    """Whether a status has these members; one that is empty is left out of it."""
    return all((known.get(name) or None) == (value or None) for name, value in members.items())


def only_counts(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a status differs in nothing but what messages say, if it differs."""
    return without_messages(before) == without_messages(after)


def without_messages(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a status without the messages of its conditions."""
    told = [{name: part for name, part in one.items() if name != "message"} for one in value.get("conditions", ())]
    return {**value, "conditions": told}


def retry_after(resource: Resource, reason: str, now: datetime) -> float:
    """Return the seconds until something that has been wrong for a while is tried again."""
    before = status.condition(resource)
    same = before is not None and before.reason == reason
    wrong = (now - before.last_transition_time).total_seconds() if same and before is not None else 0.0
    return min(max(SOONEST, wrong / 2), LATEST)


def waiting(standing: Standing, poll: Poll) -> float | None:
    """Return when to ask again; never, when nobody is waited for: a change wakes the policy."""
    return poll.after if standing.state == "Awaiting" else None
