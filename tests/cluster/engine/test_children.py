"""Objects of sandboxes on a real API server: whose namespace it is, what cannot be changed, what is never shown."""

import asyncio
import base64
import hashlib

import pytest

from kars.controller.children import NotOurs
from kars.controller.reconcile import Done
from kars.desired.plan import stamp
from kars.kube.types import DEPLOYMENT, NAMESPACE, SECRET, Key
from kars.model.sandbox import KarsSandbox
from tests.cluster.controlling import Running

SANDBOXES = "/apis/kars.azure.com/v1alpha1/namespaces/{}/karssandboxes"
MANAGER = "kars-controller/karssandbox"


def labels(name, namespace):
    return {
        "app.kubernetes.io/managed-by": "kars-controller",
        "kars.azure.com/sandbox": name,
        "kars.azure.com/parent-namespace": namespace,
    }


class Boxes:
    """Makes a namespace, a Secret and a Deployment of a KarsSandbox; its annotation `replicas` says how many pods."""

    kind = KarsSandbox
    finalizer = "kars.azure.com/namespace-cleanup"

    def __init__(self):
        self.selector = "x"
        self.failures = []

    def wanted(self, name, namespace, token=b"t0ken"):
        box, bears = f"kars-{name}", labels(name, namespace)
        pod = {"containers": [{"name": "agent", "image": "example/agent:1", "resources": {"limits": {"cpu": "1000m"}}}]}
        select = {"app": self.selector}
        data = {"token": base64.b64encode(token).decode()}
        return [
            stamp(one)
            for one in (
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": box, "labels": bears}},
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": "made-for-it", "namespace": box, "labels": bears},
                    "type": "Opaque",
                    "data": data,
                },
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {"name": name, "namespace": box, "labels": bears},
                    "spec": {
                        "replicas": 0,
                        "selector": {"matchLabels": select},
                        "template": {"metadata": {"labels": select}, "spec": pod},
                    },
                },
            )
        ]

    async def reconcile(self, resource, cluster):
        metadata = resource.metadata
        try:
            await cluster.children.bring(self.wanted(metadata.name, metadata.namespace), manager=MANAGER)
        except Exception as error:
            self.failures.append(error)
            raise
        now = cluster.now().isoformat().replace("+00:00", "Z")
        ready = {"type": "Ready", "status": "True", "reason": "Reconciled", "message": "", "lastTransitionTime": now}
        await cluster.write_status(resource, {"conditions": [ready], "observedGeneration": metadata.generation})
        return Done()

    async def finalize(self, resource, cluster):
        key = Key(resource.metadata.namespace, resource.metadata.name)
        return not (cluster.owns(key) and await cluster.children.remove(NAMESPACE, Key("", f"kars-{key.name}")))

    def touched(self, kind, key, cluster):
        return cluster.sandboxes_of(key.namespace or key.name)


class World:
    def __init__(self, plane, namespace):
        self.plane, self.api, self.namespace = plane, plane.api, namespace
        self.name = f"b{namespace.removeprefix('t-')}"
        self.box = f"kars-{self.name}"
        self.path = f"{SANDBOXES.format(namespace)}/{self.name}"
        self.deployment = f"/apis/apps/v1/namespaces/{self.box}/deployments/{self.name}"

    def create(self):
        spec = {
            "runtime": {"kind": "OpenClaw", "openclaw": {}},
            "sandbox": {"isolation": "standard"},
            "inferenceRef": {"name": "p"},
        }
        document = {"apiVersion": "kars.azure.com/v1alpha1", "kind": "KarsSandbox", "metadata": {"name": self.name}}
        self.api.create(SANDBOXES.format(self.namespace), {**document, "spec": spec})

    def condition(self, kind):
        conditions = (self.api.get(self.path).get("status") or {}).get("conditions", ())
        return next((one for one in conditions if one["type"] == kind), None)

    def ready(self, value="True"):
        self.plane.wait(lambda: (self.condition("Ready") or {}).get("status") == value, what=f"Ready={value}")

    def clear(self):
        if self.api.find(self.path) is not None:
            self.api.delete(self.path)
            if self.api.find(self.path) is not None:
                self.api.merge(self.path, {"metadata": {"finalizers": []}})
        if self.api.find(f"/api/v1/namespaces/{self.box}"):
            self.api.delete(f"/api/v1/namespaces/{self.box}")


