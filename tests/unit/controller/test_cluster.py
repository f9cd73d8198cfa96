"""What the cluster knows without asking: tokens as the watch brings them, who spawned whom, what a namespace holds."""

import asyncio
import base64

import pytest

from kars.controller.sandboxes import Sandboxes
from kars.kube import types
from kars.kube.types import Key
from kars.model.sandbox import KarsSandbox
from tests.unit.controller_policies.memory import World


@pytest.fixture
def world():
    return World(Sandboxes())


def secret(world, name, text, namespace="kars-s"):
    data = {"token": base64.b64encode(text.encode()).decode()}
    world.child("Secret", name, namespace=namespace, type="Opaque", data=data)
    return Key(namespace, name)


def test_the_token_of_a_router_is_known_without_a_request_and_any_other_secret_is_read_once(world):
    async def test():
        token, other = secret(world, "router-admin-token", "one"), secret(world, "mcp-m-signing", "two")
        for _ in range(2):
            assert (await world.cluster.read_secret(token))["data"]["token"] == base64.b64encode(b"one").decode()
            found = await world.cluster.read_secret(other)
            assert (found["kind"], found["metadata"]["name"]) == ("Secret", "mcp-m-signing")
        assert world.api.requests["get", "Secret"] == 1
        secret(world, "router-admin-token", "three")
        assert (await world.cluster.read_secret(token))["data"]["token"] == base64.b64encode(b"three").decode()
        assert world.api.requests["get", "Secret"] == 1
        await world.api.delete(types.SECRET, token)
        assert await world.cluster.read_secret(token) is None

    asyncio.run(test())


def test_no_secret_is_kept_where_objects_are_kept(world):
    key = secret(world, "router-admin-token", "s3cret-words")
    held = world.cluster.children.find(types.SECRET, key)
    assert "data" not in held
    assert base64.b64encode(b"s3cret-words").decode() not in str(held)


def test_who_spawned_whom_follows_labels_and_ends(world):
    def children(name="parent"):
        return [one.metadata.name for one in world.cluster.spawned_by(Key("team", name))]

    spec = {"runtime": {"kind": "OpenClaw", "openclaw": {}}, "sandbox": {}, "inferenceRef": {"name": "models"}}
    for name in ("b", "a"):
        world.put("KarsSandbox", name, spec, labels={"kars.azure.com/parent": "parent"})
    world.put("KarsSandbox", "stranger", spec, namespace="other", labels={"kars.azure.com/parent": "parent"})
    assert children() == ["a", "b"]
    world.put("KarsSandbox", "a", spec, labels={"kars.azure.com/parent": "another"})
    assert (children(), children("another")) == (["b"], ["a"])
    asyncio.run(
        world.api.delete(types.Type("kars.azure.com/v1alpha1", "KarsSandbox", "karssandboxes"), Key("team", "b"))
    )
    assert children() == []
    assert world.cluster.sandboxes_spawned.keys() == {Key("team", "another"), Key("other", "parent")}


def test_what_a_namespace_holds_is_known_by_kind(world):
    def names(namespace):
        return [key.name for key in world.cluster.children.keys(types.CONFIG_MAP, namespace=namespace)]

    world.child("ConfigMap", "early", namespace="kars-s")
    assert names("kars-s") == ["early"]
    world.child("ConfigMap", "late", namespace="kars-s")
    world.child("ConfigMap", "late", namespace="kars-t")
    world.child("ConfigMap", "late", namespace="kars-s", labels={"more": "said"})
    assert (names("kars-s"), names("kars-t"), names("kars-u")) == (["early", "late"], ["late"], [])
    asyncio.run(world.api.delete(types.CONFIG_MAP, Key("kars-s", "early")))
    assert names("kars-s") == ["late"]


def test_a_deployment_whose_status_is_about_an_older_template_has_no_pod_of_the_newest(world):
    async def test():
        spec = {"runtime": {"kind": "OpenClaw", "openclaw": {}}, "sandbox": {}, "inferenceRef": {"name": "models"}}
        key = world.put("KarsSandbox", "s", spec)
        reconciler, sandbox = world.reconcilers["KarsSandbox"], world.cluster.resource(KarsSandbox, key)
        for observed, updated in ((1, 0), (2, 1)):
            said = {"observedGeneration": observed, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}
            world.child("Deployment", "s", namespace="kars-s", api="apps/v1", metadata={"generation": 2}, status=said)
            assert (await reconciler.standing(sandbox, world.cluster, ())).updated == updated

    asyncio.run(test())
