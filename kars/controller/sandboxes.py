"""The reconciler of KarsSandbox: gather facts, plan, bring, ask the routers, say how it stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec

from kars.controller import gather, marks, spawning, standing, teardown
from kars.controller.allowlists import Allowlists, Settled
from kars.controller.announcements import announce
from kars.controller.children import NotOurs
from kars.controller.cluster import Cluster
from kars.controller.dependencies import INSIDE, dependencies
from kars.controller.gather import Blocked
from kars.controller.images import NOT_VERIFIED, VERIFIED, Images, Pinned
from kars.controller.index import Index
from kars.controller.pace import Pace
from kars.controller.reconcile import Done
from kars.controller.references import mcp_servers
from kars.controller.standing import Standing
from kars.desired import names
from kars.desired.conditions import is_ready, merge, say
from kars.desired.facts import Facts, Unplannable
from kars.desired.plan import plan
from kars.kube import types
from kars.kube.types import Key, Object
from kars.model.base import Resource
from kars.model.common import Condition
from kars.model.sandbox import KarsSandbox
from kars.model.trust import TrustGraph
from kars.policy.compiled.egress import allowlist_digest

# Seconds until the routers are asked again: at first soon, since a mount takes a moment, then ever more rarely.
FIRST_LOOK, LAST_LOOK, GROWTH = 1.0, 15.0, 1.6

# Seconds until a way to ready that goes on is told of, which most are too short for; and between any two of its steps.
FIRST_STEP, STEPS = 1.0, 2.0

# What is looked at again although nothing told of a change: an artifact, a name.
RECHECK = 60.0

# Where images need no signature.
NOTHING_ASKED = Pinned(images={}, conditions=())
SRE = "sre"


class Sandboxes:
    """Brings each sandbox to what its KarsSandbox says."""

    kind: ClassVar[type[Resource]] = KarsSandbox
    finalizer: ClassVar[str] = names.FINALIZERS["KarsSandbox"]

    def __init__(self) -> None:
        self.images = Images()
        self.allowlists = Allowlists()
        self.index = Index()
        self.spawning = spawning.Spawning()
        self.parents: dict[Key, str] = {}
        # How often each sandbox's routers were asked since they last agreed.
        self.looks: dict[Key, int] = {}
        self.pace: Pace[Key] = Pace(first=FIRST_STEP, between=STEPS)

    async def reconcile(self, resource: Resource, cluster: Cluster) -> Done:
        """Make the sandbox so; what stands in the way becomes a condition."""
        assert isinstance(resource, KarsSandbox)  # noqa: S101 - the engine gives what `kind` asks for
        try:
            return await self.make(resource, cluster)
        except Blocked as block:
            phase, told = standing.blocked(
                block.reason,
                str(block),
                final=block.final,
                suspended=resource.spec.suspended,
                before=known(resource),
            )
            await self.write(resource, cluster, phase, told)
            return Done(after=RECHECK if block.final else LAST_LOOK)

    async def make(self, sandbox: KarsSandbox, cluster: Cluster) -> Done:
        """Gather, plan, bring, look."""
        check_name(sandbox, cluster)
        self.spawning.check(sandbox, cluster)
        advice = gather.check_runtime(sandbox, strict=cluster.settings.platform.byo_strict)
        allowlist = await self.allowlists.settle(sandbox, cluster)
        facts, missing = await gather_facts(sandbox, cluster, allowlist)
        deployment = cluster.children.find(types.DEPLOYMENT, deployment_of(sandbox))
        wanted, images = await self.plan(facts, cluster, deployment)
        stop = obstacle(allowlist, images)
        if stop is not None and not (sandbox.spec.suspended and deployment):
            # What shuts the doors is brought, what opens them is not; what is to sleep is put to sleep.
            wanted = tuple(one for one in wanted if one["kind"] != "Deployment")
        try:
            await cluster.children.bring(wanted, manager=names.MANAGER)
        except NotOurs as foreign:
            raise Blocked("NamespaceNotOwned", marks.worded(foreign)) from foreign
        await teardown.sweep(sandbox, wanted, cluster)
        told = [*allowlist.conditions, *images.conditions]
        extra = [*told, *servers_condition(sandbox, missing), *contract_condition(advice)]
        after = min((one.after for one in (allowlist, images) if one.after is not None), default=None)
        if stop is None:
            return await self.look(sandbox, cluster, wanted, extra, after=after)
        phase, why = standing.blocked(
            stop.reason, str(stop), final=stop.final, suspended=sandbox.spec.suspended, before=known(sandbox)
        )
        await self.write(sandbox, cluster, phase, [*why, *extra])
        return Done(after=after or RECHECK)

    async def plan(
        self, facts: Facts, cluster: Cluster, deployment: Object | None
    ) -> tuple[tuple[Object, ...], Pinned]:
        """Plan a sandbox's objects, with images pinned by digest where they need a signature."""
        try:
            wanted = plan(facts)
        except Unplannable as error:
            raise Blocked(error.reason, str(error)) from error
        if not cluster.settings.platform.require_signed_images:
            return wanted, NOTHING_ASKED
        images = await self.images.pin(key_of(facts.sandbox), wanted, cluster, standing=deployment)
        return plan(msgspec.structs.replace(facts, pinned=images.images)), images

    async def look(
        self,
        sandbox: KarsSandbox,
        cluster: Cluster,
        wanted: Iterable[Object],
        extra: list[Condition],
        *,
        after: float | None,
    ) -> Done:
        """Ask pods and routers how it stands, write that, and say when to look again."""
        found = await self.standing(sandbox, cluster, wanted)
        phase, told = standing.conditions(found)
        pause = await self.write(sandbox, cluster, phase, [*told, *extra], pods=pod_names(sandbox, cluster))
        if pause:
            return Done(after=pause)
        key = key_of(sandbox)
        if told[0].status == "True" or sandbox.spec.suspended:
            self.looks.pop(key, None)
            return Done(after=after)
        looks = self.looks[key] = self.looks.get(key, 0) + 1
        again = min(LAST_LOOK, FIRST_LOOK * GROWTH**looks)
        return Done(after=min(again, after) if after else again)

    async def standing(self, sandbox: KarsSandbox, cluster: Cluster, wanted: Iterable[Object]) -> Standing:
        """Return what is known of pods and routers."""
        deployment = cluster.children.find(types.DEPLOYMENT, deployment_of(sandbox)) or {}
        status = deployment.get("status") or {}
        pods = [pod for pod in cluster.pods(key_of(sandbox)) if not pod.deleting]
        current = status.get("observedGeneration", 0) >= deployment.get("metadata", {}).get("generation", 1)
        base = Standing(
            suspended=sandbox.spec.suspended,
            before=known(sandbox),
            updated=status.get("updatedReplicas", 0) if current else 0,
            old=max(0, status.get("replicas", 0) - status.get("updatedReplicas", 0)),
            ready=sum(pod.ready for pod in pods),
            waiting=tuple((pod.key.name, pod.reason, pod.message) for pod in pods if not pod.ready and pod.reason),
            refused=next(
                (one.get("message", "") for one in status.get("conditions", ()) if one.get("type") == "ReplicaFailure"),
                "",
            ),
            mounted=standing.mounted(wanted),
            unreported=standing.unreported(wanted),
        )
        if sandbox.spec.suspended or standing.runtime(base).status != "True":
            return base
        key = key_of(sandbox)
        heard = (await cluster.echo.ask([key], fresh=True))[key]
        return msgspec.structs.replace(
            base,
            deaf=heard.error,
            heard={kind: (heard.digest(kind), heard.last_error(kind)) for kind in base.mounted},
        )

    async def write(
        self,
        sandbox: KarsSandbox,
        cluster: Cluster,
        phase: str,
        wanted: Iterable[Condition],
        *,
        pods: str = "",
    ) -> float:
        """Write the status when it differs, and tell an event when Ready changed; 0.0 then.

        What is on its way to ready is told at a pace, that it is not ready any more at once. Returns the seconds until
        it may be told.
        """
        now, generation = cluster.now(), sandbox.metadata.generation
        before, key = known(sandbox), key_of(sandbox)
        after = merge(before, wanted, generation=generation, now=now)
        status: dict[str, Any] = {
            "phase": phase,
            "namespace": names.namespace(key.name),
            "inferenceEndpoint": f"http://{names.service(key.name)}.{names.namespace(key.name)}.svc.cluster.local:8443",
            "runtimeKind": sandbox.spec.runtime.kind,
            "observedGeneration": generation,
            "conditions": msgspec.to_builtins(after),
        }
        if pods:
            status["sandboxPod"] = pods
        if phase != standing.CREATING:
            self.pace.forget(key)
        elif not is_ready(before) and cluster.is_news(sandbox, status) and (pause := self.pace.wait(key)):
            return pause
        if await cluster.write_status(sandbox, status):
            announce(cluster, KarsSandbox, key, before, after)
        return 0.0

    async def finalize(self, resource: Resource, cluster: Cluster) -> bool:
        """Take down what the sandbox was made of; true once its namespace is gone."""
        assert isinstance(resource, KarsSandbox)  # noqa: S101 - the engine gives what `kind` asks for
        self.looks.pop(key_of(resource), None)
        self.pace.forget(key_of(resource))
        self.allowlists.forget(resource)
        self.images.forget(key_of(resource))
        return await teardown.finalize(resource, cluster)

    def touched(self, kind: str, key: Key, cluster: Cluster) -> Iterable[Key]:
        """Return the sandboxes that depend on an object that changed."""
        if kind == KarsSandbox.__name__:
            return self.related(key, cluster)
        found = self.index.find(kind, key) | self.inside(kind, key, cluster)
        if kind in {TrustGraph.__name__, "EndpointSlice"}:
            return found | set(self.index.targets)
        if (kind, key) == ("ConfigMap", Key(cluster.settings.namespace, VERIFIED)) and self.images.lost(cluster):
            return found | set(list(self.index.targets)[:1])  # one is enough to write it again
        return found

    def inside(self, kind: str, key: Key, cluster: Cluster) -> frozenset[Key]:
        """Return whose namespace an object is in, or is; a sandbox that goes waits for nothing but its namespace."""
        found = self.index.find(INSIDE, Key("", key.namespace or key.name))
        if kind == types.NAMESPACE.kind:
            return found
        sandboxes = ((one, cluster.known(KarsSandbox, one)) for one in found)
        return frozenset(one for one, known in sandboxes if known and not known.metadata.deletion_timestamp)

    def related(self, key: Key, cluster: Cluster) -> Iterable[Key]:
        """Take in what a sandbox depends on now; its parents, old and new, and who waits for its place must know."""
        sandbox = cluster.resource(KarsSandbox, key)
        self.index.put(key, dependencies(sandbox, cluster) if sandbox else ())
        parent = sandbox.metadata.labels.get(names.PARENT, "") if sandbox else ""
        before = self.parents.pop(key, "")
        if parent:
            self.parents[key] = parent
        parents = {Key(key.namespace, name) for name in (before, parent) if name and name != (parent and before)}
        return parents | self.spawning.moved(key, before, parent)


