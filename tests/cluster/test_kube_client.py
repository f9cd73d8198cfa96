"""The client on a real API server."""

import asyncio
import base64
import json
from pathlib import Path

import pytest

from kars.kube import account, types
from kars.kube import client as client_module
from kars.kube.client import Client
from kars.kube.errors import Busy, Conflict, Forbidden, Invalid, Missing
from kars.kube.types import CONFIG_MAP, DEPLOYMENT, NAMESPACE, POD, SECRET, Key

ME, OTHER = "kars-controller", "somebody-else"


def run(kubeconfig, use, **settings):
    async def main():
        async with await Client.connect(kubeconfig=str(kubeconfig), **settings) as client:
            await use(client)

    asyncio.run(main())


def config_map(namespace, name="c", **data):
    metadata = {"name": name, "namespace": namespace, "labels": {"app": "x"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def pod(namespace, name="p"):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "c", "image": "example.com/c"}]},
    }


def test_apply_creates_changes_and_takes_back_what_it_owned(plane, namespace):
    async def use(client):
        made = await client.apply(config_map(namespace, a="1", b="2"), manager=ME)
        again = await client.apply(config_map(namespace, a="1", b="2"), manager=ME)
        assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        less = await client.apply(config_map(namespace, a="3"), manager=ME)
        assert less["data"] == {"a": "3"}
        assert types.of(less) == CONFIG_MAP

    run(plane.admin, use)


def test_two_managers_conflict_until_one_insists(plane, namespace):
    async def use(client):
        await client.apply(config_map(namespace, a="1"), manager=ME)
        with pytest.raises(Conflict, match=ME) as caught:
            await client.apply(config_map(namespace, a="2"), manager=OTHER, force=False)
        assert caught.value.status == 409
        assert (await client.apply(config_map(namespace, a="2"), manager=OTHER))["data"] == {"a": "2"}

    run(plane.admin, use)


def test_a_dry_run_changes_nothing(plane, namespace):
    async def use(client):
        assert (await client.apply(config_map(namespace, a="1"), dry=True))["data"] == {"a": "1"}
        with pytest.raises(Missing):
            await client.get(CONFIG_MAP, Key(namespace, "c"))

    run(plane.admin, use)


def test_status_is_applied_and_merged_beside_the_spec(plane, namespace):
    async def use(client):
        await client.create(pod(namespace))
        status = {"phase": "Failed", "reason": "Because"}
        bare = {key: value for key, value in pod(namespace).items() if key != "spec"}
        assert (await client.apply({**bare, "status": status}, status=True))["status"]["reason"] == "Because"
        patch = {"status": {"reason": None}}
        merged = await client.merge(POD, Key(namespace, "p"), patch, subresource="status")
        assert "reason" not in merged["status"]

    run(plane.admin, use)


def test_merge_is_conditional_on_the_version_it_names(plane, namespace):
    async def use(client):
        made = await client.create(config_map(namespace, a="1", b="2"))
        old = made["metadata"]["resourceVersion"]
        key = types.key(made)
        changed = await client.merge(CONFIG_MAP, key, {"metadata": {"resourceVersion": old}, "data": {"a": None}})
        assert changed["data"] == {"b": "2"}
        with pytest.raises(Conflict):
            await client.merge(CONFIG_MAP, key, {"metadata": {"resourceVersion": old}, "data": {"b": "3"}})
        with pytest.raises(Conflict):
            await client.replace(made)
        with pytest.raises(Conflict):
            await client.create(config_map(namespace))
        assert (await client.replace({**changed, "data": {"c": "1"}}))["data"] == {"c": "1"}

    run(plane.admin, use)


def test_delete_takes_the_very_object_only(plane, namespace):
    async def use(client):
        made = await client.create(config_map(namespace))
        with pytest.raises(Conflict):
            await client.delete(CONFIG_MAP, types.key(made), uid="00000000-0000-0000-0000-000000000000")
        assert await client.delete(CONFIG_MAP, types.key(made), uid=made["metadata"]["uid"])
        assert not await client.delete(CONFIG_MAP, types.key(made))

    run(plane.admin, use)


def test_refusals_say_why(plane, namespace):
    async def use(client):
        with pytest.raises(Missing):
            await client.apply(config_map("no-such-namespace"))
        with pytest.raises(Invalid, match="UPPER"):
            await client.create(config_map(namespace, "UPPER"))
        with pytest.raises(Invalid):
            await client.create({**config_map(namespace), "data": 1})
        with pytest.raises(Invalid, match=r"spec\.selector"):
            await client.apply(
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {"name": "d", "namespace": namespace},
                    "spec": {},
                }
            )
        with pytest.raises(Missing):
            await client.read_log(Key(namespace, "none"))

    run(plane.admin, use)


