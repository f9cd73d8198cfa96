"""The egress proxy from both of its sides: destinations that behave as told, a router in front of them, and tunnels.

with proxy(tmp_path) as way, Server(echo) as server:
    way.allow(way.place("echo.test.example", server.port))
    with way.tunnel("echo.test.example", server.port) as tunnel:
        tunnel.send(b"hello")
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from tests.system import client
from tests.system.client import Client, Response
from tests.system.dns import Answer, Dns
from tests.system.router import Mount, Router

LOOPBACK = ["127.0.0.0/8"]
Handler = Callable[[socket.socket], object]


def until(check: Callable[[], object], timeout: float = 5.0, told: Callable[[], object] = str) -> None:
    """Waits until `check` holds; `told` says what there is instead."""
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, told()
        time.sleep(0.01)


def reset(connection: socket.socket) -> None:
    """Closes with a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def rest(connection: socket.socket) -> bytes:
    """Everything up to the end; raises where the connection is reset."""
    found = bytearray()
    while data := connection.recv(262144):
        found += data
    return bytes(found)


def ends_with_reset(connection: socket.socket) -> bool:
    """Waits for the end; says whether it is a reset."""
    connection.settimeout(10)
    try:
        rest(connection)
    except ConnectionResetError:
        return True
    return False


def echo(connection: socket.socket) -> None:
    """Sends back what comes, and its end."""
    while data := connection.recv(262144):
        connection.sendall(data)


def hold(connection: socket.socket) -> None:
    """Reads nothing, and stays until the peer has gone."""
    poll = select.poll()
    poll.register(connection, select.POLLHUP | select.POLLERR)
    poll.poll(30_000)


