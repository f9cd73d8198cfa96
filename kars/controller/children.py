"""The objects that the controller made: what stands, and what it takes to bring that to what is wanted."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kars.kube.types import Key, Object, Type


class Brought(msgspec.Struct, frozen=True):
    """What it took: objects as they stand now, and how many requests were made."""

    objects: tuple[Object, ...]
    written: int


class Children:
    """Objects that bear our labels, held by watches; reading costs no request."""

    def find(self, kind: Type, key: Key) -> Object | None:
        """Return what stands, pruned to what a plan can say: metadata, spec, data; of a Secret, digests of its data."""
        raise NotImplementedError

    def find_all(self, kind: Type, *, namespace: str = "") -> list[tuple[Key, Object]]:
        """Return every object of a kind that we made, of one namespace or of all."""
        raise NotImplementedError

    async def bring(self, wanted: Sequence[Object], *, manager: str) -> Brought:
        """Apply in order what does not stand as wanted; what does costs nothing."""
        raise NotImplementedError

    async def remove(self, kind: Type, key: Key) -> bool:
        """Delete one of ours when it is there; false when it was not. What bears no label of ours is left alone."""
        raise NotImplementedError
