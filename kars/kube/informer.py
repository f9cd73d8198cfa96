"""List and watch one kind, hold what was seen, and tell of every change.

A watch resumes from its last resource version or bookmark; a version that is too old, or a stream that stays silent
longer than it may, means listing again. An object that vanished while nobody watched is told as deleted.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Generic, TypedDict, TypeVar

from kars.kube import jitter, selector
from kars.kube.client import Client
from kars.kube.errors import ApiError, Busy, Gone, Invalid
from kars.kube.store import Change, Listing, Store, number, older, version_of
from kars.kube.types import Key, Object, Type

Kept = TypeVar("Kept")

log = logging.getLogger("kars.kube")

# Seconds between attempts: the first, and the longest. A cluster that comes back is seen again within ten seconds.
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0
# Seconds that a watch must have lasted for the pauses to begin anew.
GOOD_STRETCH = 20.0
# A watch that ended within a second and brought nothing counts as failed, or a broken server is asked in a hot loop.
NO_WATCH = 1.0
# Failed watches in a row after which the version itself is suspected.
SUSPECT = 5
# Seconds without an event or bookmark after which a watch that seems to work is taken for deaf. A kind of which nothing
# happened since the API server started gets no bookmarks either, so this is what a list of it costs now and then.
DEAF = 1800.0
# Seconds over which informers spread the lists that one restart of the API server makes them all do.
SPREAD = 0.5
# Seconds that a write's answer stands against a watch whose versions cannot be ordered.
SETTLE = 10.0
# The longest wait that a server can make us take; it may not silence us for an hour.
LONGEST_ASKED = 60.0


class Scope(TypedDict):
    """Which objects of the kind are watched."""

    namespace: str
    labels: str
    fields: str


class Informer(Generic[Kept]):
    """Holds what `keep` makes of every object of a kind; `changed(key, before, after)` is called in the loop's thread.

    `before` is None for a new object, `after` for a deleted one. `keep` must not hold on to an object that is large.
    When either of them raises, that is logged and counted in `faults`; of an object that `keep` fails on, the state
    before stays.

    For readiness and metrics: `seen` is when (`time.monotonic`) the API server last gave a sign of life to this
    watch; on a quiet one that is every `client.SILENCE` seconds, when it is opened anew. `relists`, `reconnects`,
    `failures` and `events` count.
    """

    def __init__(  # noqa: PLR0913 - a watch has as many sides
        self,
        client: Client,
        kind: Type,
        *,
        keep: Callable[[Object], Kept],
        changed: Callable[[Key, Kept | None, Kept | None], None] | None = None,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        seconds: int = 200,
    ) -> None:
        self.client = client
        self.kind = kind
        self.changed = changed
        self.scope = Scope(namespace=namespace, labels=labels, fields=fields)
        self.seconds = seconds
        self.store: Store[Kept] = Store(keep, self.fault)
        self.synced = asyncio.Event()
        self.seen = float("-inf")
        self.heard = float("-inf")
        self.doubtful = False
        self.relists = self.reconnects = self.failures = self.events = self.faults = 0

    async def run(self) -> None:
        """Watch until cancelled; errors are logged, counted and retried with backoff and jitter."""
        listed = False
        bad = 0  # failures in a row
        broke = False
        while True:
            began, events, asked = time.monotonic(), self.events, 0.0
            try:
                deaf = began - self.heard > DEAF
                if not listed or self.doubtful or deaf or (broke and await self.rewound()):
                    await self.relist()
                    listed = True
                broke = False
                await self.follow()
                fine = self.events > events or time.monotonic() - began >= NO_WATCH
            except Gone:
                listed = fine = False
                await asyncio.sleep(jitter.between(0, SPREAD))
            except ApiError as error:
                fine, broke = False, True
                self.failures += 1
                asked = min(error.after or 0.0, LONGEST_ASKED) if isinstance(error, Busy) else 0.0
                listed = listed and not isinstance(error, Invalid) and bad + 1 < SUSPECT
                self.complain(error, bad)
            good = self.events > events or time.monotonic() - began >= GOOD_STRETCH
            bad = 0 if fine else 1 if good else bad + 1
            if bad:
                await asyncio.sleep(max(asked, pause(bad)))

    async def relist(self) -> None:
        """Read everything and tell what is different."""
        self.relists += 1
        self.doubtful = False
        listing = Listing(self.store)
        version = ""
        async with aclosing(self.client.pages(self.kind, **self.scope)) as pages:
            async for objects, version in pages:
                self.alive(heard=True)
                for change in listing.page(objects, version):
                    self.tell(change)
        for change in listing.finish(version):
            self.tell(change)
        self.synced.set()

    async def rewound(self) -> bool:
        """Say whether the server has gone back behind what we saw, as after a restore of its backup.

        Then it would take our version for one of the future, and a watch from there would be silent until it has come.
        """
        async with aclosing(self.client.pages(self.kind, page=1, **self.scope)) as pages:
            async for _, version in pages:
                return older(version, self.store.position)
        return False

    async def follow(self) -> None:
        """Watch from where we are until the watch ends."""
        self.reconnects += 1
        version = self.store.position
        watch = self.client.watch(self.kind, version=version, seconds=self.seconds, opened=self.alive, **self.scope)
        async with aclosing(watch) as stream:
            async for event, value in stream:
                self.alive(heard=True)
                self.events += 1
                self.tell(self.store.told(event, value))
                if self.doubtful:
                    return

    def get(self, key: Key) -> Kept | None:
        """Return what is held of an object."""
        held = self.store.held.get(key)
        return None if held is None else held[1]

    def items(self) -> Iterator[tuple[Key, Kept]]:
        """Go through everything that is held, as it stands now."""
        return iter([(key, kept) for key, (_, kept) in self.store.held.items()])

    def put(self, value: Object) -> None:
        """Take in the answer of a write at once, so that the next look does not see the state before it.

        An older version that the watch still delivers does not undo it. `changed` is called as for any change. An
        object that this watch would not deliver, or may not, is left alone.
        """
        if value.get("kind") != self.kind.kind or not selector.accepts(value, **self.scope):
            return
        version = version_of(value)
        change = self.store.put(value)
        if change is not None and not number(version):
            loop = asyncio.get_running_loop()
            loop.call_later(SETTLE, self.settle, change.key, version)
        self.tell(change)

    def settle(self, key: Key, version: str) -> None:
        """List again when the watch did not deliver a write of ours."""
        self.doubtful = self.store.settle(key, version) or self.doubtful

    def __len__(self) -> int:
        return len(self.store.held)

    def tell(self, change: Change[Kept] | None) -> None:
        """Hand on a change; what that raises stays here."""
        if change is None or self.changed is None:
            return
        try:
            self.changed(*change)
        except Exception as error:  # noqa: BLE001 - one object's trouble must not end the watch of all
            self.fault(change.key, error)

    def fault(self, key: Key, error: Exception) -> None:
        """Log where something went wrong over an object; not the error's text, which may hold what the object holds."""
        self.faults += 1
        where = traceback.extract_tb(error.__traceback__)[-1:]
        at = f"{where[0].filename}:{where[0].lineno}" if where else "?"
        log.error("kube.fault kind=%s object=%s error=%s at=%s", self.kind.kind, key, type(error).__name__, at)

    def alive(self, *, heard: bool = False) -> None:
        """Note a sign of life."""
        self.seen = time.monotonic()
        if heard:
            self.heard = self.seen

    def complain(self, error: ApiError, bad: int) -> None:
        """Log a failure: the first of a row and every tenth."""
        if bad % 10 == 0:
            log.warning("kube.watch kind=%s failures=%d error=%s", self.kind.kind, bad + 1, error)


def pause(bad: int) -> float:
    """Return how many seconds to wait after so many failures in a row."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(bad - 1, 10)) * jitter.between(0.5, 1.0)
