"""Informers on a real API server that is restarted, stopped, and reached through connections that break."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest

from kars.kube import client as client_module
from kars.kube import informer as informer_module
from kars.kube import types
from kars.kube.client import Client
from kars.kube.errors import ApiError, Gone
from kars.kube.informer import Informer
from kars.kube.types import CONFIG_MAP, Key

LABELS = "watched=yes"


def config_map(namespace, name, **data):
    metadata = {"name": name, "namespace": namespace, "labels": {"watched": "yes"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


class Followed:
    """An informer, and what its listener was told."""

    def __init__(self, client, namespace):
        self.mirror = {}
        self.informer = Informer(
            client,
            CONFIG_MAP,
            keep=lambda value: value["metadata"]["resourceVersion"],
            changed=self.changed,
            namespace=namespace,
            labels=LABELS,
        )

    def changed(self, key, before, after):
        assert self.mirror.get(key) == before
        assert before != after
        self.mirror[key] = after
        if after is None:
            del self.mirror[key]

    async def equals(self, server, namespace, seconds=10.0):
        """Wait until it holds what the server has, asked directly."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    objects, _ = await server.list(CONFIG_MAP, namespace=namespace, labels=LABELS)
                except ApiError:
                    objects = None
                if objects is not None:
                    there = {types.key(one): one["metadata"]["resourceVersion"] for one in objects}
                    if dict(self.informer.items()) == there:
                        break
                await asyncio.sleep(0.1)
        assert self.mirror == there
        assert self.informer.faults == 0
        return there


def run(use, *kubeconfigs):
    """Run `use` with a client per kubeconfig."""

    async def main():
        clients = [await Client.connect(kubeconfig=str(path), timeout=5.0) for path in kubeconfigs]
        try:
            await use(*clients)
        finally:
            for client in clients:
                await client.close()

    asyncio.run(main())


@asynccontextmanager
async def following(followed):
    """Run an informer beside a block."""
    task = asyncio.create_task(followed.informer.run())
    try:
        async with asyncio.timeout(10):
            await followed.informer.synced.wait()
        yield followed
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def change(client, namespace, chance, informer):
    """One random write; half of the answers are put into the informer."""
    name = f"c{chance.randrange(30)}"
    try:
        match chance.randrange(4):
            case 0:
                await client.delete(CONFIG_MAP, Key(namespace, name))
                return
            case 1:
                answer = await client.merge(CONFIG_MAP, Key(namespace, name), {"data": {"m": str(chance.random())}})
            case 2:
                labels = {"metadata": {"labels": {"watched": chance.choice(["yes", "no"])}}}
                answer = await client.merge(CONFIG_MAP, Key(namespace, name), labels)
            case _:
                answer = await client.apply(config_map(namespace, name, a=str(chance.random())))
    except ApiError:
        return
    if chance.random() < 0.5:
        informer.put(answer)


@pytest.mark.timeout(120)
def test_a_thousand_changes_and_two_restarts_later_it_holds_what_the_server_has(make_plane):
    own = make_plane()
    chance = random.Random(5)

    async def use(client, other):
        async with following(Followed(client, "default")) as followed:
            left = iter(range(1000))

            async def write():
                for _ in left:
                    await change(other, "default", chance, followed.informer)

            async def disturb():
                for stop in (own.kill_api, own.server.stop):
                    await asyncio.sleep(1.0)
                    await asyncio.to_thread(stop)
                    await asyncio.sleep(0.5)
                    await asyncio.to_thread(own.start_api)

            await asyncio.gather(disturb(), *(write() for _ in range(8)))
            assert await followed.equals(other, "default")
            assert followed.informer.failures

    run(use, own.admin, own.admin)


