"""A pace for what is only on its way to something else, so that not every step of it is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Pace(Generic[Item]):
    """Holds back each item's first step for `first` seconds, and every other until `between` after the one before."""

    def __init__(self, *, first: float, between: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.first = first
        self.between = between
        self.clock = clock
        self.due: dict[Item, float] = {}

    def wait(self, item: Item) -> float:
        """Return the seconds until its next step may be told; 0 when that is now, and then it counts as told."""
        now = self.clock()
        due = self.due.setdefault(item, now + self.first)
        if now < due:
            return due - now
        self.due[item] = now + self.between
        return 0.0

    def forget(self, item: Item) -> None:
        """Begin anew: it has arrived, or is no more."""
        self.due.pop(item, None)
