"""The process kubelet: a node whose pods' routers are real processes, each at an address of its own in 127.0.0.0/8.

Of the kubelet it has what a router and its controller can tell apart: volumes that follow their sources in one
rename, environments, probes, restarts, grace periods and the pod's status. Other containers are only said to run.
"""

import asyncio
import random
import socket
from collections.abc import Callable
from pathlib import Path

from tests.cluster.api import Object
from tests.cluster.pods import Node, Pod
from tests.cluster.watching import Key, Mirror, Session, key

# A second of a probe's delay or period lasts this long: nobody learns anything in the rest.
PACE = 0.1


class Addresses:
    """Addresses 127.x.y.2 to .254 of one run; a socket at 127.x.y.1 tells other runs that the net is taken."""

    def __init__(self) -> None:
        chance = random.SystemRandom()
        while True:
            self.net = f"127.{chance.randrange(30, 250)}.{chance.randrange(256)}"
            self.lock = socket.socket()
            try:
                self.lock.bind((f"{self.net}.1", 8443))
            except OSError:
                self.lock.close()
            else:
                break
        self.free = [f"{self.net}.{last}" for last in range(2, 255)]

    def take(self) -> str:
        """An address that no pod has; the one that is unused for longest."""
        return self.free.pop(0)

    def give(self, address: str) -> None:
        """Take an address back."""
        self.free.append(address)


class Kubelet:
    """One node; `pods` are those that it runs. Runs in the loop of `run`; tests only read."""

    def __init__(self, open_session: Callable[[], Session], *, name: str, folder: Path, pool: str, pace: float) -> None:
        self.open_session = open_session
        self.name = name
        self.folder = folder
        self.pool = pool
        self.pace = pace
        self.pods: dict[Key, Pod] = {}
        self.addresses = Addresses()

    def pod(self, namespace: str, name: str = "") -> Pod:
        """A pod that runs here, the namespace's first when no name is given; a LookupError when there is none."""
        for (space, found), pod in list(self.pods.items()):
            if space == namespace and name in {"", found}:
                return pod
        raise LookupError(f"no pod {namespace}/{name} on {self.name}")

    async def run(self) -> None:
        """Be a node until cancelled."""
        session = self.open_session()
        try:
            await self.register(session)
            async with asyncio.TaskGroup() as tasks:
                maps = Mirror(session, "/api/v1/configmaps", self.wake)
                hidden = Mirror(session, "/api/v1/secrets", self.wake)
                node = Node(session, self.folder, maps.objects, hidden.objects, self.pace)
                pods = Mirror(
                    session,
                    "/api/v1/pods",
                    lambda value, gone: self.take(node, tasks, value, gone),
                    fieldSelector=f"spec.nodeName={self.name}",
                )
                tasks.create_task(maps.run())
                tasks.create_task(hidden.run())
                await maps.ready.wait()
                await hidden.ready.wait()
                tasks.create_task(pods.run())
        finally:
            for pod in self.pods.values():
                pod.kill()
            self.addresses.lock.close()
            await session.close()

    async def register(self, session: Session) -> None:
        """Make the node, ready."""
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", "kars.azure.com/pool": self.pool}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        room = {"cpu": "64", "memory": "256Gi", "pods": "250", "ephemeral-storage": "1Ti"}
        body = {
            "metadata": {"name": self.name, "labels": labels},
            "status": {
                "conditions": [ready],
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "capacity": room,
                "allocatable": room,
            },
        }
        await session.persist("POST", "/api/v1/nodes", body)

    def wake(self, value: Object, gone: bool) -> None:
        """A ConfigMap or Secret changed: its namespace's pods look at their volumes."""
        namespace, _ = key(value)
        for pod in self.pods.values():
            if pod.value["metadata"]["namespace"] == namespace:
                pod.woken.set()

    def take(self, node: Node, tasks: asyncio.TaskGroup, value: Object, gone: bool) -> None:
        """A pod of this node changed."""
        pod = self.pods.get(key(value))
        if pod is not None and pod.value["metadata"]["uid"] == value["metadata"]["uid"]:
            pod.gone = gone
            pod.update(value)
            if gone:
                pod.deleted.set()
        elif not gone:
            pod = Pod(node, value, address=self.addresses.take(), forget=self.forget)
            self.pods[key(value)] = pod
            tasks.create_task(pod.run())
            pod.update(value)

    def forget(self, pod: Pod) -> None:
        """A pod is over."""
        self.addresses.give(pod.address)
        if self.pods.get(key(pod.value)) is pod:
            del self.pods[key(pod.value)]