@pytest.fixture
def boxes():
    return Boxes()


@pytest.fixture
def running(kars_plane, boxes):
    with Running(kars_plane, [boxes]) as made:
        yield made


@pytest.fixture
def world(kars_plane, namespace):
    made = World(kars_plane, namespace)
    yield made
    made.clear()


def test_a_sandbox_takes_one_request_an_object(running, world):
    world.create()
    world.ready()
    wanted = {
        ("PATCH", "karssandboxes"): 2,
        ("POST", "namespaces"): 1,
        ("PATCH", "secrets"): 1,
        ("PATCH", "deployments"): 1,
    }
    # A status can be read before its writer has counted the answer.
    world.plane.wait(lambda: sum(running.requests().values()) >= sum(wanted.values()), what="the answers")
    assert running.requests() == wanted


def test_a_namespace_of_somebody_else_is_neither_taken_over_nor_deleted(running, world, boxes):
    world.plane.make_namespace(world.box, {"team": "other"})
    world.create()
    world.ready("False")
    degraded = world.condition("Degraded")
    assert degraded["reason"] == "NotOurs"
    assert "kars.azure.com/parent-namespace" in degraded["message"]
    assert any(isinstance(one, NotOurs) for one in boxes.failures)
    found = world.api.get(f"/api/v1/namespaces/{world.box}")["metadata"]["labels"]
    assert found.pop("kubernetes.io/metadata.name")
    assert found == {"team": "other"}
    world.api.delete(world.path)
    world.plane.wait(lambda: world.api.find(world.path) is None)
    assert world.api.get(f"/api/v1/namespaces/{world.box}")["status"]["phase"] == "Active"


def test_a_namespace_that_is_handed_over_is_taken(running, world):
    world.plane.make_namespace(world.box, {"kars.azure.com/sandbox": world.name})
    world.create()
    world.ready("False")
    handed = {"metadata": {"labels": {"kars.azure.com/parent-namespace": world.namespace}}}
    world.api.merge(f"/api/v1/namespaces/{world.box}", handed)
    running.look("KarsSandbox", world.namespace, world.name)
    world.ready()
    assert world.condition("Degraded") is None


def test_the_second_sandbox_of_a_name_gets_nothing_of_the_first(running, world):
    world.create()
    world.ready()
    other = World(world.plane, world.plane.make_namespace())
    other.name, other.box = world.name, world.box
    other.path = f"{SANDBOXES.format(other.namespace)}/{other.name}"
    try:
        other.create()
        other.ready("False")
        assert other.condition("Degraded")["reason"] == "NotOurs"
        assert not running.cluster.owns(Key(other.namespace, other.name))
        assert running.cluster.owns(Key(world.namespace, world.name))
        other.api.delete(other.path)
        world.plane.wait(lambda: world.api.find(other.path) is None)
        assert world.api.get(f"/api/v1/namespaces/{world.box}")["status"]["phase"] == "Active"
    finally:
        world.api.delete(f"/api/v1/namespaces/{other.namespace}")


def test_deleting_waits_for_the_namespace_and_the_name_can_be_used_again_at_once(running, world):
    world.create()
    world.ready()
    world.api.delete(world.path)
    world.plane.wait(lambda: world.api.find(world.path) is None)
    assert world.api.find(f"/api/v1/namespaces/{world.box}") is None
    world.create()
    world.ready()


