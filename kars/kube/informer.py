"""List and watch one kind, hold what was seen, and tell of every change.

A watch resumes from its last resource version or bookmark; a version that is too old, or a stream that stays silent
longer than it may, means listing again. An object that vanished while nobody watched is told as deleted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from kars.kube.client import Client
from kars.kube.types import Key, Object, Type

Kept = TypeVar("Kept")


class Informer(Generic[Kept]):
    """Holds what `keep` makes of every object of a kind; `changed(key, before, after)` is called in the loop's thread.

    `before` is None for a new object, `after` for a deleted one. `keep` must not hold on to the object when that is large.
    """

    def __init__(
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
        self.kind = kind
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled; errors are logged, counted and retried with backoff and jitter."""
        raise NotImplementedError

    def get(self, key: Key) -> Kept | None:
        """Return what is held of an object."""
        raise NotImplementedError

    def items(self) -> Iterator[tuple[Key, Kept]]:
        """Go through everything that is held."""
        raise NotImplementedError

    def put(self, value: Object) -> None:
        """Take in the answer of a write at once, so that the next look does not see the state before it.

        An older version that the watch still delivers does not undo it.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError
