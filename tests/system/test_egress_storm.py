"""The egress port under clients that mean ill, or are many: each gets an answer, and no tunnel is disturbed."""

import contextlib
import random
import resource
import select
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.system.client import Client
from tests.system.dns import Late
from tests.system.egress import Proxy, Server, api_answers, connect_head, echo, proxy, reset, scripted, until

MIB = 1024 * 1024
TUNNELS = 20
MOST = 60


@pytest.fixture(scope="module", autouse=True)
def _descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    bounds = {"EGRESS_HEAD_TIMEOUT_SECS": "1", "RUST_LOG": "warn"}
    with proxy(tmp_path_factory.mktemp("storm"), **bounds) as running:
        yield running


@pytest.fixture
def narrow(shared_narrow: Proxy) -> Proxy:
    """A router that few may use at one time, and nobody uses."""
    until(lambda: shared_narrow.router.metric("kars_egress_connections") == 0)
    return shared_narrow


@pytest.fixture(scope="module")
def shared_narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with proxy(tmp_path_factory.mktemp("narrow"), EGRESS_MAX_CONNECTIONS=str(MOST), RUST_LOG="warn") as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(echo) as running:
        yield running


@dataclass
class Echoes:
    """Tunnels that keep echoing on a thread of their own."""

    tunnels: list[Client]
    delays: list[float] = field(default_factory=list)
    broken: list[BaseException] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.over.is_set():
            for number, tunnel in enumerate(self.tunnels):
                word = b"\0echo %d;" % number
                began = time.monotonic()
                try:
                    tunnel.send(word)
                    assert tunnel.until(b";") == word
                except (OSError, EOFError, AssertionError) as error:
                    self.broken.append(error)
                    return
                self.delays.append(time.monotonic() - began)
            time.sleep(0.005)


@contextlib.contextmanager
def echoing(way: Proxy, server: Server) -> Iterator[Echoes]:
    """Tunnels that have to live through what happens meanwhile."""
    way.allow(way.place("echo.test.example", server.port))
    with contextlib.ExitStack() as stack:
        found = Echoes([stack.enter_context(way.tunnel("echo.test.example", server.port)) for _ in range(TUNNELS)])
        thread = threading.Thread(target=found.run)
        thread.start()
        try:
            yield found
        finally:
            found.over.set()
            thread.join(15)
        assert found.broken == []
        assert len(found.delays) >= TUNNELS
        assert statistics.median(found.delays) < 0.25
        assert max(found.delays) < 3.0


def storm(port: int, amount: int, head: bytes) -> list[bytes]:
    """Opens that many connections, each of which sends a head at once; what each was told until its end."""
    told: dict[int, bytearray] = {}
    sockets: dict[int, socket.socket] = {}
    poll = select.epoll()
    for _ in range(amount):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
        sockets[one.fileno()] = one
        told[one.fileno()] = bytearray()
        poll.register(one, select.EPOLLOUT)
    deadline = time.monotonic() + 30
    finished: list[bytes] = []
    while sockets:
        assert time.monotonic() < deadline, f"{len(sockets)} connections got no end"
        for number, events in poll.poll(1):
            one = sockets[number]
            try:
                if events & select.EPOLLOUT:
                    one.send(head)
                    poll.modify(number, select.EPOLLIN)
                    continue
                data = one.recv(65536)
            except OSError as error:
                data = b""
                told[number] += b"<%s>" % type(error).__name__.encode()
            told[number] += data
            answered = told[number].startswith(b"HTTP/1.1 200") and told[number].endswith(b"\r\n\r\n")
            if not data or answered:
                poll.unregister(number)
                del sockets[number]
                one.close()
                finished.append(bytes(told.pop(number)))
    poll.close()
    return finished


def settles(way: Proxy, descriptors: int) -> None:
    """Waits until the router has closed what it opened meanwhile (a connection or two of ours aside)."""
    until(lambda: way.descriptors() <= descriptors + 4, 10, lambda: (way.descriptors(), descriptors))


class TestSlowness:
    def test_dribbled_heads_are_told_so_and_freed(self, way: Proxy, server: Server):
        with echoing(way, server):
            before = way.descriptors()
            clients = [Client(way.port) for _ in range(200)]
            head = connect_head(f"echo.test.example:{server.port}")
            began = time.monotonic()
            with contextlib.suppress(OSError):
                for at in range(15):
                    for one in clients:
                        one.send(head[at : at + 1])
                    time.sleep(0.05)
            for one in clients:
                found = one.response()
                assert (found.status, found.header("connection")) == (408, "close")
                one.close()
            assert 0.9 < time.monotonic() - began < 6
            settles(way, before)

    def test_a_dribbled_client_hello_is_freed_too(self, way: Proxy):
        before = way.descriptors()
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(100)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(way.port)) for _ in range(50)]
            began = time.monotonic()
            left = set(clients)
            for byte in hello:
                if time.monotonic() - began > 1.5:
                    break
                for one in list(left):
                    try:
                        one.send(bytes([byte]))
                    except OSError:
                        left.discard(one)
                time.sleep(0.02)
            settles(way, before)

    def test_a_client_hello_dribbled_into_a_tunnel_is_bounded_by_the_heads_time(self, way: Proxy):
        with scripted() as outer:
            way.allow(way.place("dribble.test.example", outer.port))
            with way.tunnel("dribble.test.example", outer.port) as tunnel:
                began = time.monotonic()
                with contextlib.suppress(OSError):
                    for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(100):
                        tunnel.send(bytes([byte]))
                        time.sleep(0.05)
                assert 0.9 < time.monotonic() - began < 3
        assert way.record("dribble.test.example")["sent_bytes"] == 0

    def test_connections_that_say_nothing_are_freed(self, way: Proxy, server: Server):
        with echoing(way, server):
            before = way.descriptors()
            with contextlib.ExitStack() as stack:
                for _ in range(200):
                    one = stack.enter_context(Client(way.port))
                    if random.random() < 0.5:
                        one.socket.shutdown(socket.SHUT_WR)
                settles(way, before)

    def test_half_open_tunnels_cost_their_idle_time_and_nobody_else(self, tmp_path, server: Server):
        with proxy(tmp_path, EGRESS_IDLE_TIMEOUT_SECS="1") as way, scripted() as outer, contextlib.ExitStack() as stack:
            way.allow(way.place("half.test.example", outer.port))
            before = way.descriptors()
            for _ in range(50):
                one = stack.enter_context(way.tunnel("half.test.example", outer.port))
                one.socket.shutdown(socket.SHUT_WR)
            settles(way, before)
            assert {r["call"]["end"] for r in way.records("half.test.example", 50)} == {"idle"}