async def gather_facts(sandbox: KarsSandbox, cluster: Cluster, allowlist: Settled) -> tuple[Facts, tuple[str, ...]]:
    """Gather everything that the plan depends on, and a sentence for each McpServer that the sandbox is not given."""
    settings = cluster.settings
    model, inference = gather.find_model(sandbox, cluster)
    gather.check_endpoint(cluster, model)
    servers, missing = await gather.find_servers(sandbox, cluster)
    return Facts(
        sandbox=sandbox,
        platform=settings.platform,
        model=model,
        inference=inference,
        tools=gather.find_tools(sandbox, cluster),
        memory=gather.find_memory(sandbox, cluster),
        mcp=servers,
        card=gather.find_card(sandbox, cluster),
        trust=gather.find_trust(sandbox, cluster),
        endpoints=allowlist.endpoints,
        allowlist=allowlist.document,
        allowlist_digest=allowlist_digest(allowlist.document),
        new_tokens=gather.new_tokens(names.namespace(sandbox.metadata.name), cluster),
        credentials=await gather.find_credentials(cluster),
        blocklist=gather.find_blocklist(cluster),
        children=tuple(one.metadata.name for one in cluster.spawned_by(key_of(sandbox))),
        generation=spawning.generation(sandbox, cluster),
        native_sidecars=cluster.version >= (1, 29),
        sleep_actions=cluster.version >= (1, 30),
        image_volumes=cluster.version >= (1, 35),
        api_server=(settings.api_server_host, settings.api_server_port),
        api_endpoints=cluster.api_endpoints(),
        sre=may_be_sre(sandbox, cluster),
    ), missing