def test_a_namespace_that_goes_under_us_is_waited_for_and_made_again(running, world):
    world.create()
    world.ready()
    before = world.api.get(f"/api/v1/namespaces/{world.box}")["metadata"]["uid"]
    world.api.delete(f"/api/v1/namespaces/{world.box}")

    def again():
        found = world.api.find(world.deployment)
        return found and world.api.get(f"/api/v1/namespaces/{world.box}")["metadata"]["uid"] != before

    world.plane.wait(again)
    assert world.condition("Degraded") is None


def test_a_field_that_cannot_be_changed_is_said_and_nothing_is_deleted_for_it(running, world, boxes):
    world.create()
    world.ready()
    uid = world.api.get(world.deployment)["metadata"]["uid"]
    boxes.selector = "y"
    running.look("KarsSandbox", world.namespace, world.name)
    world.ready("False")
    degraded = world.condition("Degraded")
    assert degraded["reason"] == "ImmutableField"
    assert f"Deployment {world.box}/{world.name}" in degraded["message"]
    assert world.api.get(world.deployment)["metadata"]["uid"] == uid


def test_a_secret_is_held_as_digests_and_read_once_for_as_long_as_it_stays(running, world):
    world.create()
    world.ready()
    key = Key(world.box, "made-for-it")
    found = running.cluster.children.find(SECRET, key)
    assert found["digests"] == {"token": hashlib.sha256(b"t0ken").hexdigest()}
    assert "data" not in found

    def reads():
        return sum(
            count for (verb, kind, _), count in running.client.requests.items() if (verb, kind) == ("GET", "secrets")
        )

    before = reads()
    for _ in range(3):
        secret = running.call(running.cluster.read_secret(key))
        assert base64.b64decode(secret["data"]["token"]) == b"t0ken"
    assert reads() == before + 1
    foreign = running.call(running.cluster.read_secret(Key(world.namespace, "no-such")))
    assert foreign is None


def test_a_secret_that_was_edited_is_written_anew_and_read_anew(running, world):
    world.create()
    world.ready()
    key = Key(world.box, "made-for-it")
    running.call(running.cluster.read_secret(key))
    path = f"/api/v1/namespaces/{world.box}/secrets/made-for-it"
    world.api.merge(path, {"data": {"token": base64.b64encode(b"forged").decode()}})
    world.plane.wait(lambda: base64.b64decode(world.api.get(path)["data"]["token"]) == b"t0ken")
    world.plane.wait(
        lambda: running.call(running.cluster.read_secret(key))["data"]["token"] == base64.b64encode(b"t0ken").decode()
    )


def test_what_admission_changes_is_not_applied_over_and_over(running, world, boxes, monkeypatch):
    wanted = boxes.wanted

    def with_a_field_that_is_dropped(name, namespace):
        made = wanted(name, namespace)
        made[2]["spec"]["strategy"] = {"type": "Recreate", "rollingUpdate": None}
        made[2]["spec"]["paused"] = False  # left out by the API server
        return [*made[:2], stamp(made[2])]

    monkeypatch.setattr(boxes, "wanted", with_a_field_that_is_dropped)
    world.create()
    world.ready()
    running.call(asyncio.sleep(1))  # the deployment's controller adds its revision
    before = running.requests()
    for number in range(5):
        running.look("KarsSandbox", world.namespace, world.name)
        status = {"status": {"observedGeneration": number}}
        world.api.merge(f"{world.deployment}/status", status)
    running.call(asyncio.sleep(1))
    assert running.requests() == before


def test_removing_leaves_alone_what_bears_no_label_of_ours(running, world):
    world.create()
    world.ready()
    path = f"/apis/apps/v1/namespaces/{world.box}/deployments"
    deployment = world.api.get(world.deployment)
    mine = {"name": "mine"}
    world.api.create(
        path, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": mine, "spec": deployment["spec"]}
    )
    remove = running.cluster.children.remove
    assert running.call(remove(DEPLOYMENT, Key(world.box, "mine"))) is False
    assert world.api.get(f"{path}/mine")
    assert running.call(remove(DEPLOYMENT, Key(world.box, "none"))) is False
