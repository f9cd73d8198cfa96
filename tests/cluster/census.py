"""Whether a cluster is as its resources say: every object, counted against what the planners want.

What is wanted is asked of the same pure code that the controller asks, over lists read anew; what is there is everything
of the kinds that the controller makes, found by label and by namespace alike. `look` says what is wrong in sentences;
an empty list is convergence.
"""

import asyncio
import base64
import time
from collections.abc import Collection, Iterator

from kars.controller.allowlists import Allowlists
from kars.controller.cluster import CHILDREN, Cluster
from kars.controller.gather import Blocked
from kars.controller.metrics import Metrics
from kars.controller.policies import table
from kars.controller.sandboxes import check_name, gather_facts
from kars.desired import match, names
from kars.desired.facts import Unplannable
from kars.desired.plan import plan, stamp
from kars.errors import KarsError
from kars.kube import types
from kars.kube.client import Client
from kars.kube.events import Recorder
from kars.kube.types import Key, Object
from kars.model.sandbox import KarsSandbox
from kars.policy.compiled.outcome import Given, Unfit
from kars.settings.controller import from_environment
from tests.cluster.installation import Installation
from tests.cluster.plane import ControlPlane

# Policy kinds whose document follows from the resource alone.
COMPILED = (table.INFERENCE, table.TOOLS, table.MEMORY, table.TRUST)
# What Kubernetes itself puts into every namespace.
NATURAL = {("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")}
TOKENS = {"gateway-token": 32, "router-admin-token": 64}
# What convergence is allowed after the end of a fault, and what is waited for on a machine that does more than it can.
BAR_SECONDS = 10.0
PATIENCE_SECONDS = 30.0
STEP_SECONDS = 0.2
LOOK_SECONDS = 20.0

Place = tuple[str, str, str]


