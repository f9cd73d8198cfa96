"""One connection pool to one API server, with raw objects in and out.

Requests go through the official client's REST layer, which brings kubeconfig, in-cluster accounts, exec plugins and
token renewal; JSON is read and written with msgspec. Every error is one of `kars.kube.errors`.

What may be sent twice (reads, server-side apply, delete) is sent again a few times when the server asks to wait a
moment or a connection broke; everything else is the caller's to repeat. A refused credential is read again once.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Self, TypeGuard

import msgspec

from kars.kube import answers, jitter, types
from kars.kube.errors import ApiError, Busy, Gone
from kars.kube.lines import Lines, TooLong
from kars.kube.request import APPLY, JSON, MERGE, OBJECT_LIMIT, Request, target_of
from kars.kube.types import Key, Object, Type

if TYPE_CHECKING:
    import aiohttp

    from kars.kube.transport import Transport

MANAGER = "kars-controller"
# One page of a collection; a page that is larger is asked for again with fewer objects.
PAGE_LIMIT = 32 << 20
# One line of a watch: an object and its envelope.
LINE_LIMIT = OBJECT_LIMIT
# How often a request that may be sent twice is sent in all.
ATTEMPTS = 3
# Seconds that a request waits for a server that asks to; longer waits are the caller's.
LONGEST_PAUSE = 5.0
# Shortest life of a token that the API server gives, in seconds.
LEAST_TOKEN = 600
# Seconds before a request is sent again over a new connection.
AGAIN = 0.1
# Seconds past its time that a watch may take to end.
SLACK = 15.0
# Seconds of nothing after which a watch counts as dead. Bookmarks come about once a minute.
SILENCE = 90.0

# Reason of what is not sent because another process may lead.
NOT_LEADING = "NotLeading"

KNOWN = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK"})

Objects = list[Object]


class Client:
    """A client; use `async with await Client.connect()`."""

    def __init__(self, transport: Transport, *, timeout: float = 30.0) -> None:
        self.transport = transport
        self.timeout = timeout
        # Method, plural and status of every answer; 0 where none came. As many entries as kinds and statuses.
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.may: Callable[[], bool] | None = None

    @classmethod
    async def connect(cls, *, kubeconfig: str = "", context: str = "", timeout: float = 30.0) -> Self:  # noqa: ASYNC109 - of the requests to come
        """Find the API server: `kubeconfig`, else KUBECONFIG, else the account of the pod, else ~/.kube/config.

        Nothing is sent yet. `timeout` is how many seconds a request may take in all. `NotFoundError` when there is
        no account, `SettingsError` when it cannot be used; TLS is always verified.
        """
        # Costs half a second and 50 MB: the package imports its synchronous half, too.
        from kars.kube.transport import Transport

        return cls(await Transport.open(kubeconfig=kubeconfig, context=context), timeout=timeout)

    def fenced(self, may: Callable[[], bool]) -> Self:
        """Return a client over the same connections that writes only while `may` says so; `Busy` (NotLeading) else.

        It is asked again right before the bytes leave, so that a process that was stopped for long writes nothing when
        it goes on.
        """
        made = copy.copy(self)
        made.may = may
        return made

    @property
    def server(self) -> str:
        """The API server's address."""
        return self.transport.account.server

    @property
    def described(self) -> str:
        """Where the address and the credential come from, for messages."""
        return self.transport.account.described

    async def close(self) -> None:
        """Close every connection."""
        await self.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def version(self) -> tuple[int, int]:
        """Return major and minor version of the API server."""
        raw = await self.ask(Request(method="GET", target="/version", of="version", what="version", twice=True))
        said = answers.read(answers.OBJECT, raw)
        numbers = ["".join(filter(str.isdigit, str(said.get(name)))) for name in ("major", "minor")]
        if not all(numbers):
            raise Busy("the API server does not say its version", reason="BadAnswer")
        return int(numbers[0]), int(numbers[1])

    async def get(self, kind: Type, key: Key) -> Object:
        """Read one object; `Missing` when it is not there."""
        return await self.call(about("GET", kind, key, twice=True))

    async def list(
        self, kind: Type, *, namespace: str = "", labels: str = "", fields: str = "", page: int = 100
    ) -> tuple[Objects, str]:
        """Read a collection page by page; the objects (bearing apiVersion and kind) and its resource version."""
        for size in (page, 0):
            objects: Objects = []
            version = ""
            try:
                async for part in self.pages(kind, namespace=namespace, labels=labels, fields=fields, page=size):
                    objects += part[0]
                    version = part[1]
            except Gone:
                # The pages took longer than the server keeps a version: all at once, then.
                if not size:
                    raise
                continue
            return objects, version
        raise AssertionError("the loop returns or raises")

    async def pages(
        self, kind: Type, *, namespace: str = "", labels: str = "", fields: str = "", page: int = 100
    ) -> AsyncGenerator[tuple[Objects, str], None]:
        """Read a collection as `list` does, page for page, each with the one resource version that all are of.

        `Gone` when the version became too old between two pages: what was read so far is of no use then.
        """
        path = kind.path(namespace=namespace)
        size, token = page, ""
        while True:
            query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(size or ""), "continue": token}
            try:
                target, what = target_of(path, query), f"list {kind.plural}"
                request = Request(method="GET", target=target, of=kind.plural, what=what, limit=PAGE_LIMIT, twice=True)
                raw = await self.ask(request)
            except ApiError as error:
                if error.reason != "ResponseTooLarge" or size <= 1:
                    raise
                size = max(size // 8, 1)
                continue
            read = answers.read(answers.PAGE, raw)
            objects = [answers.whole(one, kind) for one in read.items or ()]
            token = read.metadata.continue_
            yield objects, read.metadata.resource_version
            if not token:
                return

    async def watch(  # noqa: PLR0913 - a watch has as many sides
        self,
        kind: Type,
        *,
        version: str,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        seconds: int = 200,
        opened: Callable[[], None] | None = None,
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Yield (ADDED, MODIFIED, DELETED or BOOKMARK, object) from a resource version on, until the server ends it.

        `Gone` when the version is too old, also in mid-stream. Ends, or raises `Busy`, when nothing comes for longer
        than the server should be silent; `Busy` when the connection breaks. `opened` is called once the server accepts.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
            "labelSelector": labels,
            "fieldSelector": fields,
        }
        request = Request(
            method="GET",
            target=target_of(kind.path(namespace=namespace), query),
            of=kind.plural,
            what=f"watch {kind.plural}",
        )
        for attempt in range(2):
            generation = self.transport.generation
            try:
                async with self.transport.stream(request, seconds=seconds + SLACK, silent=SILENCE) as (
                    status,
                    response,
                ):
                    self.requests["WATCH", kind.plural, status] += 1
                    if status == 200:
                        if opened is not None:
                            opened()
                        async for event in events(kind, response):
                            yield event
                        return
                    raw = (await response.content.read(answers.MESSAGE * 2)) or b""
                    after = response.headers.get("Retry-After", "")
            except Busy as error:
                if error.reason == "Unreachable":
                    self.requests["WATCH", kind.plural, 0] += 1
                raise
            if status != 401 or attempt or not await self.transport.reload(generation):
                raise answers.error(status, raw, after=after, what=request.what)

    async def apply(
        self, value: Object, *, manager: str = MANAGER, force: bool = True, status: bool = False, dry: bool = False
    ) -> Object:
        """Server-side apply; `status` applies to the status subresource, `dry` only says what would come of it."""
        query = {"fieldManager": manager, "force": "true" if force else "", "dryRun": "All" if dry else ""}
        return await self.call(
            about(
                "PATCH",
                types.of(value),
                types.key(value),
                subresource="status" if status else "",
                query=query,
                body=value,
                content_type=APPLY,
                twice=True,
            )
        )

    async def merge(
        self,
        kind: Type,
        key: Key,
        patch: Mapping[str, object],
        *,
        subresource: str = "",
        manager: str = MANAGER,
    ) -> Object:
        """JSON merge patch (RFC 7386); a `metadata.resourceVersion` in it makes it conditional (`Conflict`)."""
        query = {"fieldManager": manager}
        return await self.call(
            about("PATCH", kind, key, subresource=subresource, query=query, body=patch, content_type=MERGE)
        )

    async def create(self, value: Object, *, manager: str = MANAGER) -> Object:
        """Create; `Conflict` when it is there already."""
        kind, key = types.of(value), types.key(value)
        at = Key(key.namespace, "")
        return await self.call(about("POST", kind, at, query={"fieldManager": manager}, body=value))

    async def replace(self, value: Object, *, manager: str = MANAGER) -> Object:
        """Write a whole object whose resourceVersion must be the current one, else `Conflict`.

        HTTP lets a PUT be sent again when its connection breaks: a `Conflict` may mean that our own write came through.
        """
        query = {"fieldManager": manager}
        return await self.call(about("PUT", types.of(value), types.key(value), query=query, body=value))

    async def delete(self, kind: Type, key: Key, *, uid: str = "", propagation: str = "Background") -> bool:
        """Delete; false when it was not there. With `uid` only that very object (`Conflict` otherwise)."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self.call(about("DELETE", kind, key, body=options, twice=True))
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    async def read_log(self, key: Key, *, container: str = "", limit: int = 1 << 20) -> bytes:
        """Read at most `limit` bytes of a container's log."""
        path = types.POD.path(namespace=key.namespace, name=key.name, subresource="log")
        query = {"container": container, "limitBytes": str(limit)}
        return await self.ask(
            Request(
                method="GET",
                target=target_of(path, query),
                of="pods",
                what=f"log of pod {key}",
                limit=max(limit, answers.MESSAGE * 2),
                twice=True,
            )
        )

    @contextlib.asynccontextmanager
    async def acting_as(self, account: Key, *, seconds: int = LEAST_TOKEN) -> AsyncGenerator[Self, None]:
        """Give a client that acts as a service account, by a token that ends by itself after `seconds` (TokenRequest).

        `Missing` when there is no such account, `Forbidden` without the right to `serviceaccounts/token`. Its requests
        are counted with this client's.
        """
        spec = {"expirationSeconds": max(seconds, LEAST_TOKEN)}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self.call(about("POST", types.SERVICE_ACCOUNT, account, subresource="token", body=body))
        acting = type(self)(self.transport.acting(str(answer["status"]["token"])), timeout=self.timeout)
        acting.requests, acting.may = self.requests, self.may
        try:
            yield acting
        finally:
            await acting.close()

    async def call(self, request: Request) -> Object:
        """Send a request about an object and decode what comes back."""
        value: Object = answers.read(answers.OBJECT, await self.ask(request))
        return value

    async def ask(self, request: Request) -> bytes:
        """Send a request, again where that is safe and of use, and return the body of its success."""
        attempt, refused = 0, False
        if self.may is not None and request.method != "GET":
            request = replace(request, may=self.may)
        while True:
            attempt += 1
            if request.may is not None and not request.may():
                raise Busy(f"{request.what}: this process does not lead any more", reason=NOT_LEADING)
            generation = self.transport.generation
            try:
                status, headers, raw = await self.transport.exchange(request, seconds=self.timeout)
            except Busy as error:
                self.requests[request.method, request.of, 0] += 1
                if not request.twice or attempt >= ATTEMPTS or error.reason != "ConnectionLost":
                    raise
                await asyncio.sleep(AGAIN * jitter.between(0.5, 1.5) * attempt)
                continue
            self.requests[request.method, request.of, status] += 1
            if 200 <= status < 300:
                return raw
            if status == 401 and not refused:
                refused = True
                if await self.transport.reload(generation):
                    continue
            refusal = answers.error(status, raw, after=headers.get("Retry-After", ""), what=request.what)
            if not request.twice or attempt >= ATTEMPTS or not soon(refusal):
                raise refusal
            await asyncio.sleep(max(refusal.after or 0.0, AGAIN) * jitter.between(1.0, 1.2))


def about(  # noqa: PLR0913 - a request has as many sides
    method: str,
    kind: Type,
    key: Key,
    *,
    subresource: str = "",
    query: Mapping[str, str] | None = None,
    body: object = None,
    content_type: str = JSON,
    twice: bool = False,
) -> Request:
    """Make a request about an object, or about its collection when it has no name."""
    path = kind.path(namespace=key.namespace, name=key.name, subresource=subresource)
    return Request(
        method=method,
        target=target_of(path, query or {}),
        of=kind.plural,
        what=f"{kind.plural} {key}" if key.name else kind.plural,
        body=None if body is None else msgspec.json.encode(body),
        content_type=content_type,
        twice=twice,
    )


def soon(error: ApiError) -> TypeGuard[Busy]:
    """Say whether the server asks to come again in a moment."""
    return isinstance(error, Busy) and error.after is not None and error.after <= LONGEST_PAUSE


async def events(kind: Type, response: aiohttp.ClientResponse) -> AsyncGenerator[tuple[str, Object], None]:
    """Read the lines of a watch; ends when the server ends it or is silent."""
    lines = Lines(LINE_LIMIT)
    while True:
        try:
            chunk = await response.content.readany()
        except TimeoutError:
            return
        if not chunk:
            break
        try:
            for line in lines.feed(chunk):
                event = answers.read(answers.EVENT, line)
                if event.type == "ERROR":
                    raise answers.interrupted(event.object)
                if event.type in KNOWN:
                    yield event.type, answers.whole(event.object, kind, named=event.type != "BOOKMARK")
        except TooLong as error:
            raise Busy(f"watch {kind.plural}: {error}", reason="ResponseTooLarge") from None
    if lines.incomplete():
        raise Busy(f"watch {kind.plural}: it ended in the middle of an event", reason="ConnectionLost")
