"""What an upstream can do to a router, well or badly. Each function makes a behaviour for `Upstream`."""

import asyncio
import gzip

from tests.system import payloads
from tests.system.upstream import Behaviour, Peer, Received

EVENT_STREAM = ("content-type", "text/event-stream; charset=utf-8")
JSON = ("content-type", "application/json")


def head(status: int = 200, *fields: tuple[str, str], version: str = "HTTP/1.1") -> bytes:
    lines = [f"{version} {status} Because", *[f"{name}: {value}" for name, value in fields], "", ""]
    return "\r\n".join(lines).encode("latin-1")


def chunked(piece: bytes) -> bytes:
    return f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


LAST_CHUNK = b"0\r\n\r\n"


def raw(*pieces: bytes, pace: float = 0.0, close: bool = False) -> Behaviour:
    """Sends these bytes, whatever they are."""

    async def behave(peer: Peer, request: Received) -> None:
        await peer.send(*pieces, pace=pace)
        if close:
            await peer.close()

    return behave


def answer(body: bytes = b"{}", status: int = 200, *fields: tuple[str, str]) -> Behaviour:
    """A whole answer of declared length, in one write."""
    named = {name.lower() for name, _ in fields}
    kind = () if "content-type" in named else (JSON,)
    return raw(head(status, *kind, *fields, ("content-length", str(len(body)))) + body)


def stream(events: list[bytes], *fields: tuple[str, str], pace: float = 0.0) -> Behaviour:
    """A well-behaved event stream, a chunk and a write for each event."""
    opened = head(200, EVENT_STREAM, *fields, ("transfer-encoding", "chunked"))
    return raw(opened, *[chunked(item) for item in events], LAST_CHUNK, pace=pace)


def split_stream(events: list[bytes], at: int) -> Behaviour:
    """The same events in two chunks and two writes, cut at byte `at` of the event text."""
    text = b"".join(events)
    opened = head(200, EVENT_STREAM, ("transfer-encoding", "chunked"))
    return raw(opened + chunked(text[:at]), chunked(text[at:]) + LAST_CHUNK, pace=0.005)


def bytewise_stream(events: list[bytes]) -> Behaviour:
    """Every byte of the event text in a write of its own, all in one chunk."""
    text = b"".join(events)
    opened = head(200, EVENT_STREAM, ("transfer-encoding", "chunked")) + f"{len(text):x}\r\n".encode()

    async def behave(peer: Peer, request: Received) -> None:
        await peer.send(opened)
        for at in range(len(text)):
            await asyncio.sleep(0.0002)
            await peer.send(text[at : at + 1])
        await peer.send(b"\r\n" + LAST_CHUNK)

    return behave


def silent_before_head(seconds: float, then: Behaviour) -> Behaviour:
    """Nothing for a while, then something."""

    async def behave(peer: Peer, request: Received) -> None:
        await wait_or_gone(peer, seconds)
        await then(peer, request)

    return behave


async def wait_or_gone(peer: Peer, seconds: float) -> None:
    """Waits, but no longer than the peer stays; raises `ConnectionError` when it has gone."""
    try:
        await peer.wait_gone(seconds)
    except TimeoutError:
        return
    raise ConnectionError("the peer has gone")


def silent_in_stream(events: list[bytes], at: int, seconds: float) -> Behaviour:
    """A stream that pauses for `seconds` before event number `at`."""

    async def behave(peer: Peer, request: Received) -> None:
        await peer.send(head(200, EVENT_STREAM, ("transfer-encoding", "chunked")))
        for number, item in enumerate(events):
            if number == at:
                await wait_or_gone(peer, seconds)
            await peer.send(chunked(item))
        await peer.send(LAST_CHUNK)

    return behave


def silent_in_event(events: list[bytes], at: int, seconds: float) -> Behaviour:
    """A stream that pauses in the middle of event number `at`."""

    async def behave(peer: Peer, request: Received) -> None:
        await peer.send(head(200, EVENT_STREAM, ("transfer-encoding", "chunked")))
        for number, item in enumerate(events):
            half = len(item) // 2 if number == at else len(item)
            await peer.send(chunked(item[:half]))
            if number == at:
                await wait_or_gone(peer, seconds)
                await peer.send(chunked(item[half:]))
        await peer.send(LAST_CHUNK)

    return behave


def never() -> Behaviour:
    """Never answers."""

    async def behave(peer: Peer, request: Received) -> None:
        await peer.wait_gone(120)

    return behave


def endless(interval: float = 0.01) -> Behaviour:
    """A stream that goes on until the peer leaves."""

    async def behave(peer: Peer, request: Received) -> None:
        await peer.send(head(200, EVENT_STREAM, ("transfer-encoding", "chunked")))
        for _ in range(100_000):
            await peer.send(chunked(payloads.chunk({"content": "more "})))
            await wait_or_gone(peer, interval)

    return behave


def broken_stream(events: list[bytes], how: str) -> Behaviour:
    """Sends some events, then `reset`s, or ends (`fin`) without the last chunk."""

    async def behave(peer: Peer, request: Received) -> None:
        await peer.send(head(200, EVENT_STREAM, ("transfer-encoding", "chunked")))
        for item in events:
            await peer.send(chunked(item))
        await asyncio.sleep(0.05)
        await (peer.reset() if how == "reset" else peer.close())

    return behave


def until_close(body: bytes, *fields: tuple[str, str], version: str = "HTTP/1.1") -> Behaviour:
    """A body that ends with the connection."""
    return raw(head(200, *fields, ("connection", "close"), version=version) + body, close=True)


def nagle_stream(events: list[bytes], pace: float) -> Behaviour:
    """A paced stream in two small writes per event from a server that left Nagle's algorithm on."""

    async def behave(peer: Peer, request: Received) -> None:
        peer.nodelay(False)
        await peer.send(head(200, EVENT_STREAM, ("transfer-encoding", "chunked")))
        for item in events:
            framed = chunked(item)
            peer.transport.write(framed[:-2])
            peer.transport.write(framed[-2:])
            await wait_or_gone(peer, pace)
        await peer.send(LAST_CHUNK)

    return behave


def gzipped(body: bytes) -> Behaviour:
    """A compressed answer."""
    return answer(gzip.compress(body), 200, ("content-encoding", "gzip"))


def by_stream(buffered: Behaviour, streamed: Behaviour) -> Behaviour:
    """Chooses by the request's own `stream`."""

    async def behave(peer: Peer, request: Received) -> None:
        wants = request.body and request.json.get("stream")
        await (streamed if wants else buffered)(peer, request)

    return behave


def service() -> Behaviour:
    """A small well-behaved service for every dialect, with usage 5 in and 7 out."""
    chat = by_stream(answer(payloads.chat()), stream(payloads.chat_events("hel", "lo")))
    message = by_stream(answer(payloads.message()), stream(payloads.message_events("hel", "lo")))
    closed = payloads.pack(payloads.response_object("completed", "hello", usage=payloads.response_usage()))
    response = by_stream(answer(closed), stream(payloads.response_events("hel", "lo")))

    async def behave(peer: Peer, request: Received) -> None:
        path = request.target.partition("?")[0]
        if path.endswith("/messages"):
            await message(peer, request)
        elif path.endswith("/responses"):
            await response(peer, request)
        elif path.endswith("/completions") or "/embeddings" in path:
            await chat(peer, request)
        else:
            await answer(payloads.pack({"object": "list", "data": []}))(peer, request)

    return behave
