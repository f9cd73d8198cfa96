"""A controller with reconcilers of the test's own, run in this process against a control plane."""

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import requests

from kars.controller.process import Process
from kars.controller.queue import Item
from kars.controller.reconcile import Done
from kars.desired import conditions
from kars.desired.plan import stamp
from kars.kube.client import Client
from kars.kube.types import CONFIG_MAP, Key
from kars.model.base import API_VERSION
from kars.model.common import Condition
from kars.model.inference import InferencePolicy
from kars.model.kinds import KINDS
from kars.settings.controller import Controller, Platform
from tests.cluster.background import Background
from tests.cluster.plane import ControlPlane

DEFINITIONS = Path(__file__).parents[2] / "charts" / "kars-crds"
NUMBERS = itertools.count()


def define(plane: ControlPlane) -> str:
    """Install the definitions by their chart and wait until they are served; what helm said."""
    said = plane.helm("install", "kars-crds", str(DEFINITIONS), "--namespace", "default")
    for kind in KINDS.values():
        path = f"/apis/{API_VERSION}/{kind.NAMES.plural}"
        plane.wait(lambda path=path: plane.api.get(path), what=f"{kind.NAMES.plural} are served")
    return said.stdout + said.stderr


def settings(**changes) -> Controller:
    given = {"namespace": "default", "metrics_address": "127.0.0.1:0", "identity": f"test-{next(NUMBERS)}"}
    given |= {"platform": Platform(), "leader_election": False} | changes
    return Controller(**given)


class Running:
    """A controller; use it as a context."""

    def __init__(self, plane: ControlPlane, reconcilers: Sequence[object], **changes) -> None:
        self.plane = plane
        self.reconcilers = reconcilers
        self.settings = settings(**changes)
        self.background = Background()

    def __enter__(self):
        self.stop = self.call(self.event())
        self.client = self.call(Client.connect(kubeconfig=str(self.plane.admin)))
        self.process = self.call(self.make())
        self.task = self.background.start(self.process.run(self.stop))
        self.plane.wait(self.synced, what="the informers")
        return self

    def halt(self):
        """Ask it to end, and wait for that; its exit status is in `status`."""
        self.background.loop.call_soon_threadsafe(self.stop.set)
        self.status = self.task.result(30)

    def __exit__(self, *_):
        self.halt()
        self.call(self.client.close())
        self.call(asyncio.sleep(0.1))  # TLS takes its leave in the loop's next turns
        self.background.stop()

    def call(self, coroutine):
        return self.background.start(coroutine).result(30)

    async def event(self):
        return asyncio.Event()

    async def make(self):
        return Process(self.client, self.settings, self.reconcilers)

    def synced(self):
        return all(one.synced.is_set() for one in self.process.cluster.informers())

    def look(self, kind, namespace, name):
        """Have one resource looked at now."""
        item = Item(kind, Key(namespace, name))
        self.background.loop.call_soon_threadsafe(self.process.engine.queue.add, item)

    def scrape(self):
        return self.process.metrics.render().decode()

    def fetch(self, path):
        found = requests.get(f"http://127.0.0.1:{self.process.health.port}{path}", timeout=5)
        return found.status_code, found.text

    @property
    def cluster(self):
        return self.process.cluster

    def requests(self):
        """How many requests were made but for lists and watches; by verb and plural."""
        found = {}
        for (verb, kind, _), count in self.client.requests.items():
            if verb not in {"WATCH", "GET"}:
                found[verb, kind] = found.get((verb, kind), 0) + count
        return found


class Toy:
    """Makes one ConfigMap of an InferencePolicy, and says so."""

    kind = InferencePolicy
    finalizer = "kars.azure.com/inferencepolicy-cleanup"

    def __init__(self):
        self.calls = []
        self.errors = []
        self.hold = False
        self.hang = False

    def wanted(self, resource):
        metadata = {"name": f"toy-{resource.metadata.name}", "namespace": resource.metadata.namespace}
        metadata["labels"] = {"app.kubernetes.io/managed-by": "kars-controller"}
        text = str(resource.spec.model_preference)
        return stamp({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"text": text}})

    async def reconcile(self, resource, cluster):
        self.calls.append(resource.metadata.name)
        if self.hang:
            await asyncio.sleep(3600)
        if self.errors:
            raise self.errors.pop(0)
        await cluster.children.bring([self.wanted(resource)], manager="kars-controller/inferencepolicy")
        await cluster.write_status(resource, self.status(resource, cluster))
        return Done()

    def status(self, resource, cluster):
        before = resource.status.conditions if resource.status else ()
        now = cluster.now()
        ready = Condition(type="Ready", status="True", reason="Reconciled", message="", last_transition_time=now)
        made = conditions.merge(before, [ready], generation=resource.metadata.generation, now=now)
        return {"phase": "Ready", "conditions": made, "observedGeneration": resource.metadata.generation}

    async def finalize(self, resource, cluster):
        if self.hold:
            return False
        metadata = resource.metadata
        await cluster.children.remove(CONFIG_MAP, Key(metadata.namespace, f"toy-{metadata.name}"))
        return True

    def touched(self, kind, key, cluster):
        if kind == "ConfigMap" and key.name.startswith("toy-"):
            return [Key(key.namespace, key.name.removeprefix("toy-"))]
        return []


def policy(name, namespace, deployment="gpt-5"):
    return {
        "apiVersion": "kars.azure.com/v1alpha1",
        "kind": "InferencePolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "appliesTo": {"sandboxName": "s"},
            "modelPreference": {"primary": {"provider": "azure-openai", "deployment": deployment}},
        },
    }
