"""Other HTTP/1.1 parsers, each asked the same: which messages are in this byte stream?"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


class Message(NamedTuple):
    """A whole message."""

    method: str
    target: str
    body_sha256: str


class Seen(NamedTuple):
    """What a parser made of a stream.

    ``refused``: it answered with an error. ``closed``: it closed the connection after the last message, as a
    server may after any, and did not look further.
    """

    refused: bool
    messages: list[Message]
    verdict: str = ""
    closed: bool = False


Peer = Callable[[list[bytes]], list[Seen]]


def message(method: bytes | str, target: bytes | str, body: bytes) -> Message:
    return Message(text(method), text(target), hashlib.sha256(body).hexdigest())


def text(part: bytes | str) -> str:
    return part.decode("latin-1") if isinstance(part, bytes) else part


def one_by_one(read: Callable[[bytes], Seen]) -> Peer:
    return lambda streams: [read(stream) for stream in streams]


def by_process(command: list[str], cwd: Path, streams: list[bytes]) -> list[Seen]:
    """Asks a program that reads length-prefixed streams and answers a JSON line for each."""
    framed = b"".join(struct.pack(">I", len(stream)) + stream for stream in streams)
    answer = subprocess.run(command, cwd=cwd, input=framed, stdout=subprocess.PIPE, check=True, timeout=300)
    lines: list[dict[str, Any]] = [json.loads(line) for line in answer.stdout.splitlines()]
    return [
        Seen(
            line["verdict"] == "refused",
            [Message(m["method"], m["target"], m["body_sha256"]) for m in line["messages"] or []],
            line["verdict"],
        )
        for line in lines
    ]


def ours(streams: list[bytes]) -> list[Seen]:
    """The router's own parser."""
    command = ["cargo", "run", "--quiet", "--package", "router_core", "--example", "boundaries"]
    return by_process(command, ROOT, streams)


def read_h11(stream: bytes) -> Seen:
    import h11

    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    messages: list[Message] = []
    request, body = None, b""
    try:
        connection.receive_data(stream)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                messages.append(message(request.method, request.target, body))
                if request.method == b"CONNECT":
                    return Seen(False, messages)
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return Seen(False, messages, closed=True)
                connection.start_next_cycle()
            else:
                return Seen(False, messages)
    except h11.RemoteProtocolError:
        return Seen(True, messages)


def read_httptools(stream: bytes) -> Seen:
    """llhttp with all its leniencies off."""
    import httptools

    messages: list[Message] = []

    class Protocol:
        target = b""
        body = b""

        def on_message_begin(self) -> None:
            self.target = self.body = b""

        def on_url(self, part: bytes) -> None:
            self.target += part

        def on_body(self, part: bytes) -> None:
            self.body += part

        def on_message_complete(self) -> None:
            messages.append(message(parser.get_method(), self.target, self.body))

    parser = httptools.HttpRequestParser(Protocol())
    try:
        parser.feed_data(stream)
    except httptools.HttpParserUpgrade:
        return Seen(False, messages)
    except httptools.HttpParserError:
        return Seen(True, messages)
    return Seen(False, messages)


def read_gunicorn(stream: bytes) -> Seen:
    from gunicorn.config import Config
    from gunicorn.http.errors import NoMoreData
    from gunicorn.http.parser import RequestParser

    messages: list[Message] = []
    requests = RequestParser(Config(), iter([stream]), ("127.0.0.1", 1))
    try:
        for request in requests:
            body = request.body.read()
            announced = next((int(v) for k, v in request.headers if k == "CONTENT-LENGTH"), len(body))
            if len(body) < announced:
                break
            messages.append(message(request.method, request.uri, body))
    except (NoMoreData, StopIteration):
        return Seen(False, messages)
    except Exception:  # noqa: BLE001 - every other error of its parser closes the connection
        return Seen(True, messages)
    return Seen(False, messages)


def read_waitress(stream: bytes) -> Seen:
    from waitress.adjustments import Adjustments
    from waitress.parser import HTTPRequestParser

    messages: list[Message] = []
    settings, rest = Adjustments(), stream
    while rest:
        parser = HTTPRequestParser(settings)
        used = parser.received(rest)
        rest = rest[used:]
        while rest and not parser.completed:
            more = parser.received(rest)
            if more == 0 and not parser.completed:
                break
            rest = rest[more:]
        if parser.error:
            return Seen(True, messages)
        if not parser.completed:
            break
        if not parser.empty:
            messages.append(message(parser.command, parser.request_uri, parser.get_body_stream().read()))
            if parser.connection_close:
                break
    return Seen(False, messages)


def read_node(streams: list[bytes]) -> list[Seen]:
    return by_process(["node", "server.mjs"], HERE, streams)


def read_go(streams: list[bytes]) -> list[Seen]:
    return by_process(["go", "run", "server.go"], HERE, streams)


def available() -> dict[str, Peer]:
    """The peers that are installed here, by name."""
    from importlib.util import find_spec

    libraries = {
        "h11": read_h11,
        "httptools": read_httptools,
        "gunicorn": read_gunicorn,
        "waitress": read_waitress,
    }
    peers = {name: one_by_one(read) for name, read in libraries.items() if find_spec(name)}
    if shutil.which("node"):
        peers["node"] = read_node
    if shutil.which("go"):
        peers["go"] = read_go
    return peers
