"""What is measured, running: control plane, charts, the stand-in for routers, controllers, and eyes on all of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benches.control.watch import Watch
from tests.cluster.installation import NAMESPACE, Controller, Installation
from tests.cluster.plane import ControlPlane
from tests.cluster.process import Process

Object = dict[str, Any]
Found = TypeVar("Found")

GROUP = "/apis/kars.azure.com/v1alpha1"
SANDBOXES = f"{GROUP}/namespaces/{NAMESPACE}/karssandboxes"
POLICIES = f"{GROUP}/namespaces/{NAMESPACE}/inferencepolicies"
FARM = Path(__file__).with_name("echo_farm.py")
# Requests that the driver has under way at once when it makes or changes many objects.
AT_ONCE = 32
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
# The API server's own count of what the controller asked: a flow of its own for the controller's account, at the
# priority level that it would have anyway.
FLOW = {
    "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
    "kind": "FlowSchema",
    "metadata": {"name": "bench-controller"},
    "spec": {
        "matchingPrecedence": 500,
        "priorityLevelConfiguration": {"name": "workload-low"},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [
            {
                "subjects": [
                    {
                        "kind": "ServiceAccount",
                        "serviceAccount": {"name": "kars-controller", "namespace": NAMESPACE},
                    }
                ],
                "resourceRules": [
                    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
                ],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }
        ],
    },
}


class Metadata(msgspec.Struct):
    """Of any object."""

    name: str
    namespace: str = ""
    generation: int = 0


class Condition(msgspec.Struct):
    """Of a status."""

    type: str
    status: str
    reason: str = ""


class Status(msgspec.Struct, rename="camel"):
    """Of one of our resources."""

    phase: str = ""
    observed_generation: int = 0
    conditions: list[Condition] = []
    compiled_digest: str = ""
    loaded_digest: str = ""


class Seen(msgspec.Struct):
    """One of our resources, or a Deployment."""

    metadata: Metadata
    status: Status = msgspec.field(default_factory=Status)

    def ready(self) -> bool:
        """Whether it says Ready about the very spec that it has."""
        fresh = self.status.observed_generation >= self.metadata.generation
        return fresh and any(one.type == "Ready" and one.status == "True" for one in self.status.conditions)


class Eyes:
    """Watches one collection: what stands, and who is ready since when."""

    def __init__(
        self, session: Any, path: str, *, check: Callable[[], None], resource: bool = True, **query: str
    ) -> None:
        self.check = check
        self.resource = resource
        self.watch: Watch[Seen] = Watch(session, path, self.changed, kind=Seen, **query)
        self.held: dict[str, Seen] = {}
        self.ready: dict[str, float] = {}  # name: since when
        self.writes = 0
        self.woken = asyncio.Event()

    def changed(self, value: Seen, gone: bool) -> None:
        """Take in a state."""
        name = value.metadata.name
        self.writes += 1
        if gone:
            self.held.pop(name, None)
            self.ready.pop(name, None)
        else:
            self.held[name] = value
            if self.resource and value.ready():
                self.ready.setdefault(name, time.monotonic())
            else:
                self.ready.pop(name, None)
        self.woken.set()

    async def until(self, condition: Callable[[], Found], seconds: float, what: str) -> Found:
        """Wait until something is so; TimeoutError with `what` when it does not become so."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := condition()):
                    self.woken.clear()
                    self.check()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self.woken.wait(), 1.0)
                return found
        except TimeoutError:
            raise TimeoutError(f"{what}: not within {seconds:g} s") from None