@pytest.mark.timeout(120)
def test_what_changed_while_the_server_was_down_or_unwatched_is_told(make_plane):
    own = make_plane()

    async def use(client, other):
        for name in "abc":
            await other.apply(config_map("default", name))
        async with following(Followed(client, "default")) as followed:
            assert len(followed.informer) == 3
            # What a kill leaves unseen: the watch is dead, and the server is back with other objects before we are.
            await asyncio.to_thread(own.kill_api)
            await asyncio.to_thread(own.start_api)
            await other.delete(CONFIG_MAP, Key("default", "a"))
            await other.apply(config_map("default", "d"))
            there = await followed.equals(other, "default")
            assert {key.name for key in there} == {"b", "c", "d"}
        with pytest.raises(Gone):
            async for _ in client.watch(CONFIG_MAP, version="2", seconds=3):
                pass

    run(use, own.admin, own.admin)


def test_a_server_that_hangs_is_left_and_found_again(make_plane, monkeypatch):
    monkeypatch.setattr(client_module, "SILENCE", 1.0)
    own = make_plane()

    async def use(client, other):
        async with following(Followed(client, "default")) as followed:
            await other.apply(config_map("default", "a"))
            own.pause_api()
            try:
                await asyncio.sleep(3.0)
                seen = followed.informer.seen
                await asyncio.sleep(1.0)
                assert followed.informer.seen == seen
            finally:
                own.resume_api()
            await other.apply(config_map("default", "b"))
            await followed.equals(other, "default")

    run(use, own.admin, own.admin)


class Flaky:
    """A way to the API server whose connections can all be cut at once."""

    def __init__(self, port):
        self.port = port
        self.open = set()
        self.relays = set()

    async def relay(self, reader, writer):
        task = asyncio.current_task()
        self.relays.add(task)
        task.add_done_callback(self.relays.discard)
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        self.open |= {writer, back}

        async def pump(source, sink):
            try:
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pump(reader, back), pump(there, writer))
        self.open -= {writer, back}

    def cut(self):
        for writer in self.open:
            writer.transport.abort()

    async def end(self):
        while self.relays:
            self.cut()
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.02)


@pytest.mark.timeout(120)
def test_a_hundred_cut_connections_later_it_holds_what_the_server_has_within_ten_seconds(plane, namespace):
    chance = random.Random(7)

    async def main():
        flaky = Flaky(plane.ports[2])
        door = await asyncio.start_server(flaky.relay, "127.0.0.1", 0)
        path = plane.kubeconfig(
            "flaky", ["system:masters"], server=f"https://127.0.0.1:{door.sockets[0].getsockname()[1]}"
        )
        async with (
            await Client.connect(kubeconfig=str(path)) as client,
            await Client.connect(kubeconfig=str(plane.admin)) as other,
            following(Followed(client, namespace)) as followed,
        ):
            for _ in range(100):
                await change(other, namespace, chance, followed.informer)
                await asyncio.sleep(0.05)
                flaky.cut()
            await followed.equals(other, namespace, seconds=10.0)
            assert followed.informer.reconnects > 5
            assert followed.informer.relists < 5
        door.close()
        await flaky.end()

    asyncio.run(main())


def test_a_quiet_watch_is_kept_for_its_time_and_costs_nothing(plane, namespace):
    async def use(client):
        async with following(Followed(client, namespace)) as followed:
            asked = sum(client.requests.values())
            await asyncio.sleep(3.0)
            assert sum(client.requests.values()) - asked <= 1
            assert (followed.informer.relists, followed.informer.failures) == (1, 0)

    run(use, plane.admin)


def test_a_kind_that_is_not_served_yet_is_found_when_it_is(plane, monkeypatch):
    monkeypatch.setattr(informer_module, "LONGEST_PAUSE", 0.5)
    from kars.kube.types import DEFINITION, Type

    group = "watched.example.com"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "Thing", "plural": "things", "singular": "thing", "listKind": "ThingList"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object"}},
                }
            ],
        },
    }

    async def use(client):
        informer = Informer(client, Type(f"{group}/v1", "Thing", "things"), keep=lambda value: 1)
        task = asyncio.create_task(informer.run())
        await asyncio.sleep(0.5)
        assert informer.failures
        await client.apply(definition)
        async with asyncio.timeout(10):
            await informer.synced.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.delete(DEFINITION, Key("", f"things.{group}"))

    run(use, plane.admin)