class Census:
    """Counts the objects of one installation. It remembers what must never change: namespaces' and tokens' uids."""

    def __init__(self, plane: ControlPlane, installation: Installation) -> None:
        self.plane = plane
        self.settings = from_environment(installation.variables("census"))
        self.client: Client | None = None
        # By sandbox (uid of the KarsSandbox) and object: uid, and of a token its text.
        self.lasting: dict[tuple[str, Place], tuple[str, bytes]] = {}
        self.lost: list[str] = []
        self.dismissed: set[str] = set()
        self.measured: dict[str, float] = {}

    def converged(self, since: float, *, what: str, whole: bool = False, seconds: float = PATIENCE_SECONDS) -> float:
        """Wait until nothing is wrong; how many seconds after `since` (of `time.monotonic`) the look began that found so.

        What Kubernetes' own controllers do takes their time (they empty a deleted namespace, and count pods): it is
        waited for only where the `whole` matters, and then the seconds begin with the end of that.
        """
        story: list[str] = []
        limit = time.monotonic() + 3 * seconds
        while True:
            began = time.monotonic()
            wrong, others = self.look()
            assert not self.lost, self.lost
            if whole and others and not wrong:
                assert began < limit, f"{what}: Kubernetes is not done: {others}"
                since = began
            elif not wrong:
                taken = max(began - since, 0.0)
                self.measured[what] = taken
                print(f"converged {taken:5.1f} s after {what}")
                if taken > BAR_SECONDS:
                    print("  but for:", *story[-12:], sep="\n    ")
                return taken
            else:
                story.append(f"{began - since:5.1f} s: {len(wrong)}: {'; '.join(wrong[:4])}")
                assert began < since + seconds, f"{what}: not after {seconds} s:\n  " + "\n  ".join(
                    [*story[-8:], "", *wrong]
                )
            time.sleep(STEP_SECONDS)

    def look(self) -> tuple[list[str], list[str]]:
        """Return what is wrong now, and what Kubernetes' own controllers have not done yet."""
        found = asyncio.run_coroutine_threadsafe(self.count(), self.plane.background.loop)
        try:
            return found.result(LOOK_SECONDS)
        except (KarsError, TimeoutError) as error:
            found.cancel()
            return [f"the API server did not tell: {error}"], []

    def forget(self, name: str) -> None:
        """Let a sandbox's namespace be another from now on: somebody deleted it by hand."""
        space = f"kars-{name}"
        self.lasting = {at: one for at, one in self.lasting.items() if space not in at[1]}

    def dismiss(self, name: str) -> None:
        """Count a sandbox, and what is left of it, no longer."""
        self.dismissed |= {name, f"kars-{name}", f"kars-spawner-{name}"}

    # Inside the loop

    async def count(self) -> tuple[list[str], list[str]]:
        """Read everything and compare."""
        if self.client is None:
            self.client = await Client.connect(kubeconfig=str(self.plane.admin), timeout=10.0)
        recorder = Recorder(self.client, controller="census", instance="census")
        cluster = Cluster(self.client, self.settings, recorder=recorder, metrics=Metrics())
        cluster.version = await self.client.version()
        await asyncio.gather(*(one.relist() for one in cluster.informers()))
        lists = await asyncio.gather(*(self.client.list(kind) for kind in CHILDREN))
        there = {place(one): one for objects, _ in lists for one in objects}
        there = {at: one for at, one in there.items() if self.dismissed.isdisjoint(at[1:])}
        wanted: dict[Place, Object] = {}
        emptying = set(going(cluster, there))
        # Sandboxes of which nothing is wanted now, and what stands of them may stay.
        blocked = set(emptying)
        wrong: list[str] = []
        others = [f"the namespace of {name} is being emptied" for name in emptying]
        for key in [one for one in cluster.keys(KarsSandbox) if one.name not in self.dismissed | emptying]:
            wrong += await self.judge(key, cluster, wanted, blocked, there)
        wrong += policies(cluster, wanted)
        wrong += differences(wanted, there)
        wrong += extras(cluster, wanted, blocked, there)
        others += unready(cluster, self.dismissed)
        await cluster.close()
        return wrong, others

    async def close(self) -> None:
        """Close its connections."""
        if self.client is not None:
            await self.client.close()

    async def judge(
        self, key: Key, cluster: Cluster, wanted: dict[Place, Object], blocked: set[str], there: dict[Place, Object]
    ) -> list[str]:
        """Add what one sandbox wants; what is wrong with the sandbox itself."""
        known = cluster.known(KarsSandbox, key)
        if known is None or known.metadata.deletion_timestamp is not None:
            return [f"{key} is going"]
        sandbox = known.resource
        if not isinstance(sandbox, KarsSandbox):
            return [f"{key}: {known.error}"]
        space = there.get(("Namespace", "", names.namespace(key.name)))
        if space is not None and not cluster.owns(key):
            return says(sandbox, "NamespaceNotOwned")
        try:
            check_name(sandbox, cluster)
            facts, _ = await gather_facts(sandbox, cluster, await Allowlists().settle(sandbox, cluster))
            objects = plan(facts)
        except (Blocked, Unplannable) as block:
            blocked.add(key.name)
            return says(sandbox, block.reason)
        wanted |= {place(one): one for one in objects}
        wrong = stands(sandbox, cluster)
        tokens = [there.get(("Secret", names.namespace(key.name), name)) for name in TOKENS]
        for value in (space, *tokens):
            if value is not None:
                self.lasts(sandbox, value)
        return wrong

    def lasts(self, sandbox: KarsSandbox, value: Object) -> None:
        """Raise when an object is another one than it was for the same sandbox, or its token has changed.

        That is no matter of waiting: what was lost does not come back.
        """
        name = value["metadata"]["name"]
        token = base64.b64decode((value.get("data") or {}).get("token", ""))
        assert len(token) == TOKENS.get(name, 0), f"{name} of {sandbox.metadata.name} is no token"
        at, now = (str(sandbox.metadata.uid), place(value)), (value["metadata"]["uid"], token)
        before = self.lasting.setdefault(at, now)
        if before != now:
            self.lost.append(f"{' '.join(at[1])} of {sandbox.metadata.name} was replaced or its token rewritten")


def unready(cluster: Cluster, dismissed: Collection[str]) -> Iterator[str]:
    """Say where there are more pods or less than one that is ready, or any where none is wanted."""
    for sandbox in cluster.resources(KarsSandbox):
        key = Key(sandbox.metadata.namespace, sandbox.metadata.name)
        if key.name in dismissed or sandbox.metadata.deletion_timestamp is not None or not cluster.owns(key):
            continue
        pods = cluster.pods(key)
        if sandbox.spec.suspended and pods:
            yield f"{key.name} sleeps and has {len(pods)} pods"
        elif not sandbox.spec.suspended and not (len(pods) == 1 and up(key, cluster)):
            yield f"{key.name} has {len(pods)} pods, and is not up"


def up(key: Key, cluster: Cluster) -> bool:
    """Whether Kubernetes has a pod of the newest template ready."""
    deployment = cluster.children.find(types.DEPLOYMENT, Key(names.namespace(key.name), key.name)) or {}
    updated = int((deployment.get("status") or {}).get("updatedReplicas", 0))
    return updated >= 1 and any(pod.ready and not pod.deleting for pod in cluster.pods(key))


def going(cluster: Cluster, there: dict[Place, Object]) -> Iterator[str]:
    """Go through the sandboxes that are deleted and whose namespace was told to go."""
    for key in cluster.keys(KarsSandbox):
        known = cluster.known(KarsSandbox, key)
        space = there.get(("Namespace", "", names.namespace(key.name)))
        if known is None or known.metadata.deletion_timestamp is None or space is None:
            continue
        if cluster.owns(key) and "deletionTimestamp" in space["metadata"]:
            yield key.name


