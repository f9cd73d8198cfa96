"""The objects that the controller made: what stands, and what it takes to bring that to what is wanted."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar

from kars.controller.held import Held, Packer, owner_of
from kars.controller.index import place
from kars.controller.reconcile import Temporary
from kars.desired import match, names
from kars.desired.plan import stamp
from kars.errors import FailureError
from kars.kube import types
from kars.kube.client import Client
from kars.kube.errors import Conflict, Forbidden, Invalid, Missing
from kars.kube.informer import Informer
from kars.kube.types import Key, Object, Type

log = logging.getLogger(__name__)

# A namespace takes seconds to go, and as long as its slowest finalizer.
TERMINATING_PAUSE = 5.0
# Secrets whose contents are made by chance: whoever was given one goes on with it, so it is never written over.
TOKENS = frozenset({names.GATEWAY_TOKEN, names.ADMIN_TOKEN})
IMMUTABLE = re.compile(r"immutable|may not be changed|cannot be changed|is forbidden after creation")


# What is being reconciled in this task: kind and key. It is not woken by what it writes itself.
Doer = tuple[str, Key] | None
current: ContextVar[Doer] = ContextVar("current", default=None)


class NotOurs(FailureError):
    """An object of that name belongs to somebody else; nothing was changed."""

    code = "not_ours"


class Immutable(Invalid):
    """A field that differs cannot be changed on the object that stands."""


class Children:
    """Objects that bear our labels, held by watches; reading costs no request."""

    def __init__(self, client: Client, informers: Mapping[str, Informer[Held]], packers: Mapping[str, Packer]) -> None:
        self.client = client
        self.informers = informers
        self.packers = packers
        # Where the objects of a kind are, by namespace, of kinds that somebody asked about so.
        self.places: dict[str, dict[str, set[Key]]] = {}
        # Applies under way: the stamp, and who makes them. The watch may tell of one before its answer is here.
        self.writing: dict[tuple[str, Key], tuple[str, Doer]] = {}

    def find(self, kind: Type, key: Key) -> Object | None:
        """Return what stands, pruned to what a plan can say: metadata, spec, data; of a Secret, digests of its data.

        Also the numbers of a status, and its conditions without times. Asking for a kind that is not watched (see
        `cluster.CHILDREN`) is a KeyError.
        """
        found = self.informers[kind.kind].get(key)
        return None if found is None else self.packers[kind.kind].unpack(found)

    def find_all(self, kind: Type, *, namespace: str) -> list[tuple[Key, Object]]:
        """Return every object of a kind that we made in a namespace."""
        found = ((key, self.find(kind, key)) for key in self.keys(kind, namespace=namespace))
        return [(key, value) for key, value in found if value is not None]

    def keys(self, kind: Type, *, namespace: str) -> tuple[Key, ...]:
        """Return where the objects of a kind are that we made in a namespace; the first time of all is a search."""
        places = self.places.get(kind.kind)
        if places is None:
            places = self.places[kind.kind] = {}
            for key, _ in self.informers[kind.kind].items():  # noqa: PERF102 - no dictionary
                place(places, key.namespace, key, there=True)
        return tuple(sorted(places.get(namespace, ())))

    def place(self, kind: str, key: Key, *, there: bool) -> None:
        """Note that an object came or went."""
        places = self.places.get(kind)
        if places is not None:
            place(places, key.namespace, key, there=there)

    async def bring(self, wanted: Sequence[Object], *, manager: str) -> int:
        """Apply in order what does not stand as wanted; what does costs nothing. Returns how many requests that took.

        Raises `NotOurs` before anything is written when a Namespace among them is not this sandbox's own, `Temporary`
        while it is going, `Immutable` when a difference needs a new object.
        """
        written = 0
        for value in wanted:
            written += await self.bring_one(value, manager=manager)
        return written

    async def bring_one(self, value: Object, *, manager: str) -> int:
        """Bring one object; returns how many requests that took."""
        kind, key = types.of(value), types.key(value)
        informer = self.informers[kind.kind]
        found = informer.get(key)
        if kind is types.NAMESPACE:
            made = await self.claim(value, found, manager=manager)
            if made:
                return made
            found = informer.get(key)
        elif kind is types.SECRET and key.name in TOKENS and found is None:
            return await self.issue(value, manager=manager)
        if found is not None and self.stands(value, found, kind):
            return 0
        with self.doing(value, kind, key):
            answer = await self.apply(value, key, manager=manager)
            informer.put(answer)
        self.settle(value, answer, kind, key)
        return 1

    @contextlib.contextmanager
    def doing(self, value: Object, kind: Type, key: Key) -> Iterator[None]:
        """Note that an object is being written, and by whom."""
        self.writing[kind.kind, key] = match.stamp_of(value), current.get()
        try:
            yield
        finally:
            del self.writing[kind.kind, key]

    def confirmed(self, kind: Type, key: Key, stamp: str) -> bool:
        """Whether an object stands as it was brought with this stamp, without making it anew to compare."""
        found = self.informers[kind.kind].get(key)
        return found is not None and not found.deleting and stamp != "" and found.stamp == found.checked == stamp

    def stands(self, value: Object, found: Held, kind: Type) -> bool:
        """Whether an object is as planned. That is found out once for each state of it."""
        stamp = match.stamp_of(value)
        if found.deleting or not stamp or stamp != found.stamp:
            return False
        if found.checked == stamp:
            return True
        if match.stands(value, self.packers[kind.kind].unpack(found)):
            found.checked = stamp
            return True
        return False

    def settle(self, value: Object, answer: Object, kind: Type, key: Key) -> None:
        """Note what the API server made of an apply: asking for the same again would change nothing.

        A field that admission changes or drops would else be applied anew on every look.
        """
        found = self.informers[kind.kind].get(key)
        version = answer["metadata"].get("uid", "")
        stamp = match.stamp_of(value)
        if found is None or found.uid != version or found.stamp != stamp or found.checked == stamp:
            return
        if not match.stands(value, self.packers[kind.kind].unpack(found)):
            log.info("children.altered", extra={"object": f"{kind.kind} {key}"})
        found.checked = stamp

    async def apply(self, value: Object, key: Key, *, manager: str) -> Object:
        """Apply one object, and name what went wrong by it."""
        with self.named(value, key):
            return await self.client.apply(value, manager=manager)

    @contextlib.contextmanager
    def named(self, value: Object, key: Key) -> Iterator[None]:
        """Name what goes wrong with a write by the object, and tell what passes from what does not."""
        where = f"{value['kind']} {key}"
        try:
            yield
        except Invalid as error:
            if IMMUTABLE.search(str(error)):
                raise Immutable(
                    f"{where} cannot be changed to what is wanted: {error}",
                    status=error.status,
                    reason="ImmutableField",
                    hint="delete it; it is made anew",
                ) from error
            raise
        except Forbidden as error:
            if "being terminated" in str(error):
                raise Temporary(f"namespace {key.namespace} is going", delay=TERMINATING_PAUSE) from error
            raise
        except Missing as error:
            raise Temporary(f"{where}: its namespace is not there") from error

    async def claim(self, value: Object, found: Held | None, *, manager: str) -> int:
        """Make sure that a namespace is this sandbox's own; make it, by so many requests, when it is not there.

        It is created, not applied, so that one that exists is never taken over by force.
        """
        if found is not None:
            refuse_foreign(value, found.owner, found.stamp, deleting=found.deleting)
            return 0
        key = types.key(value)
        try:
            with self.doing(value, types.NAMESPACE, key):
                answer = await self.client.create(value, manager=manager)
                self.informers[value["kind"]].put(answer)
        except Conflict:
            there = await self.client.get(types.NAMESPACE, key)
            has = owner_of(there["metadata"].get("labels") or {})
            refuse_foreign(value, has, match.stamp_of(there), deleting="deletionTimestamp" in there["metadata"])
            return 0
        self.settle(value, answer, types.NAMESPACE, key)
        return 1

    async def issue(self, value: Object, *, manager: str) -> int:
        """Create a token's Secret; one that is there, and that the watch does not show, keeps its token."""
        key, informer = types.key(value), self.informers[types.SECRET.kind]
        try:
            with self.doing(value, types.SECRET, key), self.named(value, key):
                informer.put(await self.client.create(value, manager=manager))
        except Conflict:
            there = await self.client.get(types.SECRET, key)
            kept = stamp({**value, "data": {**value["data"], **(there.get("data") or {})}})
            with self.doing(kept, types.SECRET, key):
                informer.put(await self.apply(kept, key, manager=manager))
            return 3
        return 1

    async def remove(self, kind: Type, key: Key) -> bool:
        """Delete one of ours when it is there; false when it was not. What bears no label of ours is left alone.

        One that is going already is not deleted again.
        """
        found = self.informers[kind.kind].get(key)
        if found is None:
            return False
        if found.deleting:
            return True
        try:
            return await self.client.delete(kind, key, uid=found.uid)
        except Conflict:
            return False  # another one by now, which is not what was to be removed


def refuse_foreign(value: Object, has: str, stamped: str, *, deleting: bool) -> None:
    """Raise unless a namespace is this sandbox's by its labels, or by the stamp of this very plan, and stays.

    Labels that name nobody else may have been taken off by somebody; the stamp says what they were.
    """
    owner = owner_of(value["metadata"].get("labels") or {})
    lost = stamped and stamped == match.stamp_of(value) and agree(has, owner)
    if has != owner and not lost:
        namespace, _, sandbox = owner.partition("/")
        raise NotOurs(
            f"namespace {value['metadata']['name']} is there and not labelled as this sandbox's",
            hint=f"to hand it over, label it {names.PARENT_NAMESPACE}={namespace} and {names.SANDBOX}={sandbox}",
        )
    if deleting:
        raise Temporary(f"namespace {value['metadata']['name']} is going", delay=TERMINATING_PAUSE)


def agree(has: str, owner: str) -> bool:
    """Whether what is left of two labels, each perhaps empty, contradicts nothing."""
    return all(one in ("", other) for one, other in zip(has.split("/"), owner.split("/"), strict=True))
