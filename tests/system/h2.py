"""Just enough HTTP/2 (RFC 9113) for CONNECT: one connection, frames by hand, HPACK literals without an index."""

import socket
import struct
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
#: `:status: 200` (RFC 7541, appendix A, entry 8).
STATUS_200 = 0x88


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def literal(name: str, value: str) -> bytes:
    """A field without indexing, both parts as they are (RFC 7541 §6.2.2)."""
    parts = [name.encode(), value.encode()]
    assert all(len(part) < 127 for part in parts)
    return b"\0" + b"".join(bytes([len(part)]) + part for part in parts)


class H2:
    """A connection with prior knowledge. Streams are odd numbers."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.inbox = b""
        self.heads: dict[int, bytes] = {}
        self.bodies: dict[int, bytes] = {}
        self.over: set[int] = set()
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def step(self) -> None:
        """Takes one frame."""
        while len(self.inbox) < 9 or len(self.inbox) < 9 + int.from_bytes(self.inbox[:3], "big"):
            got = self.socket.recv(65536)
            if not got:
                raise EOFError
            self.inbox += got
        size, kind, flags = int.from_bytes(self.inbox[:3], "big"), self.inbox[3], self.inbox[4]
        stream = int.from_bytes(self.inbox[5:9], "big")
        payload, self.inbox = self.inbox[9 : 9 + size], self.inbox[9 + size :]
        if kind in {SETTINGS, PING} and not flags & ACK:
            self.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind == HEADERS:
            self.heads[stream] = payload
        elif kind == DATA:
            self.bodies[stream] = self.bodies.get(stream, b"") + payload
        if kind == RST_STREAM or (kind in {HEADERS, DATA} and flags & END_STREAM):
            self.over.add(stream)

    def connect(self, stream: int, authority: str, *fields: tuple[str, str]) -> bool:
        """Asks for a tunnel; says whether it was opened."""
        block = b"".join(literal(*field) for field in ((":method", "CONNECT"), (":authority", authority), *fields))
        self.socket.sendall(frame(HEADERS, END_HEADERS, stream, block))
        while stream not in self.heads and stream not in self.over:
            self.step()
        return self.heads.get(stream, b"\0")[0] == STATUS_200

    def data(self, stream: int, payload: bytes) -> None:
        self.socket.sendall(frame(DATA, 0, stream, payload))

    def until_data(self, stream: int, size: int) -> bytes:
        """What has come on a stream, once it is so much."""
        while len(self.bodies.get(stream, b"")) < size:
            self.step()
        return self.bodies[stream]

    def ended(self, stream: int) -> bool:
        """Waits for the stream's end."""
        try:
            while stream not in self.over:
                self.step()
        except TimeoutError:
            return False
        except (EOFError, ConnectionError):
            return True
        return True
