"""What tests of the egress proxy share: a router under an allowlist, raw servers behind it, and the corpora."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.system import client
from tests.system.client import Client, Response
from tests.system.dns import Answer, Dns
from tests.system.router import Mount, Router

VECTORS = Path(__file__).parents[1] / "vectors"
TOKEN = "the-admin-token"
LOOPBACK = ["127.0.0.0/8"]
ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"
#: Descriptions of TLS alerts (RFC 8446 §6.2).
ACCESS_DENIED, DECODE_ERROR, INTERNAL_ERROR, UNRECOGNIZED_NAME = 49, 50, 80, 112


def until(check: Callable[[], object], timeout: float = 8.0) -> None:
    """Waits for something to become true."""
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@dataclass(frozen=True)
class Row:
    """A row of a corpus."""

    kind: str
    form: str
    data: bytes
    #: Why, or where to.
    rest: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.form} {self.data[:90]!r} ({' '.join(self.rest)})"


def rows(name: str) -> list[Row]:
    """A corpus of `tests/vectors`; its head says what the columns are."""
    found = []
    for line in (VECTORS / name).read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            kind, form, text, *rest = line.split("\t")
            found.append(Row(kind, form, unescaped(text), tuple(rest)))
    return found


def unescaped(text: str) -> bytes:
    r"""The bytes behind `\xNN`."""
    return re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), text.encode("ascii"))


class Everything(dict[str, "Answer"]):
    """Names for a `Dns` that knows all of them; those that it holds have answers of their own."""

    def __init__(self, answer: Answer, names: Mapping[str, Answer] | None = None) -> None:
        super().__init__(names or {})
        self.answer = answer

    def get(self, name: str, default: object = None) -> Answer:  # type: ignore[override]
        return super().get(name, self.answer)


class Peer:
    """A connection that a `Server` accepted."""

    def __init__(self, tcp: socket.socket, address: tuple) -> None:
        self.socket = tcp
        self.address = address
        self.data = b""
        self.ended = threading.Event()

    def more(self) -> bool:
        """Reads once; says whether anything came."""
        try:
            got = self.socket.recv(262144)
        except OSError:
            got = b""
        self.data += got
        if not got:
            self.ended.set()
        return bool(got)

    def until(self, mark: bytes) -> None:
        """Reads until `mark` has come; raises `EOFError` when it cannot."""
        while mark not in self.data:
            if not self.more():
                raise EOFError

    def drain(self) -> None:
        """Reads to the end."""
        while self.more():
            continue

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)


class Server:
    """A raw server on loopback: every byte it gets is kept, and a script says what it does with a connection."""

    def __init__(
        self, script: Callable[[Peer], None] = Peer.drain, *, address: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.script = script
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server((address, port), family=family, backlog=256)
        self.port: int = self.listener.getsockname()[1]
        self.peers: list[Peer] = []
        self.threads: list[threading.Thread] = []

    @property
    def data(self) -> bytes:
        """Everything that came, of all connections."""
        return b"".join(peer.data for peer in list(self.peers))

    def clear(self) -> None:
        """Forgets the connections so far, those too that wait to be accepted: they come in their order."""
        with socket.create_connection(self.listener.getsockname()[:2], 5) as mark:
            own = mark.getsockname()
            until(lambda: any(peer.address == own for peer in list(self.peers)))
        self.peers.clear()
        self.script = Peer.drain

    def wait(self, amount: int = 1) -> Peer:
        """The connection of that number, once it is there."""
        until(lambda: len(self.peers) >= amount)
        return self.peers[amount - 1]

    def serve(self) -> None:
        while True:
            try:
                tcp, address = self.listener.accept()
            except OSError:
                return
            tcp.settimeout(20)
            peer = Peer(tcp, address)
            self.peers.append(peer)
            thread = threading.Thread(target=self.run, args=(peer, self.script), daemon=True)
            thread.start()
            self.threads.append(thread)

    def run(self, peer: Peer, script: Callable[[Peer], None]) -> None:
        with contextlib.suppress(OSError, EOFError):
            script(peer)
        peer.socket.close()

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in [self.thread, *self.threads]:
            thread.join(5)


def answers(*replies: bytes) -> Callable[[Peer], None]:
    """A script that answers each head without a body with the next reply; the last one stays."""

    def script(peer: Peer) -> None:
        for number in range(1000):
            while peer.data.count(b"\r\n\r\n") <= number:
                if not peer.more():
                    return
            peer.send(replies[min(number, len(replies) - 1)])

    return script


def echo(peer: Peer) -> None:
    """A script that sends everything back."""
    before = 0
    while peer.more():
        peer.send(peer.data[before:])
        before = len(peer.data)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Egress:
    """A router, its allowlist and its names."""

    router: Router
    dns: Dns
    mount: Mount
    rules: list[dict] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The egress proxy's."""
        return self.router.proxy_port

    def allow(self, *endpoints: dict, deny: tuple[dict, ...] = ()) -> None:
        """Puts an allowlist in force."""
        self.rules = list(endpoints)
        before = self.digest()
        self.mount.write({"schemaVersion": 2, "endpoints": [*endpoints], "deny": [*deny]}, "allowlist.json")
        until(lambda: self.digest() != before)

    def digest(self) -> object:
        found = client.get(self.router.port, "/egress/allowlist").json
        return (found["digest"], found["generation"])

    def client(self, **more) -> Client:
        return Client(self.port, **more)

    def tunnel(self, target: str, *fields: tuple[str, str], **more) -> Client:
        """A client whose CONNECT was answered with 200."""
        opened = self.client(**more)
        opened.send(connect(target, *fields))
        found = opened.until(b"\r\n\r\n")
        assert found == ESTABLISHED, found + opened.inbox
        return opened

    def call(self, data: bytes, *, method: str = "GET") -> Response:
        """The answer to these bytes on a connection of its own."""
        with self.client() as sender:
            sender.send(data)
            return sender.response(method=method)

    def fetch(self, url: str, **more) -> Response:
        return client.post(self.router.port, "/egress/fetch", {"url": url, **more})

    def records(self, **wanted: object) -> list[dict]:
        """Audit records of egress with these members; those of `call` are among the record's own."""
        found = []
        for record in self.router.audit():
            flat = {**record.get("call", {}), **record}
            if str(flat.get("action", "")).startswith("egress:") and all(flat.get(k) == v for k, v in wanted.items()):
                found.append(flat)
        return found

    def record(self, amount: int = 1, **wanted: object) -> dict:
        """The audit record of that number with these members, once it is there."""
        until(lambda: len(self.records(**wanted)) >= amount)
        return self.records(**wanted)[amount - 1]

    def decided(self, answer: Response) -> dict:
        """The audit record of the decision that an answer names."""
        decision = answer.header("x-kars-decision-id")
        assert decision is not None
        return self.record(decision_id=decision)

    def blocked(self, host: str) -> list[dict]:
        """The rows of `/internal/egress/blocked` for a host."""
        found = client.get(self.router.port, "/internal/egress/blocked").json
        return [row for row in found["entries"] if row["host"] == host]

    def learn(self, on: bool) -> None:
        fields = ("Authorization", f"Bearer {TOKEN}")
        assert client.post(self.router.port, "/egress/learn", {"enabled": on}, fields).status == 200


