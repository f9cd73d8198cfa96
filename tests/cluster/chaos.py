"""A proxy in front of the API server that does to chosen requests what networks and busy servers do.

It ends TLS with a certificate of the plane's authority, so a kubeconfig with its `url` works as the plane's own do,
as long as the account is a token (`service_account_kubeconfig(..., server=proxy.url)`): client certificates end here.
It speaks HTTP/1.1 only. Every request that reaches it is written down in `seen`.
"""

import asyncio
import contextlib
import json
import random
import re
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from tests.cluster.plane import ControlPlane
from tests.system.router import free_ports

# Headers of one hop, and those that the client of the other hop writes itself.
HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}
CHUNK = 64 * 1024

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Stream = Callable[[web.StreamResponse, aiohttp.StreamReader], Awaitable[None]]


@dataclass(eq=False)
class Seen:
    """A request: its verb as the API server counts it, its path and query, and when it came, by `time.monotonic`.

    `status` is what the client was given; 0 until then, and when that was nothing.
    """

    verb: str
    path: str
    began: float
    status: int = 0


@dataclass(eq=False)
class Fault:
    """What happens to requests whose `VERB path?query` the pattern is found in, `times` times (0: until it is lifted).

    `answer` takes the place of the upstream's; `stream` changes how its body is passed on.
    """

    pattern: str
    times: int = 0
    answer: Answer | None = None
    stream: Stream | None = None
    hits: int = field(default=0, init=False)

    def takes(self, verb: str, path: str) -> bool:
        """Whether this is one of its requests; counts it."""
        spent = self.times and self.hits >= self.times
        if spent or not re.search(self.pattern, f"{verb} {path}"):
            return False
        self.hits += 1
        return True


class Cut(Exception):
    """Close this connection with a reset."""


def status(code: int, reason: str, message: str = "", **headers: str) -> Answer:
    """Answer with a Status object as the API server writes them."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message or f"injected: {reason}",
        "reason": reason,
        "code": code,
    }

    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.json_response(body, status=code, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def busy(seconds: int = 1) -> Answer:
    """429 with Retry-After."""
    return status(429, "TooManyRequests", Retry_After=str(seconds))


def failing(code: int = 500) -> Answer:
    """500, 503 or another status of a server in trouble."""
    return status(code, {503: "ServiceUnavailable", 504: "Timeout"}.get(code, "InternalError"))


def conflict() -> Answer:
    """409 as when another has written before."""
    return status(409, "Conflict", "the object has been modified; please apply your changes to the latest version")


def gone() -> Answer:
    """410 as the answer to a watch from a version that is too old."""
    return status(410, "Expired", "too old resource version: 1 (2)")


def gone_in_stream(events: int = 0) -> Stream:
    """A watch whose stream has that many events and then says 410, as the API server does when its cache moves on."""

    async def stream(out: web.StreamResponse, body: aiohttp.StreamReader) -> None:
        for _ in range(events):
            await out.write(await body.readline())
        error = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}
        error |= {"message": "too old resource version: 1 (2)", "metadata": {}}
        await out.write(json.dumps({"type": "ERROR", "object": error}).encode() + b"\n")

    return stream


def half_open() -> Stream:
    """A stream that is begun and never says anything again, as behind a firewall that forgot the connection."""

    async def stream(_out: web.StreamResponse, _body: aiohttp.StreamReader) -> None:
        await asyncio.Event().wait()

    return stream


def silent() -> Answer:
    """No answer at all, and the connection stays open."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    return answer


def trickle(chunk: int = 1, seconds: float = 0.01) -> Stream:
    """A body that comes in pieces of `chunk` bytes with pauses between them."""

    async def stream(out: web.StreamResponse, body: aiohttp.StreamReader) -> None:
        while data := await body.read(chunk):
            await out.write(data)
            await asyncio.sleep(seconds)

    return stream


def reset(after: int = 0) -> Stream:
    """A body that is cut off by a TCP reset after that many bytes."""

    async def stream(out: web.StreamResponse, body: aiohttp.StreamReader) -> None:
        left = after
        while left and (data := await body.read(left)):
            await out.write(data)
            left -= len(data)
        raise Cut

    return stream


def truncate(after: int = 0) -> Stream:
    """A body that ends after that many bytes as if it were whole."""

    async def stream(out: web.StreamResponse, body: aiohttp.StreamReader) -> None:
        left = after
        while left and (data := await body.read(left)):
            await out.write(data)
            left -= len(data)

    return stream


def disorder(seed: int = 0) -> Stream:
    """A watch that swaps neighbours, says what it has said before, and brings the dead back to life."""
    chance = random.Random(seed)

    async def stream(out: web.StreamResponse, body: aiohttp.StreamReader) -> None:
        said: list[bytes] = []
        held = b""
        while line := await body.readline():
            said.append(line)
            if not held and chance.random() < 0.3:
                held = line
                continue
            lines = [line, held] if held else [line]
            held = b""
            for one in [*lines, chance.choice(said)]:
                await out.write(one)

    return stream


