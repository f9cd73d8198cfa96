"""An asynchronous account at the API server, and collections that it keeps up to date."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable, Mapping

import aiohttp

from tests.cluster.api import ApiError, Object

# Between two attempts to reach an API server that is away.
PAUSE_SECONDS = 0.2
# The server ends a watch after this; the next one goes on from the last version.
WATCH_SECONDS = 300
# An object is at most 1.5 MiB in etcd; JSON of a watch event is one line.
LINE_BYTES = 8 * 1024 * 1024

Key = tuple[str, str]


def key(value: Object) -> Key:
    """Namespace and name."""
    return value["metadata"].get("namespace", ""), value["metadata"]["name"]


def version_of(value: Object) -> str:
    """The version of an object or a list."""
    return str(value["metadata"]["resourceVersion"])


class Session:
    """Requests with one token; open inside the loop that uses it."""

    def __init__(self, url: str, *, authority: str, token: str) -> None:
        self.url = url
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(cadata=authority)),
            headers={"Authorization": f"Bearer {token}"},
            read_bufsize=LINE_BYTES,
        )

    async def request(
        self, method: str, path: str, body: object = None, *, content: str = "application/json", **query: str
    ) -> Object:
        """Send one request; the decoded answer. An `ApiError` for every status from 400 on."""
        async with self.http.request(
            method,
            self.url + path,
            params=query,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": content},
            timeout=aiohttp.ClientTimeout(total=30),
        ) as answer:
            found: Object = await answer.json(content_type=None)
            if answer.status >= 400:
                raise ApiError(method, path, answer.status, found)
            return found

    async def persist(
        self, method: str, path: str, body: Mapping[str, object], *, content: str = "application/json"
    ) -> Object | None:
        """Send until the API server takes it, through its restarts; None when what it is about is gone."""
        while True:
            try:
                return await self.request(method, path, body, content=content)
            except ApiError as error:
                if error.status in {404, 409}:
                    return None
                if error.status not in {429, 500, 503, 504}:
                    raise
            except (OSError, TimeoutError, aiohttp.ClientError):
                pass
            await asyncio.sleep(PAUSE_SECONDS)

    async def close(self) -> None:
        """Close every connection."""
        await self.http.close()


class Mirror:
    """A collection as the API server has it; `changed(object, gone)` is called for every change."""

    def __init__(self, session: Session, path: str, changed: Callable[[Object, bool], None], **query: str) -> None:
        self.session = session
        self.path = path
        self.changed = changed
        self.query = query
        self.objects: dict[Key, Object] = {}
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """List, watch, and begin anew when the watch cannot go on; until cancelled."""
        while True:
            with contextlib.suppress(ApiError, OSError, TimeoutError, aiohttp.ClientError):
                version = await self.list()
                self.ready.set()
                while version:
                    version = await self.watch(version)
            await asyncio.sleep(PAUSE_SECONDS)

    async def list(self) -> str:
        """Read the whole collection; its version."""
        found = await self.session.request("GET", self.path, **self.query)
        fresh = {key(one): one for one in found["items"]}
        for name in self.objects.keys() - fresh.keys():
            self.changed(self.objects.pop(name), True)
        for name, one in fresh.items():
            before = self.objects.get(name)
            self.objects[name] = one
            if before is None or before["metadata"]["resourceVersion"] != one["metadata"]["resourceVersion"]:
                self.changed(one, False)
        return version_of(found)

    async def watch(self, version: str) -> str:
        """Follow changes from a version on; the version to go on from, empty when only a new list helps."""
        query = {**self.query, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        async with self.session.http.get(
            self.session.url + self.path,
            params={**query, "resourceVersion": version},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        ) as answer:
            if answer.status != 200:
                return ""
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return ""
                version = self.take(event["type"], event["object"])
        return version

    def take(self, what: str, value: Object) -> str:
        """Take in one event; its version."""
        if what == "DELETED":
            self.objects.pop(key(value), None)
            self.changed(value, True)
        elif what != "BOOKMARK":
            self.objects[key(value)] = value
            self.changed(value, False)
        return version_of(value)