def says(sandbox: KarsSandbox, reason: str) -> list[str]:
    """Return what is wrong when a sandbox that cannot be made does not tell why."""
    ready = condition(sandbox, "Ready")
    return [] if ready == ("False", reason) else [f"{sandbox.metadata.name} says {ready}, not {reason}"]


def stands(sandbox: KarsSandbox, cluster: Cluster) -> list[str]:
    """Return what is wrong with the status of a sandbox that can be made: kwok's pods are ready, their routers mute."""
    name, status, wrong = sandbox.metadata.name, sandbox.status, []
    if names.FINALIZERS["KarsSandbox"] not in sandbox.metadata.finalizers:
        wrong.append(f"{name} has no finalizer")
    if status is None or status.observed_generation != sandbox.metadata.generation:
        return [*wrong, f"{name}: its status is not of its generation"]
    ready, phase = condition(sandbox, "Ready"), str(status.phase)
    key = Key(sandbox.metadata.namespace, name)
    if sandbox.spec.suspended:
        wanted = {(("False", "SuspendedBySpec"), "Pending")}
    elif up(key, cluster):
        wanted = {(("False", "AwaitingRouterEnforcement"), "Creating"), (("True", "Reconciled"), "Running")}
    else:
        wanted = {(("False", "PodsNotReady"), "Creating")}
    if not sandbox.spec.suspended:
        pods = ",".join(sorted(pod.key.name for pod in cluster.pods(key) if not pod.deleting))
        if (status.sandbox_pod or "") != pods:
            wrong.append(f"{name} names the pods {status.sandbox_pod!r}, and there are {pods!r}")
    if (ready, phase) not in wanted:
        wrong.append(f"{name} is {phase} and says {ready}")
    if condition(sandbox, "Degraded")[0] == "True":
        wrong.append(f"{name} says that it is degraded: {condition(sandbox, 'Degraded')}")
    return wrong


def condition(sandbox: KarsSandbox, kind: str) -> tuple[str, str]:
    """Return status and reason of a condition."""
    told = sandbox.status.conditions if sandbox.status else ()
    return next(((str(one.status), one.reason) for one in told if one.type == kind), ("", ""))


def policies(cluster: Cluster, wanted: dict[Place, Object]) -> Iterator[str]:
    """Add what the policies want; what is wrong with their statuses."""
    for row in COMPILED:
        for resource in cluster.resources(row.kind):
            name = f"{row.kind.__name__} {resource.metadata.name}"
            if resource.metadata.deletion_timestamp is not None:
                yield f"{name} is going"
                continue
            try:
                compiled = row.render(resource, Given(namespace=cluster.settings.namespace, now=cluster.now()))
            except Unfit:
                continue
            wanted |= {place(one): stamp(one) for one in compiled.objects}
            status = resource.status  # type: ignore[attr-defined]
            if status is None or status.observed_generation != resource.metadata.generation:
                yield f"{name}: its status is not of its generation"
            elif status.phase not in {"Compiled", "Ready"}:
                yield f"{name} is {status.phase}"


def differences(wanted: dict[Place, Object], there: dict[Place, Object]) -> Iterator[str]:
    """Say what is missing and what is not as wanted."""
    for at, value in wanted.items():
        if at not in there:
            yield f"{' '.join(at)} is missing"
        elif "deletionTimestamp" in there[at]["metadata"]:
            yield f"{' '.join(at)} is going"
        elif not match.stands(value, match.pruned(there[at])):
            yield f"{' '.join(at)} is not as wanted"


def extras(
    cluster: Cluster, wanted: Collection[Place], blocked: Collection[str], there: dict[Place, Object]
) -> Iterator[str]:
    """Say what is there and wanted by nobody."""
    owned = {names.namespace(key.name): key.name for key in cluster.keys(KarsSandbox) if cluster.owns(key)}
    for at, value in there.items():
        kind, space, name = at
        labels = value["metadata"].get("labels") or {}
        ours = labels.get(names.MANAGED_BY) == names.CONTROLLER or names.PARENT_NAMESPACE in labels
        if at in wanted or not (ours or space in owned) or (kind, name) in NATURAL:
            continue
        token = kind == "Secret" and space in owned and name in TOKENS
        if token or labels.get(names.ARTIFACT) == "egress-approvals" or labels.get(names.SANDBOX) in blocked:
            continue
        yield f"{' '.join(at)} is there and nobody wants it"


def place(value: Object) -> Place:
    """Return kind, namespace and name."""
    return value["kind"], value["metadata"].get("namespace", ""), value["metadata"]["name"]
