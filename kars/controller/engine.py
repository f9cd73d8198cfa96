"""The loop: changes become keys, keys become calls of reconcilers, and what these say becomes the next look.

Nothing that a reconciler does ends the process. What the API server refuses for good becomes a condition of the
resource; what may pass is tried again with backoff; everything else is a bug, is counted, and is tried again, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import time
from collections.abc import Sequence

from kars.controller import logs, marks
from kars.controller.children import NotOurs, current
from kars.controller.cluster import Cluster, Known
from kars.controller.metrics import Metrics
from kars.controller.queue import Item, Queue, jittered
from kars.controller.reconcile import Done, Reconciler, Temporary
from kars.kube import types
from kars.kube.errors import ApiError, Busy, Conflict, Forbidden, Invalid, Missing
from kars.kube.types import Key
from kars.model.base import Resource

log = logging.getLogger(__name__)

WORKERS = 16
# Seconds between two looks at a resource that nothing happened to; one that finds nothing different costs no request.
RESYNC = 300.0
# Seconds that one reconcile may take: 14 objects, each with the client's own deadline, and a poll of routers.
LONGEST_RECONCILE = 120.0
# Longest pause before something is tried again that the API server did not do: it comes back within seconds, and
# rights, quotas and admission policies change without telling us. Whoever waits for it is served within ten seconds.
PATIENCE = 8.0
# Tries a second of everything that fails, together: with more than this takes, each waits for longer.
TRIES = 100.0
# The same for what is refused, which is rarely a matter of seconds.
REFUSED_TRIES = 20.0
# An API server that has just started does not know yet who has which rights; it says so as if there were none. Only
# what it has said so often in a row is told.
RIGHTS = re.compile(r"cannot \w+ resource")
DOUBT = 3
# Longest wait, in seconds, that an API server can ask for.
LONGEST_ASKED = 60.0
# First pause after a conflict: somebody else wrote, and the watch tells what within milliseconds.
CONFLICT_PAUSE = 0.1
# Seconds that workers may take to finish what they are at when the process is asked to end.
DRAIN_SECONDS = 20.0
# Pause between two looks at a resource whose end is not done yet; what it waits for usually wakes it earlier.
REMOVAL_PAUSE = 5.0
# How late a look may be that was asked for at a time: a tenth of it, this many seconds at most.
LATEST = 5.0
# Seconds that changes of other objects are gathered for, so that the many that come together are one look: what a
# sandbox is made of, a Deployment's and a pod's way to ready, a thousand sandboxes that refer to one policy.
GATHER = 0.1
# A reconciler cannot ask to be called again sooner than this; that would be a loop without a pause.
SOONEST = 0.1


class Engine:
    """Runs reconcilers over a cluster."""

    def __init__(
        self,
        cluster: Cluster,
        reconcilers: Sequence[Reconciler],
        *,
        metrics: Metrics,
        workers: int = WORKERS,
        resync: float = RESYNC,
    ) -> None:
        self.cluster = cluster
        self.reconcilers = {one.kind.__name__: one for one in reconcilers}
        self.metrics = metrics
        self.resync = resync
        self.workers = workers
        self.queue = self.make_queue()
        self.running: list[asyncio.Task[None]] = []
        self.leading = False
        self.reconciles = 0
        cluster.listeners.append(self.heard)

    # --- changes

    def heard(self, kind: str, key: Key, status_only: bool) -> None:
        """Find out which resources a change has to do with."""
        if not self.leading:
            return
        me = current.get()
        for name, reconciler in self.reconcilers.items():
            try:
                found = set(reconciler.touched(kind, key, self.cluster))
            except Exception:
                self.metrics.errors.labels(name, "bug").inc()
                log.exception("engine.touched", extra={"controller": name, "object": f"{kind} {key}"})
                found = set()
            if kind == name:
                # Its own status is what a reconciler wrote, not what it acts on.
                (found.discard if status_only else found.add)(key)
            for one in found:
                if me != (name, one):
                    own = kind == name and one == key
                    self.queue.add(Item(name, one), after=0.0 if own else GATHER)

    # --- life

    def make_queue(self) -> Queue:
        """Make a queue in which nothing waits."""
        waits = self.metrics.waits
        return Queue(workers=self.workers, waited=lambda kind, seconds: waits.labels(kind).observe(seconds))

    def start(self) -> None:
        """Begin: everything there is is looked at once. Everything that is watched must have been listed."""
        self.leading = True
        if self.queue.closed:
            self.queue = self.make_queue()  # it led before
        for name, reconciler in self.reconcilers.items():
            for key in self.cluster.keys(reconciler.kind):
                # As if it had just come: what it depends on is noted, also when nothing about it will change.
                self.heard(name, key, False)
        self.running = [asyncio.create_task(self.work(), name=f"worker-{number}") for number in range(self.workers)]

    async def run(self) -> None:
        """Work until the queue is closed, or a worker fails, which none should. Cancelling stops workers at once."""
        self.start()
        try:
            await asyncio.gather(*self.running)
        finally:
            await self.stop()

    async def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Let workers finish what they are at, within a bound; begin nothing new."""
        self.leading = False
        self.queue.close()
        if self.running:
            await asyncio.wait(self.running, timeout=seconds)
        await self.stop()

    async def stop(self) -> None:
        """Stop at once: nothing is written any more when this returns."""
        self.leading = False
        self.queue.close()
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)

    async def work(self) -> None:
        """Be one of the workers."""
        while (item := await self.queue.take()) is not None:
            try:
                await self.look(item)
            finally:
                self.queue.done(item)

    # --- one look

    async def look(self, item: Item) -> None:
        """Reconcile one resource and decide when to look again. Only being cancelled gets out of here."""
        self.reconciles += 1
        token = current.set((item.kind, item.key))
        began = time.monotonic()
        outcome = "error"
        with logs.about(controller=item.kind, key=str(item.key), reconcile=f"{self.reconciles:x}"):
            try:
                async with asyncio.timeout(LONGEST_RECONCILE):
                    outcome = await self.reconcile(item)
            except Exception as error:  # noqa: BLE001 - nothing that a reconciler does may end the process
                await self.failed(item, error)
            finally:
                current.reset(token)
                self.metrics.reconciles.labels(item.kind, outcome).inc()
                self.metrics.duration.labels(item.kind, outcome).observe(time.monotonic() - began)
                log.debug("engine.looked", extra={"outcome": outcome, "seconds": round(time.monotonic() - began, 4)})

    async def reconcile(self, item: Item) -> str:
        """Do what there is to do for one resource; returns how it went, in a word."""
        reconciler = self.reconcilers[item.kind]
        known = self.cluster.known(reconciler.kind, item.key)
        if known is None:
            self.queue.forget(item)
            return "gone"
        if known.metadata.deletion_timestamp is not None:
            return await self.remove(item, reconciler, known)
        if known.resource is None:
            await marks.degrade(self.cluster, reconciler.kind, item.key, reason="SpecInvalid", message=known.error)
            self.queue.forget(item)
            return "invalid"
        await self.add_finalizer(item, reconciler, known)
        resource = self.cluster.resource(reconciler.kind, item.key) or known.resource
        self.again(item, await reconciler.reconcile(resource, self.cluster))
        return "success"

    def again(self, item: Item, done: Done) -> None:
        """Put a resource down for its next look, after what it asked for or the resync, whichever is sooner."""
        self.queue.forget(item)
        self.queue.add(item, after=jittered(self.resync))
        if done.after is not None:
            after = max(done.after, SOONEST)
            late = random.uniform(0, min(after / 10, LATEST))  # noqa: S311 - spreads load, keeps no secret
            self.queue.add(item, after=after + late)

    async def add_finalizer(self, item: Item, reconciler: Reconciler, known: Known) -> None:
        """Make sure that the resource does not vanish before what it stands for is taken down."""
        if not reconciler.finalizer or reconciler.finalizer in known.metadata.finalizers:
            return
        await self.set_finalizers(item, reconciler.kind, known, (*known.metadata.finalizers, reconciler.finalizer))

    async def set_finalizers(self, item: Item, kind: type[Resource], known: Known, finalizers: tuple[str, ...]) -> None:
        """Write the list of finalizers, if the resource is still the one that was seen (`Conflict` otherwise)."""
        precondition = {"resourceVersion": known.metadata.resource_version, "finalizers": list(finalizers)}
        self.cluster.writing[item.kind, item.key] = current.get()
        try:
            answer = await self.cluster.client.merge(types.custom(kind), item.key, {"metadata": precondition})
            # Without a finalizer left it is gone, whatever the answer shows.
            if finalizers or not answer["metadata"].get("deletionTimestamp"):
                self.cluster.kinds[item.kind].put(answer)
        finally:
            del self.cluster.writing[item.kind, item.key]

    async def remove(self, item: Item, reconciler: Reconciler, known: Known) -> str:
        """Take down what a resource stands for, and let it go when that is done."""
        if not reconciler.finalizer or reconciler.finalizer not in known.metadata.finalizers:
            self.queue.forget(item)
            return "gone"
        resource = known.resource or marks.stump(reconciler.kind, known.metadata)
        if not await reconciler.finalize(resource, self.cluster):
            await marks.stuck(self.cluster, reconciler.kind, item.key, known, "what it made is not gone yet")
            self.queue.forget(item)
            self.queue.add(item, after=jittered(REMOVAL_PAUSE))
            return "removing"
        rest = tuple(one for one in known.metadata.finalizers if one != reconciler.finalizer)
        with contextlib.suppress(Missing):
            await self.set_finalizers(item, reconciler.kind, known, rest)
        self.queue.forget(item)
        return "removed"

    # --- what goes wrong

    async def failed(self, item: Item, error: Exception) -> None:
        """Decide when to try again, and tell whom it concerns."""
        self.metrics.retries.labels(item.kind).inc()
        if isinstance(error, Temporary):
            delay = self.queue.retry(item, after=error.delay, longest=self.queue.crowded(PATIENCE, rate=TRIES))
            log.info("engine.temporary", extra={"reason": str(error), "retry_seconds": round(delay, 2)})
        elif isinstance(error, NotOurs | Invalid | Forbidden):
            delay = self.queue.retry(item, longest=self.queue.crowded(PATIENCE, rate=REFUSED_TRIES))
            log.warning("engine.refused", extra={"error": str(error), "retry_seconds": round(delay, 2)})
            if not RIGHTS.search(str(error)) or self.queue.failures[item] >= DOUBT:
                await self.tell(item, reason=marks.reason_of(error), message=marks.worded(error))
        elif isinstance(error, ApiError):
            delay = self.retry_request(item, error)
            log.info("engine.unanswered", extra={"error": str(error), "retry_seconds": round(delay, 2)})
        else:
            delay = self.queue.retry(item)
            log.error("engine.failed", exc_info=error, extra={"retry_seconds": round(delay, 2)})
        if not isinstance(error, Temporary):
            self.metrics.errors.labels(item.kind, class_of(error)).inc()
        await self.tell_stuck(item, error)

    def retry_request(self, item: Item, error: ApiError) -> float:
        """Put a resource down for another try after a request that may pass later."""
        longest = self.queue.crowded(PATIENCE, rate=TRIES)
        if isinstance(error, Conflict):
            return self.queue.retry(item, first=CONFLICT_PAUSE, longest=longest)
        asked = error.after if isinstance(error, Busy) else None
        return self.queue.retry(item, after=min(asked, LONGEST_ASKED) if asked else None, longest=longest)

    async def tell(self, item: Item, *, reason: str, message: str) -> None:
        """Say on the resource why it is not as it should be."""
        known = self.cluster.known(self.reconcilers[item.kind].kind, item.key)
        if known is not None and known.metadata.deletion_timestamp is None:
            await marks.degrade(
                self.cluster, self.reconcilers[item.kind].kind, item.key, reason=reason, message=message
            )

    async def tell_stuck(self, item: Item, error: Exception) -> None:
        """Say on a resource that cannot go what holds it."""
        kind = self.reconcilers[item.kind].kind
        known = self.cluster.known(kind, item.key)
        if known is not None and known.metadata.deletion_timestamp is not None:
            await marks.stuck(self.cluster, kind, item.key, known, marks.worded(error))


def class_of(error: Exception) -> str:
    """Return the class of an error, one of few."""
    if isinstance(error, ApiError | NotOurs):
        return "kube_api"
    return "timeout" if isinstance(error, TimeoutError) else "bug"