def test_an_account_without_rights_is_forbidden(plane, namespace):
    async def use(client):
        with pytest.raises(Forbidden, match="jane") as caught:
            await client.list(SECRET, namespace=namespace)
        assert caught.value.status == 403

    run(plane.kubeconfig("jane"), use)


def test_a_list_in_pages_is_of_one_version_and_objects_say_what_they_are(plane, namespace):
    async def use(client):
        await asyncio.gather(*(client.apply(config_map(namespace, f"c{number}")) for number in range(11)))
        objects, version = await client.list(CONFIG_MAP, namespace=namespace, labels="app=x", page=3)
        assert sorted(types.key(one).name for one in objects) == sorted(f"c{number}" for number in range(11))
        assert {(one["apiVersion"], one["kind"]) for one in objects} == {("v1", "ConfigMap")}
        assert int(version) > 0
        assert client.requests["GET", "configmaps", 200] == 4
        some, _ = await client.list(CONFIG_MAP, namespace=namespace, fields="metadata.name=c3")
        assert len(some) == 1
        assert (await client.list(DEPLOYMENT, namespace=namespace))[0] == []
        assert (await client.get(NAMESPACE, Key("", namespace)))["kind"] == "Namespace"

    run(plane.admin, use)


def test_a_watch_tells_what_happens_and_ends_in_time(plane, namespace):
    async def use(client):
        _, version = await client.list(CONFIG_MAP, namespace=namespace)
        made = await client.create(config_map(namespace, a="1"))
        await client.merge(CONFIG_MAP, types.key(made), {"data": {"a": "2"}})
        await client.delete(CONFIG_MAP, types.key(made))
        found = []
        async with asyncio.timeout(20):
            async for event, value in client.watch(
                CONFIG_MAP, version=version, namespace=namespace, labels="app=x", seconds=3
            ):
                found.append((event, value["metadata"]["resourceVersion"]))
        assert [event for event, _ in found if event != "BOOKMARK"] == ["ADDED", "MODIFIED", "DELETED"]
        versions = [int(version) for _, version in found]
        assert versions == sorted(versions)

    run(plane.admin, use)


def test_another_authority_is_not_trusted_and_gets_no_token(plane, tmp_path):
    from tests.cluster.authority import Authority

    content = json.loads(Path(plane.admin).read_text())
    stranger = base64.b64encode(Authority().pem).decode()
    content["clusters"][0]["cluster"]["certificate-authority-data"] = stranger
    path = tmp_path / "stranger"
    path.write_text(json.dumps(content))

    async def use(client):
        with pytest.raises(Busy, match="no TLS connection") as caught:
            await client.version()
        assert plane.token not in str(caught.value)

    run(path, use)


def test_says_the_version(plane):
    async def use(client):
        assert await client.version() >= (1, 36)

    run(plane.admin, use)


def test_a_pods_account_goes_on_with_the_token_that_replaces_a_revoked_one(plane, namespace, tmp_path, monkeypatch):
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    authority.write_bytes(plane.authority.pem)
    token.write_text("revoked")
    host, _, port = plane.url.removeprefix("https://").partition(":")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(account.incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(account.incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    good = plane.service_account_token(namespace, "default")

    async def use(client):
        with pytest.raises(Forbidden) as caught:
            await client.get(CONFIG_MAP, Key(namespace, "c"))
        assert caught.value.status == 401
        client.transport.reloaded = -100.0
        token.write_text(good)
        with pytest.raises(Forbidden, match=f"system:serviceaccount:{namespace}:default") as caught:
            await client.get(CONFIG_MAP, Key(namespace, "c"))
        assert caught.value.status == 403

    run("", use)


def test_a_server_that_hangs_costs_no_more_than_the_deadline(make_plane, monkeypatch):
    monkeypatch.setattr(client_module, "SILENCE", 1.0)
    own = make_plane()

    async def use(client):
        _, version = await client.list(CONFIG_MAP)
        await asyncio.to_thread(own.pause_api)
        try:
            with pytest.raises(Busy, match="in time"):
                await client.get(CONFIG_MAP, Key("default", "c"))
        finally:
            own.resume_api()
        await client.version()

        async def follow():
            async for _ in client.watch(CONFIG_MAP, version=version):
                pass

        watching = asyncio.create_task(follow())
        await asyncio.sleep(0.3)
        own.pause_api()
        try:
            async with asyncio.timeout(5):
                await watching
        finally:
            own.resume_api()

    run(own.admin, use, timeout=1.0)
