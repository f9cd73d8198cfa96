"""A name server that says exactly what a test tells it to, over UDP and TCP, and remembers what it was asked.

    with Dns({"api.example.com": ["127.0.0.5"], "slow.example.com": Late(0.3, ["127.0.0.6"])}) as dns:
        start_router(EGRESS_DNS_SERVERS=dns.address)

`dns.names` may be changed at any time. A name that it does not hold does not exist (NXDOMAIN); one that has no address
of the family asked for has an empty answer. It runs on a thread of its own, so that plain and async tests use it alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

from tests.system.tasks import end

A, CNAME, AAAA = 1, 5, 28
KINDS = {A: "A", AAAA: "AAAA"}
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
#: What fits into a datagram when the client states no size (RFC 1035 §4.2.1); ours always truncates above this.
DATAGRAM = 1232


@dataclass(frozen=True)
class Query:
    """One question as it came."""

    name: str
    #: "A", "AAAA" or the type's number.
    kind: str
    #: "udp" or "tcp".
    over: str
    #: Monotonic seconds.
    at: float


@dataclass(frozen=True)
class Code:
    """Only a response code, such as SERVFAIL."""

    code: int


@dataclass(frozen=True)
class Silent:
    """No answer at all."""


@dataclass(frozen=True)
class Late:
    """Another answer, some seconds later."""

    seconds: float
    then: Answer


@dataclass(frozen=True)
class Truncated:
    """Over UDP the truncation bit alone, over TCP the answer."""

    then: Answer


@dataclass(frozen=True)
class Alias:
    """A CNAME; what the target answers comes in the same message."""

    target: str


@dataclass
class Turns:
    """One answer after another, for each record type by itself; the last one stays (DNS rebinding)."""

    answers: Sequence[Answer]
    taken: dict[str, int] = field(default_factory=dict)

    def take(self, kind: str) -> Answer:
        turn = self.taken.get(kind, 0)
        self.taken[kind] = turn + 1
        return self.answers[min(turn, len(self.answers) - 1)]


#: Addresses of either family, a behaviour, or a function of the query that gives one of these.
Answer: TypeAlias = "Sequence[str] | Code | Silent | Late | Truncated | Alias | Turns | Callable[[Query], Answer]"
Records = list[tuple[str, int, bytes]]


def encoded(name: str) -> bytes:
    """A name in wire form (RFC 1035 §3.1)."""
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def question(message: bytes) -> tuple[str, int, bytes]:
    """The name in lower case, the type, and the question section as it came."""
    labels, at = [], 12
    while message[at]:
        labels.append(message[at + 1 : at + 1 + message[at]].decode("ascii"))
        at += 1 + message[at]
    kind, _ = struct.unpack_from("!HH", message, at + 1)
    return ".".join(labels).lower(), kind, message[12 : at + 5]


def response(message: bytes, code: int, records: Records, ttl: int, *, truncated: bool = False) -> bytes:
    """An answer to a query message (RFC 1035 §4.1)."""
    flags = 0x8180 | (0x0200 if truncated else 0) | code
    body = message[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + question(message)[2]
    for owner, kind, data in records:
        body += encoded(owner) + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data
    return body


class Datagrams(asyncio.DatagramProtocol):
    """The UDP side."""

    transport: asyncio.DatagramTransport

    def __init__(self, dns: Dns) -> None:
        self.dns = dns

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, peer: Any) -> None:
        self.dns.begin(self.answer(data, peer))

    async def answer(self, data: bytes, peer: Any) -> None:
        reply = await self.dns.reply(data, "udp")
        if reply is not None:
            self.transport.sendto(reply, peer)


class Dns:
    """A name server on a free port of 127.0.0.1."""

    def __init__(self, names: Mapping[str, Answer] | None = None, *, ttl: int = 1) -> None:
        self.names: dict[str, Answer] = dict(names or {})
        #: Seconds that every record holds.
        self.ttl = ttl
        self.queries: list[Query] = []
        self.port = 0
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """For `EGRESS_DNS_SERVERS`."""
        return f"127.0.0.1:{self.port}"

    def asked(self, name: str, kind: str | None = None) -> list[Query]:
        """The queries for a name so far, of one record type or of all."""
        return [q for q in list(self.queries) if q.name == name and kind in {None, q.kind}]

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def reply(self, message: bytes, over: str) -> bytes | None:
        """What to send for a query message; `None` for nothing."""
        name, number, _ = question(message)
        query = Query(name, KINDS.get(number, str(number)), over, time.monotonic())
        self.queries.append(query)
        reply = await self.decide(message, query, number, self.names.get(name, Code(NXDOMAIN)))
        if reply is not None and over == "udp" and len(reply) > DATAGRAM:
            return response(message, NOERROR, [], self.ttl, truncated=True)
        return reply

    async def decide(self, message: bytes, query: Query, number: int, answer: Answer) -> bytes | None:
        records: Records = []
        owner = query.name
        while True:
            match answer:
                case Silent():
                    return None
                case Code(code):
                    return response(message, code, records, self.ttl)
                case Late(seconds, then):
                    await asyncio.sleep(seconds)
                    answer = then
                case Truncated(then):
                    if query.over == "udp":
                        return response(message, NOERROR, [], self.ttl, truncated=True)
                    answer = then
                case Turns():
                    answer = answer.take(query.kind)
                case Alias(target):
                    records.append((owner, CNAME, encoded(target)))
                    owner, answer = target, self.names.get(target, Code(NXDOMAIN))
                case _ if callable(answer):
                    answer = answer(query)
                case _:
                    packed = [ipaddress.ip_address(address).packed for address in answer]
                    size = {A: 4, AAAA: 16}.get(number)
                    records += [(owner, number, data) for data in packed if len(data) == size]
                    return response(message, NOERROR, records, self.ttl)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The TCP side: messages with a length before each (RFC 1035 §4.2.2)."""
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    (size,) = struct.unpack("!H", await reader.readexactly(2))
                    reply = await self.reply(await reader.readexactly(size), "tcp")
                    if reply is not None:
                        writer.write(struct.pack("!H", len(reply)) + reply)
        finally:
            writer.close()

    async def start(self) -> None:
        self.server, datagrams = await self.bind()
        self.datagrams, _ = await self.loop.create_datagram_endpoint(lambda: Datagrams(self), sock=datagrams)

    async def bind(self) -> tuple[asyncio.Server, socket.socket]:
        """Both sides on one port, which the kernel picks for TCP and another process may have for UDP."""
        for _ in range(20):
            server = await asyncio.start_server(self.stream, "127.0.0.1", self.port)
            port = server.sockets[0].getsockname()[1]
            datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            datagrams.setblocking(False)
            try:
                datagrams.bind(("127.0.0.1", port))
            except OSError:
                datagrams.close()
                server.close()
                continue
            self.port = port
            return server, datagrams
        message = "no port was free for both UDP and TCP"
        raise OSError(message)

    async def stop(self) -> None:
        self.datagrams.abort()
        await end(self.server)
        # The transports close at the loop's next turn.
        await asyncio.sleep(0)

    def __enter__(self) -> Self:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="dns", daemon=True)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.start(), self.loop).result(5)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.stop(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()
