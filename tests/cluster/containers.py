"""Containers of a pod: one that is a real router process, and those that are only said to run."""

import asyncio
import datetime as dt
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp

from tests.cluster.api import Object
from tests.cluster.process import Process
from tests.cluster.volumes import Missing

# The first pause before a container that ended is started again; it doubles up to the longest, as the kubelet's does.
RESTART_SECONDS = 10.0
LONGEST_RESTART_SECONDS = 300.0
ENDED_STEP_SECONDS = 0.05
# As much of a log as the kubelet takes for a termination message.
LOG_LINES = 80
LOG_BYTES = 2048


def now() -> str:
    """This moment as the API writes it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def patience(probe: Object) -> float:
    """How long a probe may fail before the process is ended, in real seconds: a busy machine is no broken router."""
    return float(probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10))


class Container:
    """A container as its status shows it. This one only pretends: it runs and is ready as soon as it is started."""

    def __init__(self, spec: Object, *, changed: Callable[[], None]) -> None:
        self.spec = spec
        self.name: str = spec["name"]
        self.changed = changed
        self.sidecar = spec.get("restartPolicy") == "Always"
        self.ready = False
        self.started = asyncio.Event()
        self.restarts = 0
        self.state: Object = {"waiting": {"reason": "PodInitializing"}}
        self.last: Object = {}

    def wait(self, reason: str, message: str = "") -> None:
        """Say why it does not run."""
        self.ready = False
        self.state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        self.changed()

    def run(self) -> None:
        """Say that it runs."""
        self.state = {"running": {"startedAt": now()}}
        self.changed()

    def end(self, code: int, *, reason: str = "", message: str = "") -> None:
        """Say that it ended; a negative code is a signal's."""
        code = code if code >= 0 else 128 - code
        began = self.state.get("running", {}).get("startedAt", now())
        ended = {"exitCode": code, "reason": reason or ("Error" if code else "Completed")}
        if message:
            ended["message"] = message
        self.state = {"terminated": {**ended, "startedAt": began, "finishedAt": now()}}
        self.ready = False
        self.started.clear()
        self.changed()

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        """Start it."""
        self.ready = True
        self.started.set()
        self.run()

    async def stop(self, seconds: float) -> None:
        """End it within a grace period."""
        if "running" in self.state:
            self.end(0)

    def status(self) -> Object:
        """Its part of the pod's status."""
        return {
            "name": self.name,
            "image": self.spec.get("image", ""),
            "imageID": "",
            "containerID": f"process://{self.name}-{self.restarts}" if "waiting" not in self.state else "",
            "ready": self.ready,
            "started": self.started.is_set(),
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last,
        }


class RealContainer(Container):
    """A container that is a process, with its probes asked for real; `pace` is what a second of its waits lasts."""

    def __init__(
        self,
        spec: Object,
        *,
        changed: Callable[[], None],
        command: list[str],
        log: Path,
        address: str,
        environment: Callable[[], Mapping[str, str]],
        pace: float,
    ) -> None:
        super().__init__(spec, changed=changed)
        self.process = Process(command, log=log, cwd=log.parent)
        self.address = address
        self.environment = environment
        self.pace = pace
        self.stopping = asyncio.Event()

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        """Start the process, and start it again whenever it ends."""
        tasks.create_task(self.keep())

    async def keep(self) -> None:
        """Run it until it is stopped."""
        pause = RESTART_SECONDS
        while not self.stopping.is_set():
            try:
                self.process.env = dict(self.environment())
            except Missing as error:
                self.wait("CreateContainerConfigError", str(error))
                await self.sleep(1)
                continue
            self.process.start()
            self.run()
            probing = asyncio.create_task(self.probe())
            code = await self.ended()
            probing.cancel()
            self.end(code, message=self.last_words() if code else "")
            if self.stopping.is_set():
                return
            self.last = self.state
            self.restarts += 1
            self.wait("CrashLoopBackOff", f"back-off restarting failed container {self.name}")
            await self.sleep(pause)
            pause = min(2 * pause, LONGEST_RESTART_SECONDS)

    def last_words(self) -> str:
        """What the kubelet puts into the status of a container that failed: the end of its log, where that is asked."""
        asked = self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        return self.process.tail(LOG_LINES)[-LOG_BYTES:] if asked else ""

    async def ended(self) -> int:
        """Wait for the process's end; its exit status."""
        while (code := self.process.ended()) is None:
            await asyncio.sleep(ENDED_STEP_SECONDS)
        return code

    async def stop(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL after the grace period."""
        self.stopping.set()
        if self.process.ended() is not None:
            return
        self.process.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await self.ended()
        except TimeoutError:
            self.process.send(signal.SIGKILL)
            await self.ended()

    async def probe(self) -> None:
        """Ask the startup probe, then the others side by side."""
        startup = self.spec.get("startupProbe")
        if startup and not await self.until(startup):
            self.process.send(signal.SIGKILL)
            return
        self.started.set()
        readiness, liveness = self.spec.get("readinessProbe"), self.spec.get("livenessProbe")
        self.ready = not readiness
        self.changed()
        async with asyncio.TaskGroup() as probes:
            if readiness:
                probes.create_task(self.watch_readiness(readiness))
            if liveness:
                probes.create_task(self.watch_liveness(liveness))

    async def until(self, probe: Object) -> bool:
        """Ask until it succeeds; false when it has failed for as long as it may."""
        await self.sleep(probe.get("initialDelaySeconds", 0))
        deadline = time.monotonic() + patience(probe)
        while not await self.ask(probe):
            if time.monotonic() > deadline:
                return False
            await self.sleep(probe.get("periodSeconds", 10))
        return True

    async def watch_readiness(self, probe: Object) -> None:
        """Keep `ready` as the probe says."""
        await self.sleep(probe.get("initialDelaySeconds", 0))
        good = bad = 0
        while True:
            if await self.ask(probe):
                good, bad = good + 1, 0
            else:
                good, bad = 0, bad + 1
            ready = self.ready
            if good >= probe.get("successThreshold", 1):
                ready = True
            elif bad >= probe.get("failureThreshold", 3):
                ready = False
            if ready != self.ready:
                self.ready = ready
                self.changed()
            # A container that is not ready yet is asked every second at least.
            await self.sleep(probe.get("periodSeconds", 10) if ready else min(1, probe.get("periodSeconds", 10)))

    async def watch_liveness(self, probe: Object) -> None:
        """End the process when the probe has failed for as long as it may."""
        await self.sleep(probe.get("initialDelaySeconds", 0))
        good = time.monotonic()
        while time.monotonic() < good + patience(probe):
            if await self.ask(probe):
                good = time.monotonic()
            await self.sleep(probe.get("periodSeconds", 10))
        self.process.send(signal.SIGTERM)

    async def ask(self, probe: Object) -> bool:
        """Ask once. Only HTTP is asked for real; the rest is taken as said."""
        if "httpGet" not in probe:
            return True
        wanted = probe["httpGet"]
        port = wanted["port"]
        if isinstance(port, str):
            port = next(one["containerPort"] for one in self.spec["ports"] if one.get("name") == port)
        url = f"http://{wanted.get('host') or self.address}:{port}{wanted.get('path', '/')}"
        timeout = aiohttp.ClientTimeout(total=probe.get("timeoutSeconds", 1))
        try:
            async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url, allow_redirects=False) as answer:
                return 200 <= answer.status < 400
        except (OSError, TimeoutError, aiohttp.ClientError):
            return False

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self.pace)