class World:
    """One control plane with everything on it; use `opened`."""

    def __init__(self, folder: Path, *, delay: float) -> None:
        self.plane = ControlPlane(folder)
        self.delay = delay
        self.installation = Installation(self.plane, "admission.sandboxChildren.enabled=true")
        self.farm: Process | None = None
        # The controller that is measured; it must not end.
        self.leader: Controller | None = None
        self.tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Start everything but a controller."""
        await asyncio.to_thread(self.plane.start)
        await asyncio.to_thread(self.installation.install)
        await asyncio.to_thread(self.plane.apply, [FLOW])
        await asyncio.to_thread(self.plane.node)
        self.session = self.plane.open_session()
        await self.start_farm()
        self.sandboxes = self.look(SANDBOXES)
        self.policies = self.look(POLICIES)
        self.deployments = self.look(
            "/apis/apps/v1/deployments", resource=False, labelSelector="kars.azure.com/component=sandbox"
        )
        for eyes in (self.sandboxes, self.policies, self.deployments):
            await eyes.watch.ready.wait()

    async def start_farm(self) -> None:
        """Start the stand-in for routers."""
        token = self.plane.folder / "farm.token"
        token.touch(0o600)
        token.write_text(self.plane.token)
        command = [sys.executable, str(FARM), "--server", self.plane.url, "--delay", str(self.delay)]
        command += ["--authority", str(self.plane.authority_file), "--token-file", str(token)]
        self.farm = Process(command, log=self.plane.folder / "logs" / "farm.log").start()
        await self.wait(lambda: "listening" in self.farm.tail(), 20, "the stand-in for routers")

    def look(self, path: str, **settings: Any) -> Eyes:
        """Begin to watch a collection."""
        eyes = Eyes(self.session, path, check=self.check, **settings)
        self.tasks.append(asyncio.create_task(eyes.watch.run()))
        return eyes

    def check(self) -> None:
        """Raise when something ended that should not: waiting for what it brings about is no use then."""
        self.plane.background.check()
        for process in (self.farm, self.leader.process if self.leader else None):
            if process is not None and (status := process.ended()) is not None:
                raise RuntimeError(f"{process.command[2:4]} ended with {status}:\n{process.tail()}")

    async def close(self) -> None:
        """End everything."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if hasattr(self, "session"):
            await self.session.close()
        await asyncio.to_thread(self.installation.stop)
        if self.farm is not None:
            self.farm.kill()
        await asyncio.to_thread(self.plane.stop)

    async def wait(self, condition: Callable[[], Found], seconds: float, what: str, pause: float = 0.05) -> Found:
        """Ask until the answer is true; an OSError counts as no."""
        until = time.monotonic() + seconds
        while True:
            self.check()
            with contextlib.suppress(OSError):
                if found := await asyncio.to_thread(condition):
                    return found
            if time.monotonic() > until:
                raise TimeoutError(f"{what}: not within {seconds:g} s")
            await asyncio.sleep(pause)

    # Controllers

    async def start_controller(self, **changes: str) -> Controller:
        """Start a controller; returns when it knows everything that it watches."""
        made = await asyncio.to_thread(lambda: self.installation.start(**changes))
        print(f"{made.name} is process {made.process.pid}", file=sys.stderr, flush=True)
        await self.wait(lambda: made.get("/readyz"), 120, f"readiness of {made.name}", 0.02)
        return made

    async def scrape(self, controller: Controller) -> Metrics:
        """Read a controller's metrics."""
        return Metrics(await asyncio.to_thread(controller.get, "/metrics"))

    async def scrape_server(self) -> Metrics:
        """Read the API server's metrics."""
        return Metrics((await asyncio.to_thread(self.plane.api.get, "/metrics"))["text"])

    # Many objects

    async def many(self, requests: Iterable[Callable[[], Awaitable[object]]]) -> None:
        """Make many requests, some at once."""
        waiting = iter(requests)

        async def work() -> None:
            for one in waiting:
                await one()

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    async def create(self, path: str, objects: Iterable[Object]) -> None:
        """Create many objects."""
        await self.many(lambda one=one: self.session.request("POST", path, one) for one in objects)

    async def merge(self, path: str, names: Iterable[str], patch: Object) -> None:
        """Change many objects alike."""
        content = "application/merge-patch+json"
        await self.many(
            lambda name=name: self.session.request("PATCH", f"{path}/{name}", patch, content=content) for name in names
        )


class Metrics:
    """A text exposition."""

    def __init__(self, text: str) -> None:
        self.rows = [(name, dict(LABEL.findall(labels)), float(value)) for name, labels, value in SAMPLE.findall(text)]

    def sum(self, name: str, **labels: str) -> float:
        """The sum of the samples of a name that have these labels."""
        return sum(value for row, has, value in self.rows if row == name and labels.items() <= has.items())

    def table(self, name: str, *by: str, **labels: str) -> Counter[tuple[str, ...]]:
        """Sums of a name's samples by some labels."""
        found: Counter[tuple[str, ...]] = Counter()
        for row, has, value in self.rows:
            if row == name and labels.items() <= has.items():
                found[tuple(has.get(one, "") for one in by)] += int(value)
        return found

    def requests(self) -> Counter[tuple[str, ...]]:
        """A controller's requests by verb and kind."""
        return self.table("kars_controller_api_requests_total", "verb", "kind")


def policy(name: str) -> Object:
    """An InferencePolicy."""
    return {
        "apiVersion": "kars.azure.com/v1alpha1",
        "kind": "InferencePolicy",
        "metadata": {"name": name},
        "spec": {
            "appliesTo": {},
            "modelPreference": {"primary": {"provider": "azure-openai", "deployment": "gpt-4.1"}},
            "tokenBudget": {"dailyTokens": 100_000, "perRequestTokens": 8_000},
        },
    }


def sandbox(name: str, policy: str) -> Object:
    """A KarsSandbox."""
    return {
        "apiVersion": "kars.azure.com/v1alpha1",
        "kind": "KarsSandbox",
        "metadata": {"name": name},
        "spec": {
            "runtime": {"kind": "OpenClaw"},
            "sandbox": {"isolation": "standard"},
            "inferenceRef": {"name": policy},
        },
    }


@contextlib.asynccontextmanager
async def opened(folder: Path, *, delay: float) -> AsyncIterator[World]:
    """A world for as long as it is needed."""
    world = World(folder, delay=delay)
    try:
        await world.open()
        yield world
    finally:
        await world.close()
