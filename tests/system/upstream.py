"""An upstream that does exactly what a test tells it to, byte by byte, and remembers what it was sent.

It runs on a thread of its own, so that plain and async tests use it alike. A behaviour is a coroutine function
`(peer, request)`; those made most often are in `behaviours`.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Self

from tests.system.tasks import end


@dataclass(repr=False)
class Received:
    """One request as it came over the wire."""

    connection: int
    head: bytes
    body: bytes
    #: Monotonic seconds when its body was complete.
    at: float
    peer: "Peer"

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Header fields in order, names as they were spelled."""
        found = []
        for line in self.head.split(b"\r\n")[1:]:
            if line:
                name, _, value = line.partition(b":")
                found.append((name.decode("latin-1"), value.strip().decode("latin-1")))
        return found

    def header(self, name: str) -> str | None:
        """The value of a field; fails when it came more than once."""
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def raw(self) -> bytes:
        return self.head + self.body

    def left_at(self, timeout: float = 5.0) -> float:
        """Waits until the peer has closed or reset the connection; monotonic seconds of that."""
        assert self.peer.gone.wait(timeout), "the peer did not close its connection"
        assert self.peer.gone_at is not None
        return self.peer.gone_at


class Peer(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, upstream: "Upstream", number: int) -> None:
        self.upstream = upstream
        self.number = number
        self.inbox = bytearray()
        self.news = asyncio.Event()
        self.ended = False
        self.gone = threading.Event()
        self.gone_at: float | None = None
        self.gone_how = ""
        self.transport: asyncio.Transport
        self.task: asyncio.Task[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.task = asyncio.get_running_loop().create_task(self.serve())

    def data_received(self, data: bytes) -> None:
        self.inbox += data
        self.news.set()

    def eof_received(self) -> bool:
        self.note_gone("fin")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.note_gone("rst" if exc else "fin")

    def note_gone(self, how: str) -> None:
        if self.gone_at is None:
            self.gone_at = time.monotonic()
            self.gone_how = how
        self.ended = True
        self.gone.set()
        self.news.set()

    async def more(self) -> None:
        """Waits for bytes; raises `EOFError` when none can come."""
        if self.ended:
            raise EOFError
        self.news.clear()
        await self.news.wait()

    async def take(self, size: int) -> bytes:
        while len(self.inbox) < size:
            await self.more()
        found = bytes(self.inbox[:size])
        del self.inbox[:size]
        return found

    async def until(self, mark: bytes) -> bytes:
        while (at := self.inbox.find(mark)) < 0:
            await self.more()
        return await self.take(at + len(mark))

    async def receive(self) -> Received:
        """Reads one request; understands both framings."""
        head = await self.until(b"\r\n\r\n")
        request = Received(self.number, head, b"", 0.0, self)
        if (early := self.upstream.early) is not None:
            await early(self, request)
        if (request.header("transfer-encoding") or "").lower() == "chunked":
            body = b""
            while size := int((await self.until(b"\r\n")).split(b";")[0], 16):
                body += (await self.take(size + 2))[:-2]
            await self.until(b"\r\n")
            request.body = body
        else:
            request.body = await self.take(int(request.header("content-length") or 0))
        request.at = time.monotonic()
        return request

    async def serve(self) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while not self.transport.is_closing():
                request = await self.receive()
                behaviour = self.upstream.note(request)
                await behaviour(self, request)
        if not self.transport.is_closing():
            self.transport.close()

    async def send(self, *pieces: bytes, pace: float = 0.0) -> None:
        """Sends each piece in a write of its own; `pace` seconds apart, or at least one turn of the loop."""
        for at, piece in enumerate(pieces):
            if at:
                await asyncio.sleep(pace or 0.002)
            if self.transport.is_closing():
                raise ConnectionError("the peer has gone")
            self.transport.write(piece)

    async def close(self) -> None:
        """Ends the connection in order (FIN)."""
        self.transport.close()

    async def reset(self) -> None:
        """Breaks the connection (RST)."""
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def nodelay(self, on: bool) -> None:
        """Turns Nagle's algorithm off (the default) or on."""
        self.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(on))

    async def wait_gone(self, seconds: float = 30.0) -> None:
        """Waits until the peer closes."""
        async with asyncio.timeout(seconds):
            while self.gone_at is None:
                self.news.clear()
                await self.news.wait()


Behaviour = Callable[[Peer, Received], Awaitable[None]]


@dataclass(repr=False)
class Upstream:
    """The server. `default` answers what `queue` has nothing for."""

    default: Behaviour
    tls: ssl.SSLContext | None = None
    #: Runs when a request's head is there, before its body is read.
    early: Behaviour | None = None
    received: list[Received] = field(default_factory=list)
    queue: deque[Behaviour] = field(default_factory=deque)
    accepted: int = 0
    peers: list[Peer] = field(default_factory=list)
    port: int = 0
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def next(self, *behaviours: Behaviour) -> None:
        """Scripts the coming requests, one behaviour each."""
        self.queue.extend(behaviours)

    def note(self, request: Received) -> Behaviour:
        with self.arrived:
            self.received.append(request)
            self.arrived.notify_all()
            return self.queue.popleft() if self.queue else self.default

    def wait(self, amount: int = 1, timeout: float = 5.0) -> Received:
        """Waits until `amount` requests have arrived; the last of them."""
        with self.arrived:
            ready = self.arrived.wait_for(lambda: len(self.received) >= amount, timeout)
        assert ready, f"{len(self.received)} of {amount} requests reached the upstream"
        return self.received[amount - 1]

    @property
    def last(self) -> Received:
        assert self.received, "nothing reached the upstream"
        return self.received[-1]

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def clear(self) -> None:
        """Forgets what was received and scripted."""
        self.early = None
        self.received.clear()
        self.queue.clear()

    def make_peer(self) -> Peer:
        self.accepted += 1
        peer = Peer(self, self.accepted)
        self.peers.append(peer)
        return peer

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="upstream", daemon=True)
        self.thread.start()

        async def start() -> asyncio.Server:
            return await self.loop.create_server(self.make_peer, "127.0.0.1", self.port, ssl=self.tls, backlog=2048)

        self.server = asyncio.run_coroutine_threadsafe(start(), self.loop).result(5)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.stop(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()

    async def stop(self) -> None:
        await end(self.server)
        for peer in self.peers:
            # A connection whose handshake failed has none.
            if (transport := getattr(peer, "transport", None)) is not None:
                transport.abort()
        await asyncio.sleep(0)
