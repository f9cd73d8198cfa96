"""One pod on the process kubelet: its volumes, its containers, its status, its end."""

import asyncio
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.cluster import environment, volumes
from tests.cluster.api import MERGE, ApiError, Object
from tests.cluster.containers import Container, RealContainer, now
from tests.cluster.volumes import Folder, Missing, Sources
from tests.cluster.watching import Key, Session

ROUTER = "inference-router"
COMMAND = [sys.executable, "-m", "kars", "router"]


class Node(NamedTuple):
    """What a pod's node gives it. `pace` is what a second of a probe's waits or of a restart's pause lasts."""

    session: Session
    folder: Path
    maps: Mapping[Key, Object]
    hidden: Mapping[Key, Object]
    pace: float


class Pod:
    """A pod from its binding to its end; `run` is its whole life."""

    def __init__(self, node: Node, value: Object, *, address: str, forget: Callable[["Pod"], None]) -> None:
        self.node = node
        self.value = value
        self.address = address
        self.forget = forget
        self.path = f"/api/v1/namespaces/{value['metadata']['namespace']}/pods/{value['metadata']['name']}"
        self.folder = node.folder / value["metadata"]["uid"]
        self.folder.mkdir(parents=True)
        self.folders: dict[str, Folder] = {}
        self.tokens: dict[str, str] = {}
        self.began = now()
        # Times of the conditions' last changes.
        self.moments: dict[str, tuple[str, str]] = {}
        self.woken = asyncio.Event()
        self.dirty = asyncio.Event()
        self.deleted = asyncio.Event()
        self.gone = False
        spec = value["spec"]
        self.inits = [self.make(one) for one in spec.get("initContainers", [])]
        self.mains = [self.make(one) for one in spec["containers"]]

    @property
    def sources(self) -> Sources:
        return Sources(self.node.maps, self.node.hidden, self.tokens)

    @property
    def router(self) -> RealContainer:
        """Its router; a LookupError when it has none."""
        for one in [*self.inits, *self.mains]:
            if isinstance(one, RealContainer):
                return one
        raise LookupError(f"{self.path} has no router")

    def make(self, spec: Object) -> Container:
        """A container, not started."""
        if spec["name"] != ROUTER:
            return Container(spec, changed=self.dirty.set)
        return RealContainer(
            spec,
            changed=self.dirty.set,
            command=[*COMMAND, *spec.get("args", [])],
            log=self.folder / f"{ROUTER}.log",
            address=self.address,
            environment=lambda: self.variables(spec),
            pace=self.node.pace,
        )

    def variables(self, spec: Object) -> dict[str, str]:
        """The environment of a real container."""
        value = {**self.value, "status": {"podIP": self.address, "podIPs": self.address, "hostIP": "127.0.0.1"}}
        given = environment.variables(spec, value, self.sources)
        mounts = environment.Mounts(spec, {name: folder.path for name, folder in self.folders.items()})
        return environment.adapted(given, mounts, address=self.address, api=self.node.session.url)

    def update(self, value: Object) -> None:
        """Take in the pod as the API server has it now."""
        self.value = value
        if "deletionTimestamp" in value["metadata"]:
            self.deleted.set()

    async def run(self) -> None:
        """Live; returns when the pod is deleted and nothing of it runs."""
        try:
            async with asyncio.TaskGroup() as tasks:
                lives = [tasks.create_task(self.live(tasks)), tasks.create_task(self.write())]
                await self.deleted.wait()
                lives[0].cancel()
                if not self.gone:
                    await self.finish()
                raise Ended
        except* Ended:
            pass
        finally:
            self.kill()
            self.forget(self)
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """End the router at once, if it runs."""
        for one in [*self.inits, *self.mains]:
            if isinstance(one, RealContainer):
                one.stopping.set()
                one.process.kill()

    async def live(self, tasks: asyncio.TaskGroup) -> None:
        """Mount, start, then keep the volumes as their sources are."""
        self.dirty.set()
        while not await self.prepare():
            await self.next_change()
        for one in self.inits:
            one.begin(tasks)
            if one.sidecar:
                await one.started.wait()
            else:
                one.end(0)
                one.ready = True
        for one in self.mains:
            one.begin(tasks)
        while True:
            await self.next_change()
            await self.prepare()

    async def next_change(self) -> None:
        await self.woken.wait()
        self.woken.clear()

    async def prepare(self) -> bool:
        """Bring every volume up to date; false, and said in the status, when one cannot be mounted yet."""
        try:
            for audience in volumes.audiences(self.value) - self.tokens.keys():
                self.tokens[audience] = await self.ask_token(audience)
            for volume in self.value["spec"].get("volumes", []):
                files = volumes.render(volume, self.value, self.sources)
                if volume["name"] not in self.folders:
                    self.folders[volume["name"]] = Folder(self.folder / "volumes" / volume["name"])
                if files is not None:
                    self.folders[volume["name"]].swap(files)
            for one in [*self.inits, *self.mains]:
                environment.variables(one.spec, self.value, self.sources)
        except (Missing, ApiError) as error:
            for one in self.mains:
                if "waiting" in one.state:
                    one.wait("ContainerCreating", str(error))
            return False
        return True

    async def ask_token(self, audience: str) -> str:
        """A token of the pod's account, bound to the pod."""
        metadata = self.value["metadata"]
        account = self.value["spec"].get("serviceAccountName", "default")
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience] if audience else None, "expirationSeconds": 3600, "boundObjectRef": bound},
        }
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        return str((await self.node.session.request("POST", path, request))["status"]["token"])

    async def finish(self) -> None:
        """End the containers within the grace period, sidecars last, and remove the pod."""
        seconds = self.value["metadata"].get("deletionGracePeriodSeconds", 30)
        await asyncio.gather(*(one.stop(seconds) for one in self.mains))
        for one in reversed(self.inits):
            await one.stop(seconds)
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.value["metadata"]["uid"]}}
        await self.node.session.persist("DELETE", self.path, options)

    async def write(self) -> None:
        """Write the status whenever it differs from what was written."""
        written: Object = {}
        while True:
            await self.dirty.wait()
            self.dirty.clear()
            status = self.status()
            if status != written:
                await self.node.session.persist("PATCH", f"{self.path}/status", {"status": status}, content=MERGE)
                written = status

    def status(self) -> Object:
        """The whole status."""
        initialized = all(one.started.is_set() if one.sidecar else "terminated" in one.state for one in self.inits)
        ready = initialized and all(one.ready for one in [*self.mains, *(one for one in self.inits if one.sidecar)])
        mounted = len(self.folders) == len(self.value["spec"].get("volumes", []))
        return {
            "phase": self.phase(),
            "hostIP": "127.0.0.1",
            "hostIPs": [{"ip": "127.0.0.1"}],
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self.began,
            "conditions": [
                self.condition("PodScheduled", True, ""),
                self.condition("PodReadyToStartContainers", mounted, ""),
                self.condition("Initialized", initialized, "ContainersNotInitialized"),
                self.condition("ContainersReady", ready, "ContainersNotReady"),
                self.condition("Ready", ready, "ContainersNotReady"),
            ],
            "initContainerStatuses": [one.status() for one in self.inits],
            "containerStatuses": [one.status() for one in self.mains],
        }

    def phase(self) -> str:
        """Pending, Running, Succeeded or Failed."""
        ends = [one.state.get("terminated") for one in self.mains]
        if self.value["spec"].get("restartPolicy", "Always") != "Always" and all(ends):
            return "Failed" if any(end["exitCode"] for end in ends if end) else "Succeeded"
        pending = all("waiting" in one.state and not one.restarts for one in self.mains)
        return "Pending" if pending else "Running"

    def condition(self, name: str, holds: bool, reason: str) -> Object:
        """One condition; its time is that of its last change."""
        state = "True" if holds else "False"
        if self.moments.get(name, ("",))[0] != state:
            self.moments[name] = (state, now())
        why = {} if holds else {"reason": reason}
        return {"type": name, "status": state, "lastTransitionTime": self.moments[name][1], **why}


class Ended(Exception):
    """The pod is over: what else goes on for it ends."""
