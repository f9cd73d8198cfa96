"""A raw HTTP client for tests: sends exactly what it is told and shows exactly what came, piece by piece."""

import json
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Response:
    """An answer as it came."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    #: When each read of the body returned, and what it brought.
    reads: list[tuple[float, bytes]] = field(default_factory=list)
    #: Whether the body ended as its framing said it would.
    whole: bool = True

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def events(self) -> list[bytes]:
        """The blocks of an event stream, comments included; the last one even if it is not ended."""
        return [block for block in self.body.split(b"\n\n") if block]

    @property
    def data(self) -> list:
        """The payloads of its events; `[DONE]` as text."""
        found = []
        for block in self.events:
            lines = [line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:")]
            if lines:
                joined = b"\n".join(lines)
                found.append("[DONE]" if joined == b"[DONE]" else json.loads(joined))
        return found


class Client:
    """One connection."""

    def __init__(self, port: int, *, timeout: float = 15.0, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inbox = b""
        self.ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def post(self, path: str, body: bytes | dict, *fields: tuple[str, str]) -> None:
        self.send(request("POST", path, body, *fields))

    def close(self) -> float:
        """Leaves in order; monotonic seconds of that."""
        at = time.monotonic()
        self.socket.close()
        return at

    def reset(self) -> float:
        """Leaves with a RST; monotonic seconds of that."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return self.close()

    def fill(self, size: int) -> None:
        """Reads until `size` bytes are there; raises `EOFError` when they never come."""
        while len(self.inbox) < size:
            if not self.more():
                raise EOFError(self.inbox)

    def more(self) -> bool:
        """Reads once; says whether anything came."""
        data = self.socket.recv(262144)
        self.inbox += data
        self.ended = not data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        """Everything up to and with `mark`; raises `EOFError` if it never comes."""
        while mark not in self.inbox:
            if not self.more():
                raise EOFError(self.inbox)
        at = self.inbox.index(mark) + len(mark)
        found, self.inbox = self.inbox[:at], self.inbox[at:]
        return found

    def head(self) -> Response:
        """The head of the next final answer."""
        while True:
            lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            status = int(lines[0].split(" ")[1])
            fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:] if line)]
            if status >= 200:
                return Response(status, fields, b"")

    def response(self, *, method: str = "POST") -> Response:
        """The next whole answer, by its own framing."""
        found = self.head()
        if method == "HEAD" or found.status in (204, 304):
            return found
        if (found.header("transfer-encoding") or "").lower() == "chunked":
            self.chunks(found)
        elif (length := found.header("content-length")) is not None:
            self.sized(found, int(length))
        else:
            while self.more():
                continue
            found.body, self.inbox = self.inbox, b""
        return found

    def chunks(self, found: Response) -> None:
        try:
            while size := int(self.until(b"\r\n").split(b";")[0], 16):
                self.fill(size + 2)
                piece, self.inbox = self.inbox[:size], self.inbox[size + 2 :]
                found.reads.append((time.monotonic(), piece))
                found.body += piece
            self.until(b"\r\n")
        except (EOFError, ConnectionError):
            found.whole = False

    def sized(self, found: Response, length: int) -> None:
        try:
            self.fill(length)
        except (EOFError, ConnectionError):
            found.whole = False
        found.body, self.inbox = self.inbox[:length], self.inbox[length:]


def request(method: str, path: str, body: bytes | dict = b"", *fields: tuple[str, str]) -> bytes:
    """A whole request; a dict is sent as JSON."""
    if isinstance(body, dict):
        body = json.dumps(body, ensure_ascii=False).encode()
    named = {name.lower() for name, _ in fields}
    lines = [f"{method} {path} HTTP/1.1"]
    if "host" not in named:
        lines.append("Host: router.test")
    if body and "content-type" not in named:
        lines.append("Content-Type: application/json")
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def call(port: int, method: str, path: str, body: bytes | dict = b"", *fields: tuple[str, str], timeout: float = 15.0):
    """One request on a connection of its own."""
    with Client(port, timeout=timeout) as client:
        client.send(request(method, path, body, *fields))
        return client.response(method=method)


def post(port: int, path: str, body: bytes | dict, *fields: tuple[str, str], timeout: float = 15.0) -> Response:
    """One POST on a connection of its own."""
    return call(port, "POST", path, body, *fields, timeout=timeout)


def get(port: int, path: str, *fields: tuple[str, str], timeout: float = 15.0) -> Response:
    """One GET on a connection of its own."""
    return call(port, "GET", path, b"", *fields, timeout=timeout)
