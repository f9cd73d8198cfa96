"""An API server in memory, as far as reconcilers go; what is known and what is written runs through the real Cluster.

The proof on a real API server is in `tests/cluster`. Here is what that cannot show in a test's time: hours, a thousand
sandboxes, logs of pods, and failures at a chosen moment.
"""

import copy
import itertools
import json
from collections import Counter
from datetime import UTC, datetime, timedelta

from kars.artifacts.refused import Refused
from kars.controller.cluster import Cluster
from kars.controller.echo import Entry, Heard
from kars.controller.metrics import Metrics
from kars.kube import types
from kars.kube.errors import Conflict, Missing
from kars.model.kinds import KINDS
from kars.settings.controller import Controller, Platform

API = "kars.azure.com/v1alpha1"
HOME = "kars-system"
BEGIN = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


class Api:
    """A client whose objects are in a dictionary; whoever owns a ConfigMap's key is remembered, as for approvals."""

    def __init__(self):
        self.objects = {}
        self.owned = {}
        self.versions = itertools.count(1)
        self.requests = Counter()
        self.failures = {}
        self.logs = {}
        self.cluster = None

    def fail(self, verb, kind):
        self.requests[verb, kind] += 1
        if (error := self.failures.get((verb, kind))) is not None:
            raise error

    def store(self, value):
        """Keep an object and tell the informers."""
        kind, key = value["kind"], types.key(value)
        before = self.objects.get((kind, key))
        metadata = value["metadata"]
        metadata.setdefault("uid", before["metadata"]["uid"] if before else f"uid-{next(self.versions)}")
        metadata["creationTimestamp"] = metadata.get("creationTimestamp") or stamp(self.cluster.now())
        if kind in KINDS:
            generation = before["metadata"]["generation"] if before else 0
            changed = not before or before.get("spec") != value.get("spec")
            metadata["generation"] = generation + changed
        metadata["resourceVersion"] = str(next(self.versions))
        self.objects[kind, key] = value
        self.tell(kind, copy.deepcopy(value))
        return copy.deepcopy(value)

    def tell(self, kind, value, event="MODIFIED"):
        for informer in self.cluster.informers():
            if informer.kind.kind == kind:
                informer.tell(informer.store.told(event, value))

    async def apply(self, value, *, manager="", force=True, status=False):
        kind, key = value["kind"], types.key(value)
        self.fail("status" if status else "apply", kind)
        before = copy.deepcopy(self.objects.get((kind, key)))
        if status:
            if before is None:
                raise Missing("gone", status=404)
            return self.store(self.with_status(before, value["status"], manager))
        made = copy.deepcopy(value)
        if before is not None:
            owned = self.owned.get((key, manager), set())
            data = {name: text for name, text in before.get("data", {}).items() if name not in owned}
            made["data"] = {**data, **made.get("data", {})}
            labels = {**before["metadata"].get("labels", {}), **made["metadata"].get("labels", {})}
            made["metadata"] = {**before["metadata"], **made["metadata"], "labels": labels}
        self.owned[key, manager] = set(value.get("data", {}))
        return self.store(made)

    def with_status(self, value, status, manager):
        """Put one manager's status in the place of what it wrote before, condition by condition."""
        fields = [one for one in value["metadata"].get("managedFields", []) if one["manager"] == manager]
        owned = fields[0]["fieldsV1"]["f:status"] if fields else {}
        gone = {json.loads(key[2:])["type"] for key in owned.get("f:conditions", {})}
        kept = {
            name: one
            for name, one in value.get("status", {}).items()
            if f"f:{name}" not in owned or name == "conditions"
        }
        named = {one["type"] for one in status.get("conditions", ())}
        others = [one for one in kept.pop("conditions", ()) if one["type"] not in gone | named]
        made = {**kept, **status, "conditions": [*others, *status.get("conditions", ())]}
        conditions = {"k:" + json.dumps({"type": name}): {} for name in named}
        mine = {f"f:{name}": {} for name in status if name != "conditions"} | {"f:conditions": conditions}
        entry = {"manager": manager, "operation": "Apply", "subresource": "status", "fieldsV1": {"f:status": mine}}
        rest = [one for one in value["metadata"].get("managedFields", []) if one["manager"] != manager]
        return {**value, "metadata": {**value["metadata"], "managedFields": [*rest, entry]}, "status": made}

    async def create(self, value, *, manager=""):
        self.fail("create", value["kind"])
        if (value["kind"], types.key(value)) in self.objects:
            raise Conflict("there", status=409)
        return self.store(copy.deepcopy(value))

    async def merge(self, kind, key, patch, *, subresource="", manager=""):
        self.fail("merge", kind.kind)
        return self.store(merged(copy.deepcopy(self.objects[kind.kind, key]), patch))

    async def delete(self, kind, key, *, uid="", propagation="Background"):
        self.fail("delete", kind.kind)
        found = self.objects.pop((kind.kind, key), None)
        if found is not None:
            self.tell(kind.kind, found, "DELETED")
        return found is not None

    async def get(self, kind, key):
        self.fail("get", kind.kind)
        return copy.deepcopy(self.objects[kind.kind, key])

    async def list(self, kind, *, namespace="", labels="", fields="", page=500):
        self.fail("list", kind.kind)
        wanted = dict(one.split("=") for one in labels.split(",") if one).items()
        return [
            copy.deepcopy(value)
            for (name, key), value in self.objects.items()
            if name == kind.kind
            and namespace in {"", key.namespace}
            and wanted <= value["metadata"].get("labels", {}).items()
        ], "1"

    async def read_log(self, key, *, container="", limit=1 << 20):
        self.fail("log", "Pod")
        return self.logs[key][:limit]