class Server:
    """A destination: each connection is handled on a thread of its own and then closed."""

    def __init__(self, handler: Handler, address: str = "127.0.0.1", *, port: int = 0, buffer: int = 0) -> None:
        self.handler = handler
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.listener.bind((address, port))
        self.listener.listen(1024)
        self.port: int = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        self.threads: list[threading.Thread] = []

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections.append(connection)
            thread = threading.Thread(target=self.serve, args=(connection,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), connection:
            self.handler(connection)

    def connection(self, number: int = 0, timeout: float = 5.0) -> socket.socket:
        """The connection accepted as that one, once it is there."""
        until(lambda: len(self.connections) > number, timeout)
        return self.connections[number]

    def __enter__(self) -> Self:
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self.listener, *self.connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.acceptor.join(5)
        for thread in self.threads:
            thread.join(5)


class Held:
    """A handler that gives its connections to the test and leaves them open."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        self.over.wait(30)


@contextlib.contextmanager
def scripted(address: str = "127.0.0.1", *, buffer: int = 0) -> Iterator[Server]:
    """A server whose connections (`server.connection()`) the test itself uses."""
    held = Held()
    with Server(held, address, buffer=buffer) as server:
        try:
            yield server
        finally:
            held.over.set()


@contextlib.contextmanager
def blackhole(address: str, port: int = 0) -> Iterator[int]:
    """A port where connecting gets no answer: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        time.sleep(0.02)
        yield listener.getsockname()[1]


def connect_head(authority: str, *fields: tuple[str, str]) -> bytes:
    """A CONNECT request."""
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode()


def moment(seconds: float) -> str:
    """A time that many seconds from now, as approvals have it (rounded down)."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def approval(name: str, *hosts: dict, ends: float = 3600, begins: float = -60, sandbox: str = "test-sandbox") -> dict:
    """An approval's document."""
    return {
        "schemaVersion": 2,
        "approvalName": name,
        "sandbox": sandbox,
        "hosts": list(hosts),
        "reason": "a test",
        "effectiveAt": moment(begins),
        "expiresAt": moment(ends),
    }


class Proxy:
    """A router with its lists and its names."""

    def __init__(self, router: Router, lists: Mount, approvals: Mount, dns: Dns) -> None:
        self.router = router
        self.lists = lists
        self.approvals = approvals
        self.dns = dns

    @property
    def port(self) -> int:
        return self.router.proxy_port

    def place(self, host: str, port: int, address: str | Answer = "127.0.0.1", **more: object) -> dict:
        """An endpoint for a loopback destination, whose name exists from now on."""
        self.dns.names[host] = [address] if isinstance(address, str) else address
        return {"host": host, "port": port, "addresses": LOOPBACK, **more}

    def allow(self, *endpoints: dict, deny: list[dict] | None = None) -> None:
        """Puts an allowlist in force."""
        document = {"schemaVersion": 2, "endpoints": list(endpoints), **({"deny": deny} if deny else {})}
        self.lists.swap({"allowlist.json": document})
        self.wait_list()

    def wait_list(self) -> None:
        """Waits until the mounted allowlist is in force."""
        data = (self.lists.folder / "allowlist.json").read_bytes()
        self.wait_status("EgressAllowlist", digest=bundle_digest("allowlist.json", data), last_error=None)

    def approve(self, *documents: dict) -> None:
        """Mounts exactly these approvals, and waits until they are in force."""
        before = self.router.log.count('"policy.applied"')
        self.approvals.swap({f"approval-{document['approvalName']}.json": document for document in documents})
        until(lambda: self.router.log.count('"policy.applied"') > before, told=lambda: self.router.log[-2000:])

    def wait_merged(self) -> None:
        """Waits until what is mounted as approvals is in force, where none of it is bad."""
        places = set()
        for path in [self.lists.folder / "allowlist.json", *self.approvals.folder.glob("approval-*.json")]:
            document = json.loads(path.read_bytes())
            found = document.get("endpoints", document.get("hosts", []))
            places |= {(rule["host"].lower(), rule.get("port", 443)) for rule in found}
        self.wait_status("EgressApproval", digest=merged_digest(places))

    def wait_status(self, kind: str, **members: object) -> dict:
        """Waits until the policy status has a row with these members."""
        found: list[dict | None] = [None]

        def there() -> bool:
            found[0] = self.router.entry(kind)
            return found[0] is not None and members.items() <= found[0].items()

        until(there, told=lambda: (found[0], members))
        assert found[0] is not None
        return found[0]

    def tunnel(self, host: str, port: int, *, early: bytes = b"", timeout: float = 10.0, **more: int) -> Client:
        """A client whose tunnel is open."""
        one = Client(self.port, timeout=timeout, **more)
        try:
            one.send(connect_head(f"{host}:{port}") + early)
            found = one.head()
            assert found.status == 200, found
        except BaseException:
            one.socket.close()
            raise
        return one

    def ask(self, host: str, port: int, *fields: tuple[str, str], timeout: float = 10.0) -> Response:
        """The answer to a CONNECT that gets no tunnel."""
        with Client(self.port, timeout=timeout) as one:
            one.send(connect_head(f"{host}:{port}", *fields))
            return one.response(method="CONNECT")

    def connects(self, host: str, port: int) -> bool:
        """Whether a tunnel is opened."""
        with Client(self.port) as one:
            one.send(connect_head(f"{host}:{port}"))
            return one.head().status == 200

    def records(self, host: str, amount: int = 1, timeout: float = 5.0) -> list[dict]:
        """The audit records of tunnels to a host, once there are that many."""
        deadline = time.monotonic() + timeout
        while True:
            found = [r for r in self.router.audit() if str(r["action"]).startswith(f"egress:connect:{host}:")]
            if len(found) >= amount:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.01)

    def record(self, host: str) -> dict:
        """The audit's account of the one tunnel to a host; numbers that are 0 are not written there."""
        (found,) = self.records(host)
        return {"sent_bytes": 0, "received_bytes": 0, **found["call"]}

    def memory(self) -> int:
        """Resident bytes of the router."""
        pages = int(Path(f"/proc/{self.router.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Open file descriptors of the router."""
        return len(os.listdir(f"/proc/{self.router.pid}/fd"))


def bundle_digest(name: str, data: bytes) -> str:
    """The digest of a bundle of one file, as the specification has it."""
    name_bytes = name.encode()
    framed = struct.pack("!Q", len(name_bytes)) + name_bytes + struct.pack("!Q", len(data)) + data
    return "sha256:" + hashlib.sha256(framed).hexdigest()


def merged_digest(places: Iterable[tuple[str, int]]) -> str:
    """The digest of all lists together, as the specification has it."""
    endpoints = [{"host": host, "port": port} for host, port in sorted(places)]
    text = json.dumps({"schemaVersion": 1, "endpoints": endpoints}, separators=(",", ":"))
    return bundle_digest("merged-allowlist.json", text.encode())


@contextlib.contextmanager
def proxy(
    folder: Path, names: Mapping[str, Answer] | None = None, *, endpoints: list[dict] | None = None, **environment: str
) -> Iterator[Proxy]:
    """A router in strict mode over an allowlist that is empty unless given."""
    lists, approvals = Mount(folder / "lists"), Mount(folder / "approvals")
    data = json.dumps({"schemaVersion": 2, "endpoints": endpoints or []}).encode()
    lists.swap({"allowlist.json": data})
    with Dns(names) as dns:
        given = {
            "EGRESS_MODE": "strict",
            "EGRESS_ALLOWLIST_DIR": str(lists.folder),
            "EGRESS_APPROVAL_DIR": str(approvals.folder),
            "EGRESS_LEARNED_PATH": str(folder / "learned.jsonl"),
            "EGRESS_DNS_SERVERS": dns.address,
            "EGRESS_DNS_TIMEOUT_SECS": "1",
            "EGRESS_CONNECT_TIMEOUT_SECS": "1",
            "INFERENCE_POLICY_MISSING": "open",
            "OPENAI_BASE_URL": "http://127.0.0.1:9",
            "RUST_LOG": "info",
            **environment,
        }
        router = Router(folder, given)
        try:
            router.start()
            way = Proxy(router, lists, approvals, dns)
            yield way
            if router.process is not None and router.process.poll() is None:
                assert router.metric("kars_bugs_total") == 0
        finally:
            router.stop()


def api_answers(router: Router) -> bool:
    """Whether the inference port still answers."""
    return client.get(router.port, "/healthz", timeout=5).status == 200