class TestResets:
    @pytest.mark.parametrize("stage", ["connected", "mid-head", "asked", "established", "talking"])
    def test_resets_at_every_stage_leave_nothing(self, stage: str, way: Proxy, server: Server):
        with echoing(way, server):
            before = way.descriptors()
            way.allow(
                way.place("echo.test.example", server.port),
                way.place(f"{stage}.late.example", server.port, Late(0.2, ["127.0.0.1"])),
            )
            head = connect_head(f"echo.test.example:{server.port}")
            for _ in range(10):
                clients = [Client(way.port) for _ in range(20)]
                for one in clients:
                    match stage:
                        case "mid-head":
                            one.send(head[:20])
                        case "asked":
                            one.send(connect_head(f"{stage}.late.example:{server.port}"))
                        case "established":
                            one.send(head)
                            one.until(b"\r\n\r\n")
                        case "talking":
                            one.send(head)
                            one.until(b"\r\n\r\n")
                            one.send(b"\0abc")
                for one in clients:
                    one.reset()
            settles(way, before)

    def test_a_client_that_resets_gives_its_place_back_while_the_name_is_looked_up(self, way: Proxy):
        way.allow(way.place("slow.late.example", 443, Late(0.9, ["127.0.0.1"])))
        before = way.descriptors()
        clients = [Client(way.port) for _ in range(20)]
        for one in clients:
            one.send(connect_head("slow.late.example:443"))
        until(lambda: way.dns.asked("slow.late.example"))
        for one in clients:
            one.reset()
        began = time.monotonic()
        found = way.records("slow.late.example", 20, timeout=0.8)
        assert time.monotonic() - began < 0.8
        assert {r["call"]["end"] for r in found} == {"client_gone"}
        settles(way, before)


class TestStorm:
    def test_those_above_the_bound_are_told_to_come_back_and_the_others_go_on(self, narrow: Proxy, server: Server):
        with echoing(narrow, server):
            head = connect_head(f"echo.test.example:{server.port}")
            storm(narrow.port, 500, head)
            time.sleep(0.1)
            descriptors, memory = narrow.descriptors(), narrow.memory()
            told: list[bytes] = []
            for _ in range(10):
                told += storm(narrow.port, 1000, head)
                assert api_answers(narrow.router)
            assert len(told) == 10_000
            served = [one for one in told if one.startswith(b"HTTP/1.1 200 ")]
            turned = [one for one in told if one.startswith(b"HTTP/1.1 503 ")]
            assert len(served) + len(turned) == 10_000, {one[:60] for one in told} - {one[:60] for one in served}
            assert len(turned) > 5_000
            for one in turned[::100]:
                assert b"\r\nretry-after: 1\r\n" in one
                assert b"x-kars-decision-reason: slots\r\n" in one
            settles(narrow, descriptors)
            assert narrow.memory() - memory < 16 * MIB
        until(lambda: narrow.router.metric("kars_egress_connections") == 0, told=narrow.router.metrics)
        with narrow.tunnel("echo.test.example", server.port) as tunnel:
            tunnel.send(b"\0after")
            assert tunnel.until(b"after") == b"\0after"
        assert narrow.router.metric("kars_bugs_total") == 0

    def test_a_place_is_free_as_soon_as_its_tunnel_ends(self, narrow: Proxy, server: Server):
        narrow.allow(narrow.place("echo.test.example", server.port))
        with contextlib.ExitStack() as stack:
            tunnels = [stack.enter_context(narrow.tunnel("echo.test.example", server.port)) for _ in range(MOST)]
            # Connections that are told to come back, and linger, take no place.
            for _ in range(100):
                stack.enter_context(Client(narrow.port))
            assert narrow.ask("echo.test.example", server.port).status == 503
            reset(tunnels[0].socket)
            until(lambda: narrow.connects("echo.test.example", server.port))

    def test_the_router_asks_for_all_descriptors_that_it_may_have(self, tmp_path):
        limits = ["sh", "-c", 'ulimit -Sn 256; ulimit -Hn 4096; exec "$@"', "sh"]
        with proxy(tmp_path) as way:
            way.router.stop()
            way.router.start(under=limits)
            assert resource.prlimit(way.router.pid, resource.RLIMIT_NOFILE) == (4096, 4096)
            assert "router.descriptors" in way.router.log
