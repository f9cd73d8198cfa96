"""A collection that is followed: every state of every object once, decoded as far as somebody asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import aiohttp
import msgspec

from tests.cluster.api import ApiError
from tests.cluster.watching import Session

Seen = TypeVar("Seen")

PAUSE_SECONDS = 0.2
WATCH_SECONDS = 3000


class Where(msgspec.Struct, rename="camel"):
    """As much of an object as a watch has to know."""

    resource_version: str = ""
    name: str = ""
    namespace: str = ""


class Bare(msgspec.Struct):
    """An object, as far as the above."""

    metadata: Where


class Event(msgspec.Struct):
    """A line of a watch; the object is decoded by its type."""

    type: str
    object: msgspec.Raw


class Page(msgspec.Struct):
    """A list."""

    metadata: Where
    items: list[msgspec.Raw] = []


class Watch(Generic[Seen]):
    """Lists and watches one collection; `changed(object, gone)` is told of every state."""

    def __init__(
        self,
        session: Session,
        path: str,
        changed: Callable[[Any, bool], None],
        kind: Any = dict[str, Any],
        **query: str,
    ) -> None:
        self.session = session
        self.path = path
        self.changed = changed
        self.decoder = msgspec.json.Decoder(kind)
        self.query = query
        self.versions: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            with contextlib.suppress(ApiError, OSError, TimeoutError, aiohttp.ClientError):
                version = await self.list()
                self.ready.set()
                while version:
                    version = await self.watch(version)
            await asyncio.sleep(PAUSE_SECONDS)

    async def get(self, **query: str) -> Any:
        """Begin a request."""
        return self.session.http.get(
            self.session.url + self.path,
            params={**self.query, **query},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        )

    async def list(self) -> str:
        """Read the collection; its version."""
        async with await self.get() as answer:
            if answer.status != 200:
                return ""
            page = msgspec.json.decode(await answer.read(), type=Page)
        fresh = set()
        for raw in page.items:
            where = msgspec.json.decode(raw, type=Bare).metadata
            fresh.add((where.namespace, where.name))
            self.take("MODIFIED", raw)
        for key in self.versions.keys() - fresh:
            self.changed(self.decoder.decode(self.versions.pop(key)[1]), True)
        return page.metadata.resource_version

    async def watch(self, version: str) -> str:
        """Follow changes; the version to go on from, empty when only a list helps."""
        follow = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        async with await self.get(**follow, resourceVersion=version) as answer:
            if answer.status != 200:
                return ""
            async for line in answer.content:
                event = msgspec.json.decode(line, type=Event)
                if event.type == "ERROR":
                    return ""
                version = self.take(event.type, event.object)
        return version

    def take(self, what: str, raw: msgspec.Raw) -> str:
        """Take in one state; its version."""
        where = msgspec.json.decode(raw, type=Bare).metadata
        if what == "BOOKMARK":
            return where.resource_version
        key = (where.namespace, where.name)
        if what == "DELETED":
            self.versions.pop(key, None)
        elif self.versions.get(key, ("",))[0] == where.resource_version:
            return where.resource_version
        else:
            # A copy of the bytes that identify it is enough to tell that it went while nobody watched.
            self.versions[key] = (where.resource_version, bytes(raw))
        self.changed(self.decoder.decode(raw), what == "DELETED")
        return where.resource_version