def obstacle(allowlist: Settled, images: Pinned) -> Blocked | None:
    """Return why no pod may be made of a plan, though all else of it is brought; None when it may."""
    if allowlist.degraded:
        return Blocked(allowlist.degraded, allowlist.message)
    if images.message:
        return Blocked(NOT_VERIFIED, images.message, final=images.final)
    return None


def deployment_of(sandbox: KarsSandbox) -> Key:
    """Return where the Deployment of a sandbox is."""
    return Key(names.namespace(sandbox.metadata.name), sandbox.metadata.name)


def check_name(sandbox: KarsSandbox, cluster: Cluster) -> None:
    """Refuse a sandbox whose namespace would be one of the control plane's."""
    name, namespace = sandbox.metadata.name, names.namespace(sandbox.metadata.name)
    if namespace in {cluster.settings.namespace, "kars-system"}:
        raise Blocked("NameReserved", f"the name {name} is reserved: its namespace {namespace} is the controller's own")
    if name == SRE and not may_be_sre(sandbox, cluster):
        raise Blocked("NameReserved", f"the name {name} is reserved for the sandbox that the chart installs")


def may_be_sre(sandbox: KarsSandbox, cluster: Cluster) -> bool:
    """Whether this is the sandbox that may reach the API server: name, label and place agree, not the label alone."""
    return (
        sandbox.metadata.name == SRE
        and sandbox.metadata.labels.get(names.ROLE) == SRE
        and sandbox.metadata.namespace == cluster.settings.namespace
    )


def key_of(sandbox: KarsSandbox) -> Key:
    """Return where a sandbox is."""
    return Key(sandbox.metadata.namespace, sandbox.metadata.name)


def known(sandbox: KarsSandbox) -> tuple[Condition, ...]:
    """Return the conditions as they were last seen."""
    return sandbox.status.conditions if sandbox.status else ()


def pod_names(sandbox: KarsSandbox, cluster: Cluster) -> str:
    """Return the names of the sandbox's pods."""
    pods = cluster.pods(key_of(sandbox))
    return ",".join(sorted(pod.key.name for pod in pods if not pod.deleting))


def servers_condition(sandbox: KarsSandbox, missing: Iterable[str]) -> list[Condition]:
    """Return the condition of the McpServers; none when the sandbox asks for none."""
    if not mcp_servers(sandbox):
        return []
    words = "; ".join(missing)
    if words:
        return [say("McpServersAvailable", "False", "McpServersMissing", words)]
    return [say("McpServersAvailable", "True", "Reconciled")]


def contract_condition(advice: str) -> list[Condition]:
    """Return the advice on a BYO image."""
    return [say("BYOContractAdvisory", "True", "ContractAdvice", advice)] if advice else []
