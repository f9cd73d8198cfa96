"""A small HTTP/2 client (RFC 9113) for tests: it sends the frames it is told to and shows those that came.

Answers' fields are not decoded, only told apart: `opened` knows `:status: 200`, whose code (RFC 7541 §6.1) is one byte.
"""

import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Self

from tests.system.egress import reset

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
NO_ERROR, CANCEL, CONNECT_ERROR, ENHANCE_YOUR_CALM = 0, 8, 10, 11
INITIAL_WINDOW = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of a RST_STREAM or GOAWAY."""
        return struct.unpack("!I", self.payload[4:8] if self.kind == GOAWAY else self.payload[:4])[0]

    @property
    def ends(self) -> bool:
        return self.kind in {DATA, HEADERS} and bool(self.flags & END_STREAM)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def connect_block(authority: str) -> bytes:
    """The header block of a CONNECT: literals without indexing, names from the static table."""
    fields = [(2, b"CONNECT"), (1, authority.encode())]
    return b"".join(bytes([name, len(value)]) + value for name, value in fields)


class H2:
    """One connection. Received DATA gives its window back unless `thrifty`."""

    def __init__(self, port: int, *, timeout: float = 10.0, thrifty: bool = False, window: int = 65_535) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inbox = b""
        self.thrifty = thrifty
        self.last = -1
        self.waiting: list[Frame] = []
        settings = struct.pack("!HI", INITIAL_WINDOW, window)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def reset_all(self) -> None:
        """Leaves with a RST of the connection."""
        reset(self.socket)

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        for at in range(0, max(len(data), 1), 16_384):
            piece = data[at : at + 16_384]
            last = end and at + 16_384 >= len(data)
            self.socket.sendall(frame(DATA, END_STREAM if last else 0, stream, piece))

    def reset(self, stream: int, code: int = CANCEL) -> None:
        self.socket.sendall(frame(RST_STREAM, 0, stream, struct.pack("!I", code)))

    def begin(self, authority: str) -> int:
        """Asks for a tunnel; its stream."""
        self.last += 2
        self.socket.sendall(frame(HEADERS, END_HEADERS, self.last, connect_block(authority)))
        return self.last

    def opened(self, stream: int) -> bool:
        """Whether the answer is 200 and the stream stays open."""
        found = self.next(stream, HEADERS)
        return found.payload[:1] == b"\x88" and not found.ends

    def tunnel(self, authority: str) -> int:
        """A stream whose tunnel is open."""
        stream = self.begin(authority)
        assert self.opened(stream)
        return stream

    def read(self) -> Frame:
        """The next frame, whatever it is; settings and pings are answered."""
        head = self.take(9)
        size = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack("!BBI", head[3:])
        found = Frame(kind, flags, stream, self.take(size))
        if kind in {SETTINGS, PING} and not flags & ACK:
            self.socket.sendall(frame(kind, ACK, 0, found.payload if kind == PING else b""))
        if kind == DATA and size and not self.thrifty:
            update = struct.pack("!I", size)
            self.socket.sendall(frame(WINDOW_UPDATE, 0, 0, update) + frame(WINDOW_UPDATE, 0, stream, update))
        return found

    def take(self, size: int) -> bytes:
        while len(self.inbox) < size:
            data = self.socket.recv(262_144)
            if not data:
                raise EOFError
            self.inbox += data
        found, self.inbox = self.inbox[:size], self.inbox[size:]
        return found

    def next(self, stream: int, *kinds: int) -> Frame:
        """The next frame of a stream (of these kinds, if any are told); others wait for who asks for them."""
        for number, one in enumerate(self.waiting):
            if one.stream == stream and (not kinds or one.kind in kinds):
                return self.waiting.pop(number)
        while True:
            one = self.read()
            if one.stream == stream and (not kinds or one.kind in kinds):
                return one
            if one.kind in {DATA, HEADERS, RST_STREAM, GOAWAY}:
                self.waiting.append(one)

    def data(self, stream: int, size: int) -> bytes:
        """That many bytes of a stream."""
        found = b""
        while len(found) < size:
            one = self.next(stream, DATA, RST_STREAM)
            assert one.kind == DATA, f"reset with {one.code}"
            found += one.payload
            assert not one.ends or len(found) >= size, found
        return found

    def rest(self, stream: int) -> tuple[bytes, int | None]:
        """What a stream still brings, and the code of its reset if that is its end."""
        found = b""
        while True:
            one = self.next(stream, DATA, RST_STREAM)
            if one.kind == RST_STREAM:
                return found, one.code
            found += one.payload
            if one.ends:
                return found, None

    def goodbye(self) -> list[int]:
        """The codes of all GOAWAYs until the connection ends, as far as a reset has left them."""
        found = [one for one in self.waiting if one.kind == GOAWAY]
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                one = self.read()
                if one.kind == GOAWAY:
                    found.append(one)
        return [one.code for one in found]