def bookmarks(seconds: float = 0.2) -> Stream:
    """A watch of a server whose cache stands still: it lives, by bookmarks of where it began, and tells nothing."""

    async def stream(out: web.StreamResponse, body: aiohttp.StreamReader) -> None:
        first = await body.readline()
        if not first:
            return
        value = json.loads(first)["object"]
        mark = {"kind": value["kind"], "apiVersion": value["apiVersion"], "metadata": {"resourceVersion": "1"}}
        while True:
            await out.write(json.dumps({"type": "BOOKMARK", "object": mark}).encode() + b"\n")
            await asyncio.sleep(seconds)

    return stream


class Proxy:
    """The proxy of one plane; `start` before use. Faults are asked in the order of their injection."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        (self.port,) = free_ports(1)
        self.url = f"https://127.0.0.1:{self.port}"
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.open: set[asyncio.Transport] = set()
        self.runner: web.ServerRunner | None = None
        self.site: web.TCPSite | None = None
        self.http: aiohttp.ClientSession | None = None

    def start(self) -> "Proxy":
        """Listen."""
        self.call(self.begin())
        return self

    def stop(self) -> None:
        """Close every connection and listen no more; `start` begins anew on the same port."""
        self.call(self.end())

    def call(self, coroutine: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.plane.background.loop).result(15)

    def inject(
        self, pattern: str, answer: Answer | None = None, *, stream: Stream | None = None, times: int = 0
    ) -> Fault:
        """Add a fault (see `Fault`); the answer says how often it has hit."""
        self.faults.append(Fault(pattern, times, answer, stream))
        return self.faults[-1]

    def lift(self, *faults: Fault) -> None:
        """Take faults away, all of them when none is named. Requests that hang already go on hanging: see `drop`."""
        self.faults = [one for one in self.faults if faults and one not in faults]

    def drop(self) -> None:
        """Reset every connection that clients have open."""
        self.plane.background.loop.call_soon_threadsafe(self.drop_now)

    def drop_now(self) -> None:
        for transport in self.open:
            cut(transport)
        self.open.clear()

    def counts(self) -> Counter[tuple[str, str]]:
        """How many requests have come, by verb and path without the query."""
        return Counter((one.verb, one.path.partition("?")[0]) for one in list(self.seen))

    # Inside the loop

    async def begin(self) -> None:
        authority = ssl.create_default_context(cadata=self.plane.authority.pem.decode())
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=authority), auto_decompress=False, read_bufsize=2 * CHUNK
        )
        paths = self.plane.authority.server().write(self.plane.folder, f"proxy-{self.port}")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*paths)
        # A client that goes ends its request here and at the API server.
        server = web.Server(self.handle, access_log=None, handler_cancellation=True)
        self.runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0)
        await self.runner.setup()
        self.site = web.TCPSite(self.runner, "127.0.0.1", self.port, ssl_context=tls)
        await self.site.start()

    async def end(self) -> None:
        self.drop_now()
        if self.runner is not None and self.http is not None:
            await self.runner.cleanup()
            await self.http.close()
            self.runner = self.http = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, by a fault or by the API server."""
        verb, path = verb_of(request), request.path_qs
        seen = Seen(verb, path, time.monotonic())
        self.seen.append(seen)  # before any answer: whoever has one finds its request counted
        transport = request.transport
        if transport is not None:
            self.open.add(transport)
        fault = next((one for one in self.faults if one.takes(verb, path)), None)
        try:
            if fault is not None and fault.answer is not None:
                answer = await fault.answer(request)
            else:
                answer = await self.forward(request, fault)
        except (Cut, aiohttp.ClientError, ConnectionError):
            # The API server's own trouble reaches the client as trouble with the connection.
            if transport is not None:
                cut(transport)
            return web.Response()  # goes nowhere
        else:
            seen.status = answer.status
            return answer
        finally:
            if transport is None or transport.is_closing():
                self.open.discard(transport)

    async def forward(self, request: web.BaseRequest, fault: Fault | None) -> web.StreamResponse:
        """Pass a request on, and its answer back."""
        assert self.http is not None
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        async with self.http.request(
            request.method,
            self.plane.url + request.path_qs,
            headers=headers,
            data=body or None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        ) as upstream:
            kept = {name: value for name, value in upstream.headers.items() if name.lower() not in HOP}
            out = web.StreamResponse(status=upstream.status, headers=kept)
            await out.prepare(request)
            if fault is not None and fault.stream is not None:
                await fault.stream(out, upstream.content)
            else:
                async for data in upstream.content.iter_any():
                    await out.write(data)
            await out.write_eof()
            return out


def verb_of(request: web.BaseRequest) -> str:
    """GET, LIST, WATCH, POST, PUT, PATCH, APPLY, DELETE: what a request is to the API server."""
    if request.method == "PATCH":
        return "APPLY" if "apply-patch" in request.headers.get("Content-Type", "") else "PATCH"
    if request.method != "GET":
        return request.method
    if request.query.get("watch") in {"1", "true"}:
        return "WATCH"
    parts = re.sub(r"^/(api/[^/]+|apis/[^/]+/[^/]+)/?", "", request.path).split("/")
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    return "LIST" if len(parts) == 1 and parts[0] and request.path.startswith("/api") else "GET"


def cut(transport: asyncio.Transport) -> None:
    """Close a connection with a reset."""
    if transport.is_closing():
        return
    with contextlib.suppress(OSError):
        found = transport.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
