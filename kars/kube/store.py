"""What an informer holds, and which of two states of an object is the newer one. No connection, no clock.

A state comes by three ways that overtake each other: the watch (in order), a list (one moment), and the answers of our
own writes. Resource versions of one kind are decimal numbers that grow (kube-apiserver always had it so; promised since
1.35, KEP-5504): older states are told by them. Versions of another form are only compared for equality: then our own
write stands until the watch delivers that very version; when it does not in time, `settle` says that only a list helps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

from kars.kube import types
from kars.kube.types import Key, Object

Kept = TypeVar("Kept")

# States of the watch that are remembered where versions cannot be ordered: what a write's answer is late by.
RECENT = 1024
# The promise is 128 bits; anything longer is no version of that form.
DIGITS = 39


class Change(NamedTuple, Generic[Kept]):
    """What became of an object; None where it was not, or is no more."""

    key: Key
    before: Kept | None
    after: Kept | None


class Store(Generic[Kept]):
    """Holds what `keep` makes of every object. Every method returns what changed.

    `fault` is told of an object that `keep` raises on; its state before stays.
    """

    def __init__(self, keep: Callable[[Object], Kept], fault: Callable[[Key, Exception], None]) -> None:
        self.keep = keep
        self.fault = fault
        self.held: dict[Key, tuple[str, Kept]] = {}
        # How far the watch, or the list before it, has come.
        self.position = ""
        # Writes of ours that the watch has not delivered yet, where versions cannot be ordered.
        self.pending: dict[Key, str] = {}
        self.recent: deque[tuple[Key, str]] = deque(maxlen=RECENT)

    def told(self, event: str, value: Object) -> Change[Kept] | None:
        """Take in an event of the watch: ADDED, MODIFIED, DELETED or BOOKMARK."""
        version = version_of(value)
        if event == "BOOKMARK":
            self.position = version or self.position
            return None
        key = types.key(value)
        try:
            return self.advance(event, key, version, value)
        finally:
            self.position = version or self.position

    def advance(self, event: str, key: Key, version: str, value: Object) -> Change[Kept] | None:
        """Take in one state in the watch's order."""
        if self.pending.get(key, version) != version:
            return None
        self.pending.pop(key, None)
        if not number(version):
            self.recent.append((key, version))
        held = self.held.get(key)
        if held is not None and older(version, held[0]):
            return None
        return self.drop(key) if event == "DELETED" else self.take(key, version, value)

    def put(self, value: Object) -> Change[Kept] | None:
        """Take in the answer of a write."""
        key, version = types.key(value), version_of(value)
        held = self.held.get(key)
        if not version or (held is not None and (held[0] == version or older(version, held[0]))):
            return None
        if number(version) and number(self.position):
            # The watch has been past this version: what is held is as new, or the object is gone again.
            if int(version) <= int(self.position):
                return None
        elif not number(version):
            if (key, version) in self.recent:
                return None
            self.pending[key] = version
        return self.take(key, version, value)

    def settle(self, key: Key, version: str) -> bool:
        """Stop waiting for a write; whether the watch did not deliver it, so that only a list can say what stands."""
        if self.pending.get(key) != version:
            return False
        del self.pending[key]
        return True

    def take(self, key: Key, version: str, value: Object) -> Change[Kept] | None:
        """Hold a state; nothing changes when it is the one that is held."""
        held = self.held.get(key)
        if held is not None and held[0] == version:
            return None
        try:
            kept = self.keep(value)
        except Exception as error:  # noqa: BLE001 - what an object holds is the cluster's users' choice
            self.fault(key, error)
            return None
        self.held[key] = (version, kept)
        return Change(key, None if held is None else held[1], kept)

    def drop(self, key: Key) -> Change[Kept] | None:
        """Hold an object no longer."""
        held = self.held.pop(key, None)
        return None if held is None else Change(key, held[1], None)


class Listing(Generic[Kept]):
    """A list that is being taken in, page for page."""

    def __init__(self, store: Store[Kept]) -> None:
        self.store = store
        self.keys: set[Key] = set()
        # A cluster that was restored from a backup counts from before: then no state of ours is the newer one.
        self.restored = False

    def page(self, objects: Iterable[Object], version: str) -> Iterator[Change[Kept] | None]:
        """Take in a page of the list that was made at `version`; go through all of it."""
        store = self.store
        self.restored = older(version, store.position)
        if self.restored:
            store.pending.clear()
        for value in objects:
            key, seen = types.key(value), version_of(value)
            self.keys.add(key)
            held = store.held.get(key)
            if key in store.pending or (held is not None and older(seen, held[0]) and not self.restored):
                continue
            yield store.take(key, seen, value)

    def finish(self, version: str) -> Iterator[Change[Kept] | None]:
        """Drop what the list does not hold, but not what we wrote after it was made; go through all of it."""
        store = self.store
        for key in [key for key in store.held if key not in self.keys]:
            newer = key in store.pending or older(version, store.held[key][0])
            if self.restored or not newer:
                yield store.drop(key)
        store.position = version


def version_of(value: Object) -> str:
    """Return the resource version of an object; empty when it bears none."""
    return value["metadata"].get("resourceVersion") or ""


def number(version: str) -> bool:
    """Say whether a version is a decimal number as KEP-5504 promises."""
    return version.isascii() and version.isdigit() and version[0] != "0" and len(version) <= DIGITS


def older(one: str, other: str) -> bool:
    """Say whether a version is surely older than another."""
    return number(one) and number(other) and int(one) < int(other)
