"""Keys that wait to be looked at: one worker a key, no key twice, what was begun first, turns between kinds, backoff.

`Schedule` decides and is given the time; `Queue` waits by the loop's clock.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kars.kube.types import Key

# First and longest pause of a key that keeps failing, in seconds: quick after a hiccup, and no key that is broken for
# good costs more than a few attempts an hour.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 300.0
# 0.5 s doubled so often is past any pause; more failures than that need not be counted.
MOST_FAILURES = 20
# So many items in a row that were looked at before are taken while new ones wait.
KNOWN_IN_A_ROW = 3
# Superseded entries of the heap that are put up with before it is made anew.
STALE_ENTRIES = 64


class Item(NamedTuple):
    """One thing to look at: the kind of resource, and which one."""

    kind: str
    key: Key

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


class Waiting:
    """Ready items of one kind: what was looked at before goes before what is new, each sort in its order.

    So the first of a thousand new ones is ready long before the last is begun, and a change waits for none of them.
    Every fourth is a new one all the same: what is always busy keeps nobody out.
    """

    def __init__(self) -> None:
        self.known: deque[Item] = deque()
        self.new: deque[Item] = deque()
        self.row = 0

    def __len__(self) -> int:
        return len(self.known) + len(self.new)

    def take(self) -> Item:
        """Take the next item; there must be one."""
        if self.new and (not self.known or self.row >= KNOWN_IN_A_ROW):
            self.row = 0
            return self.new.popleft()
        self.row += 1
        return self.known.popleft()

    def first(self) -> Iterator[Item]:
        """Go through the items that wait longest, one of each sort."""
        return (items[0] for items in (self.known, self.new) if items)


class Schedule:
    """What waits, what is due, what is under way. Every operation is O(log n); times are seconds of one clock."""

    def __init__(self, *, share: int) -> None:
        # How many items of one kind may be under way while others wait, so that a slow kind never holds every worker.
        self.share = share
        self.ready: OrderedDict[str, Waiting] = OrderedDict()  # kinds in the order of their turns
        self.since: dict[Item, float] = {}  # when a ready item became so
        self.heap: list[tuple[float, int, Item]] = []
        self.due: dict[Item, float] = {}
        self.sequence = 0
        self.active: dict[Item, float] = {}  # under way; when they had become ready
        self.busy: dict[str, int] = {}  # how many of a kind are under way
        self.again: dict[Item, float] = {}  # under way and wanted again, from when on
        self.known: set[Item] = set()  # looked at before, and wanted again

    def add(self, item: Item, now: float) -> None:
        """Make an item ready; one that is under way is looked at again afterwards."""
        if item in self.active:
            self.again[item] = min(now, self.again.get(item, now))
        elif item not in self.since:
            self.due.pop(item, None)
            self.since[item] = now
            waiting = self.ready.setdefault(item.kind, Waiting())
            (waiting.known if item in self.known else waiting.new).append(item)

    def add_at(self, item: Item, at: float, now: float) -> None:
        """Make an item ready at a time; the earliest of several wins."""
        if at <= now:
            self.add(item, now)
        elif item in self.active:
            self.again[item] = min(at, self.again.get(item, at))
        elif item not in self.since and at < self.due.get(item, float("inf")):
            self.due[item] = at
            self.sequence += 1
            heapq.heappush(self.heap, (at, self.sequence, item))
            self.compact()

    def compact(self) -> None:
        """Make the heap anew when most of it was superseded."""
        if len(self.heap) > 2 * len(self.due) + STALE_ENTRIES:
            self.heap = [(at, number, item) for number, (item, at) in enumerate(self.due.items())]
            self.sequence = len(self.heap)
            heapq.heapify(self.heap)

    def promote(self, now: float) -> None:
        """Make ready what is due."""
        while self.heap and self.heap[0][0] <= now:
            at, _, item = heapq.heappop(self.heap)
            if self.due.get(item) == at:
                self.add(item, now)

    def next_due(self) -> float | None:
        """Return when the next delayed item is due; it may be one that was superseded."""
        return self.heap[0][0] if self.heap else None

    def take(self, now: float) -> Item | None:
        """Take the next item, kinds in turn; None when nothing is ready that may be taken."""
        self.promote(now)
        for kind in self.ready:
            if self.busy.get(kind, 0) < self.share:
                break
        else:
            return None
        waiting = self.ready.pop(kind)
        item = waiting.take()
        if waiting:
            self.ready[kind] = waiting  # at the end: the others come first
        self.active[item] = self.since.pop(item)
        self.busy[kind] = self.busy.get(kind, 0) + 1
        return item

    def done(self, item: Item, now: float) -> None:
        """Note that an item is no longer under way."""
        del self.active[item]
        self.busy[item.kind] -= 1
        again = self.again.pop(item, None)
        if again is None:
            self.known.discard(item)
        else:
            self.known.add(item)
            self.add_at(item, again, now)

    def depth(self, kind: str) -> int:
        """Return how many items of a kind are ready and wait for a worker."""
        return len(self.ready.get(kind, ()))

    def age(self, kind: str, now: float) -> float:
        """Return how many seconds the one that waits longest has been ready."""
        waiting = self.ready.get(kind)
        return now - min(self.since[item] for item in waiting.first()) if waiting else 0.0


def pause(failures: int, *, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> float:
    """Return how long to wait after so many failures in a row: full jitter below an exponential bound.

    See "Exponential Backoff And Jitter" (AWS Architecture Blog); a tenth of the bound is the least, so that chance
    never makes a hot loop.
    """
    bound = min(longest, first * 2.0 ** min(failures, MOST_FAILURES))
    return random.uniform(bound / 10, bound)  # noqa: S311 - spreads load, keeps no secret


def jittered(seconds: float, *, by: float = 0.2) -> float:
    """Return a time that is up to a fifth longer or shorter, so that what began together does not stay together."""
    return seconds * random.uniform(1 - by, 1 + by)  # noqa: S311 - spreads load, keeps no secret


class Queue:
    """A `Schedule` that can be waited on, in one loop."""

    def __init__(
        self,
        *,
        workers: int,
        clock: Callable[[], float] | None = None,
        waited: Callable[[str, float], None] = lambda _kind, _seconds: None,
    ) -> None:
        # Told of every item that is taken: its kind, and how many seconds it was ready.
        self.waited = waited
        self.clock = clock or asyncio.get_running_loop().time
        self.schedule = Schedule(share=max(1, workers * 3 // 4))
        self.failures: dict[Item, int] = {}
        self.waiters: deque[asyncio.Future[None]] = deque()
        # The alarm, and when it rings; an alarm for now may be a plain handle, which does not know (uvloop).
        self.timer: asyncio.Handle | None = None
        self.rings = 0.0
        self.closed = False

    def add(self, item: Item, *, after: float = 0.0) -> None:
        """Have an item looked at now, or after so many seconds."""
        now = self.clock()
        self.schedule.add_at(item, now + after, now)
        self.wake()

    def retry(
        self, item: Item, *, after: float | None = None, first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE
    ) -> float:
        """Have an item looked at again after a failure; returns in how many seconds.

        Without `after` the pause grows with every failure in a row, from `first` to `longest`.
        """
        failures = self.failures[item] = min(self.failures.get(item, -1) + 1, MOST_FAILURES)
        delay = pause(failures, first=first, longest=longest) if after is None else jittered(after)
        self.add(item, after=delay)
        return delay

    def crowded(self, least: float, *, rate: float) -> float:
        """Return how long each of those that fail must wait for all of them to try `rate` times a second at most."""
        return max(least, len(self.failures) / rate)

    def forget(self, item: Item) -> None:
        """Note a success: the next failure is the first in a row."""
        self.failures.pop(item, None)

    async def take(self) -> Item | None:
        """Wait for the next item; None once the queue is closed. Dropping it loses nothing."""
        while not self.closed:
            now = self.clock()
            item = self.schedule.take(now)
            if item is not None:
                self.waited(item.kind, now - self.schedule.active[item])
                self.wake()  # there may be more than one
                return item
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            self.arm()
            try:
                await waiter
            except asyncio.CancelledError:
                self.pass_on(waiter)
                raise
        return None

    def pass_on(self, waiter: asyncio.Future[None]) -> None:
        """Wake another in place of one that was cancelled, perhaps after it was woken."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)
        else:
            self.wake()

    def done(self, item: Item) -> None:
        """Note that an item is no longer under way; a worker of its kind may be free to go on."""
        self.schedule.done(item, self.clock())
        self.wake()

    def wake(self) -> None:
        """Wake one who waits when there is something to take, or set the alarm for when there will be."""
        self.schedule.promote(self.clock())
        if self.closed or self.schedule.ready:
            while self.waiters:
                waiter = self.waiters.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    return
        self.arm()

    def arm(self) -> None:
        """Set the alarm for the next delayed item."""
        at = self.schedule.next_due()
        if self.timer is not None:
            if at is not None and self.rings <= at:
                return
            self.timer.cancel()
            self.timer = None
        if at is not None and not self.closed:
            self.timer, self.rings = asyncio.get_running_loop().call_at(at, self.ring), at

    def ring(self) -> None:
        """The alarm: something is due."""
        self.timer = None
        self.wake()

    def close(self) -> None:
        """Hand nothing out any more; who waits is told so."""
        self.closed = True
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def kinds(self) -> Iterator[str]:
        """Go through the kinds that have been seen."""
        return iter(tuple({*self.schedule.ready, *self.schedule.busy}))