def merged(value, patch):
    for name, change in patch.items():
        if change is None:
            value.pop(name, None)
        elif isinstance(change, dict):
            value[name] = merged(value.get(name) or {}, change)
        else:
            value[name] = change
    return value


def stamp(moment):
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Routers:
    """What routers say, by sandbox; counts who is asked."""

    def __init__(self):
        self.said = {}
        self.asked = Counter()

    def say(self, sandbox, **digests):
        self.said[sandbox] = (tuple(Entry(kind, digest) for kind, digest in digests.items()),)

    async def ask(self, sandboxes, *, fresh=False):
        heard = {}
        for one in sandboxes:
            self.asked[one] += 1
            said = self.said.get(one)
            heard[one] = Heard(one, entries=said) if said else Heard(one, error="no pod is ready")
        return heard


class Artifacts:
    """Artifacts by digest; any other is refused with `reason`."""

    def __init__(self):
        self.there = {}
        self.reason = "NotFound"

    async def fetch(self, reference, media_type, signers):
        if reference.digest not in self.there:
            raise Refused(self.reason, "there is no such artifact")
        return self.there[reference.digest]


class Told:
    """Events, as they were told."""

    def __init__(self):
        self.events = []

    def tell(self, about, *, reason, action, note, **more):
        self.events.append((about["metadata"]["name"], reason, more.get("type", "Normal")))


class World:
    """A cluster in memory and the reconcilers that look at it."""

    def __init__(self, *reconcilers, **settings):
        self.api = Api()
        self.clock = BEGIN
        self.told = Told()
        given = {"namespace": HOME, "identity": "test", "platform": Platform()} | settings
        self.cluster = Cluster(
            self.api, Controller(**given), recorder=self.told, metrics=Metrics(), now=lambda: self.clock
        )
        self.api.cluster = self.cluster
        self.routers = self.cluster.echo = Routers()
        self.artifacts = self.cluster.given_artifacts = Artifacts()
        self.reconcilers = {one.kind.__name__: one for one in reconcilers}
        for one in reconcilers:
            if hasattr(one, "pace"):
                # Most tests look once and see what was told; time is the test's.
                one.pace.first, one.pace.clock = 0.0, self.seconds
        self.woken = set()
        self.cluster.listeners.append(self.heard)

    def heard(self, kind, key, status_only):
        for name, one in self.reconcilers.items():
            self.woken |= {(name, found) for found in one.touched(kind, key, self.cluster)}
            if name == kind and not status_only:
                self.woken.add((name, key))

    def put(self, kind, name, spec=None, *, namespace="team", labels=None, status=None, **members):
        """Make or change an object of ours, as a person does."""
        metadata = {"name": name, "namespace": namespace, "labels": labels or {}, **members.pop("metadata", {})}
        before = self.api.objects.get((kind, types.Key(namespace, name)))
        value = {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec or {}, **members}
        if before is not None:
            metadata["uid"] = before["metadata"]["uid"]
            metadata["creationTimestamp"] = before["metadata"]["creationTimestamp"]
            metadata["managedFields"] = before["metadata"].get("managedFields", [])
            value["status"] = before.get("status")
        if status is not None or value.get("status") is None:
            value["status"] = status or {}
        self.api.store(value)
        return types.Key(namespace, name)

    def sandbox(self, name, *, namespace="team", phase="Running", **spec):
        names = {"runtime": {"kind": "OpenClaw", "openclaw": {}}, "sandbox": {}, "inferenceRef": {"name": "models"}}
        return self.put("KarsSandbox", name, names | spec, namespace=namespace, status={"phase": phase})

    def child(self, kind, name, *, namespace, api="v1", **members):
        """Make an object that bears the controller's label."""
        metadata = {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "kars-controller"}}
        metadata["labels"] |= members.pop("labels", {})
        metadata |= members.pop("metadata", {})
        self.api.store({"apiVersion": api, "kind": kind, "metadata": metadata, **members})

    async def look(self, kind, key):
        """Look at a resource once, as the engine does."""
        resource = self.cluster.resource(KINDS[kind], key)
        assert resource is not None, self.cluster.known(KINDS[kind], key)
        return await self.reconcilers[kind].reconcile(resource, self.cluster)

    async def finish(self, kind, key):
        return await self.reconcilers[kind].finalize(self.cluster.resource(KINDS[kind], key), self.cluster)

    def status(self, kind, key):
        return self.api.objects[kind, key].get("status") or {}

    def ready(self, kind, key):
        return next(one for one in self.status(kind, key)["conditions"] if one["type"] == "Ready")

    def seconds(self):
        return (self.clock - BEGIN).total_seconds()

    def pass_time(self, **span):
        self.clock += timedelta(**span)
