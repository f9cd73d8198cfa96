"""The process: settings to running tasks, signals, leadership, and the way out.

Informers and the HTTP server run from the start, so a standby is warm and Ready; reconcilers run while this process
leads, and nothing is written by one that does not. It ends with 0 after SIGTERM, when its workers have finished what
they were at and the lease is released, and with 1 when another took the lease or one of its own tasks ended: then
workers are stopped at once. A leader that could not renew its lease stops them, too, and stands by again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from typing import Any

from prometheus_client.core import Metric

from kars.artifacts import configured
from kars.controller import crds, logs, scrape
from kars.controller.cluster import Cluster
from kars.controller.engine import DRAIN_SECONDS, Engine
from kars.controller.health import Health
from kars.controller.metrics import Metrics
from kars.controller.queue import jittered
from kars.controller.reconcile import Reconciler
from kars.kube.client import Client
from kars.kube.errors import ApiError
from kars.kube.events import Recorder
from kars.kube.informer import Informer
from kars.kube.lease import Lease, Lost
from kars.kube.types import Key
from kars.settings.controller import Controller

log = logging.getLogger(__name__)

# Seconds without a sign of life after which a watch is no longer fresh. Bookmarks come about once a minute, and a
# silent watch is given up and begun anew before this.
STALE = 180.0
# Seconds between two lines about what is waited for at the start.
PATIENCE = 15.0
# Seconds that an informer waits for the one before it to have listed.
LIST_TURN = 1.0
# Seconds between two questions for the API server's version, without which nothing can be planned.
VERSION_PAUSE = 2.0
# The API server takes no longer name of who tells an event.
LONGEST_INSTANCE = 128

Roster = Callable[[Controller], Sequence[Reconciler]]


def main(settings: Controller, roster: Roster, *, kubeconfig: str = "", context: str = "") -> int:
    """Run until told to end; the exit status. A `KarsError` when it cannot start."""
    import uvloop

    logs.begin(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(run(settings, roster, kubeconfig=kubeconfig, context=context))
        except asyncio.CancelledError:
            return 1  # a second signal


async def run(settings: Controller, roster: Roster, *, kubeconfig: str = "", context: str = "") -> int:
    """Connect, look whether the cluster knows our kinds, and serve."""
    configured.check(settings)
    stop = asyncio.Event()
    with signals(stop):
        async with await Client.connect(kubeconfig=kubeconfig, context=context) as client:
            await crds.check(client, stop)
            return 0 if stop.is_set() else await Process(client, settings, roster(settings)).run(stop)


@contextlib.contextmanager
def signals(stop: asyncio.Event) -> Iterator[None]:
    """Ask the process to end on SIGTERM and SIGINT; a second one ends it at once."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def heard() -> None:
        if stop.is_set() and task is not None:
            task.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heard)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class Process:
    """One controller, its parts wired."""

    def __init__(self, client: Client, settings: Controller, reconcilers: Sequence[Reconciler]) -> None:
        self.client = client
        self.settings = settings
        self.metrics = Metrics()
        self.lease = Lease(client, Key(settings.namespace, settings.lease_name), identity=settings.identity)
        writing = client.fenced(self.lease.leads) if settings.leader_election else client
        self.recorder = Recorder(writing, controller="kars-controller", instance=settings.identity[:LONGEST_INSTANCE])
        self.cluster = Cluster(writing, settings, recorder=self.recorder, metrics=self.metrics)
        self.engine = Engine(self.cluster, reconcilers, metrics=self.metrics)
        self.health = Health(alive=self.faults, ready=self.unready, metrics=self.metrics.render)
        self.background: list[asyncio.Task[None]] = []
        self.metrics.describe(settings, metadata.version("kars"))
        self.metrics.watch(self.samples)

    async def run(self, stop: asyncio.Event) -> int:
        """Serve until `stop` is set or something ends that should not; the exit status."""
        await self.listen()
        self.background = list(self.open_watches())
        self.background.append(asyncio.create_task(self.recorder.run(), name="events"))
        lead = asyncio.create_task(self.lead(), name="lead")
        ending = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait([lead, ending, *self.background], return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                log.info("process.draining", extra={"seconds": DRAIN_SECONDS})
                await self.engine.drain()
                return 0
            return self.explain([lead, *self.background])
        finally:
            await self.engine.stop()
            await cancel([lead, ending])
            await self.lease.release()
            await cancel(self.background)
            await self.cluster.close()
            await self.health.stop()
            log.info("process.ended")

    def open_watches(self) -> Iterator[asyncio.Task[None]]:
        """Start the informers, each when the one before has listed: what a list takes to decode is needed once only."""
        before: Informer[Any] | None = None
        for informer in self.cluster.informers():
            name = f"informer-{informer.kind.plural}"
            yield asyncio.create_task(in_turn(informer, before), name=name)
            before = informer

    async def listen(self) -> None:
        """Serve health and metrics, unless that is off."""
        host, _, port = self.settings.metrics_address.rpartition(":")
        if port:
            await self.health.start(host.strip("[]"), int(port))
            log.info("process.listening", extra={"host": host, "port": self.health.port})

    async def lead(self) -> None:
        """Lead whenever the lease can be had; `Lost` once another has it.

        Who could not renew it, because the API server was away, stands by again: it knows everything, and takes the
        lease that it wrote itself without waiting.
        """
        while self.settings.leader_election:
            await self.lease.acquire()
            try:
                await self.reign()
            except Lost as lost:
                if lost.taken:
                    raise
                log.warning("process.deposed", extra={"error": str(lost)})
            else:
                return
        await self.reign()

    async def reign(self) -> None:
        """Reconcile for as long as the lease holds, as soon as everything is known."""
        log.info("process.leading", extra={"identity": self.settings.identity})
        self.metrics.leader.set(1)
        holding = [asyncio.create_task(self.lease.hold(), name="hold")] if self.settings.leader_election else []
        working = asyncio.create_task(self.work(), name="work")
        try:
            done, _ = await asyncio.wait([*holding, working], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        finally:
            self.metrics.leader.set(0)
            await self.engine.stop()
            await cancel([working, *holding])

    async def work(self) -> None:
        """Reconcile, as soon as everything that is watched was listed."""
        began = time.monotonic()
        self.cluster.version = await self.ask_version()
        while waiting := unsynced(self.cluster.informers()):
            try:
                async with asyncio.timeout(PATIENCE):
                    await waiting[0].synced.wait()
            except TimeoutError:
                log.warning("process.waiting", extra={"kinds": ", ".join(one.kind.plural for one in waiting)})
        log.info("process.synced", extra={"seconds": round(time.monotonic() - began, 3)})
        await self.engine.run()

    async def ask_version(self) -> tuple[int, int]:
        """Return the API server's version, however long it takes to answer."""
        while True:
            try:
                return await self.client.version()
            except ApiError as error:
                log.warning("process.version", extra={"error": str(error)})
                await asyncio.sleep(jittered(VERSION_PAUSE))

    def explain(self, tasks: Iterable[asyncio.Task[None]]) -> int:
        """Say why the process ends by itself; the exit status."""
        for task in tasks:
            if not task.done() or task.cancelled():
                continue
            error = task.exception()
            if isinstance(error, Lost):
                log.error("process.lost", extra={"error": str(error)})
            else:
                log.error("process.failed", exc_info=error, extra={"task": task.get_name()})
        return 1

    # --- what health and metrics ask

    def faults(self) -> list[str]:
        """Return what is broken for good in this process."""
        return [f"task {task.get_name()} ended" for task in self.background if task.done()]

    def unready(self) -> list[str]:
        """Return what this process does not know (any more); a standby that knows everything is ready."""
        now = time.monotonic()
        found = [f"{one.kind.plural} were not listed yet" for one in unsynced(self.cluster.informers())]
        found += [
            f"{one.kind.plural} were last heard of {now - one.seen:.0f} s ago"
            for one in self.cluster.informers()
            if one.synced.is_set() and now - one.seen > STALE
        ]
        return found + self.faults()

    def samples(self) -> Iterator[Metric]:
        """Return what is read off the parts at a scrape."""
        yield from scrape.queues(self.engine.queue, list(self.engine.reconcilers))
        yield from scrape.watches(self.cluster.informers())
        yield scrape.requests(self.client)


async def in_turn(informer: Informer[Any], before: Informer[Any] | None) -> None:
    """Run an informer once another has listed, or has had its time to."""
    if before is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LIST_TURN):
                await before.synced.wait()
    await informer.run()


def unsynced(informers: Iterable[Informer[Any]]) -> list[Informer[Any]]:
    """Return those that have not listed yet."""
    return [one for one in informers if not one.synced.is_set()]


async def cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they are gone."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