@contextlib.contextmanager
def egress(folder: Path, names: Mapping[str, Answer], *endpoints: dict, **environment: str) -> Iterator[Egress]:
    """A router in strict mode under an allowlist; names are what its name server says."""
    mount = Mount(folder / "lists")
    mount.write({"schemaVersion": 2, "endpoints": [*endpoints]}, "allowlist.json")
    with Dns(names) as dns:
        given = {
            "ADMIN_TOKEN": TOKEN,
            "EGRESS_MODE": "strict",
            "EGRESS_ALLOWLIST_DIR": str(mount.folder),
            "EGRESS_APPROVAL_DIR": str(folder / "approvals"),
            "EGRESS_LEARNED_PATH": str(folder / "learned.jsonl"),
            "EGRESS_DNS_SERVERS": dns.address,
            "BLOCKLIST_FEEDS": "",
            "INFERENCE_POLICY_MISSING": "open",
            "OPENAI_BASE_URL": "http://127.0.0.1:9",
            **environment,
        }
        router = Router(folder, given).start()
        try:
            until(lambda: client.get(router.port, "/egress/allowlist").json["digest"])
            yield Egress(router, dns, mount, list(endpoints))
            assert router.metric("kars_bugs_total") == 0, router.log
        finally:
            router.stop()


def endpoint(host: str, port: int, **more: object) -> dict:
    """An endpoint that may be on loopback."""
    return {"host": host, "port": port, "addresses": LOOPBACK, **more}


def connect(target: str, *fields: tuple[str, str]) -> bytes:
    """A CONNECT head."""
    lines = [f"CONNECT {target} HTTP/1.1", *[f"{name}: {value}" for name, value in fields]]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def get(host: str, path: str = "/", *fields: tuple[str, str], method: str = "GET") -> bytes:
    """A request in origin-form without a body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *[f"{name}: {value}" for name, value in fields]]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def absolute(authority: str, path: str = "/", *fields: tuple[str, str], method: str = "GET", host: str = "") -> bytes:
    """A request in absolute form without a body."""
    return get(host or authority, f"http://{authority}{path}", *fields, method=method)


def alert(data: bytes) -> int | None:
    """The description of a fatal TLS alert that is all of the data."""
    return data[6] if len(data) == 7 and data[:2] == b"\x15\x03" and data[5] == 2 else None


def everything(opened: Client) -> bytes:
    """All that comes until the other side has closed; a reset counts as one."""
    with contextlib.suppress(ConnectionError):
        while opened.more():
            continue
    found, opened.inbox = opened.inbox, b""
    return found
