"""What a CONNECT tunnel moves, how it ends, and what is recorded of it."""

import contextlib
import hashlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.system import client
from tests.system.dns import Code, Late, Silent
from tests.system.egress import (
    LOOPBACK,
    Proxy,
    Server,
    approval,
    blackhole,
    connect_head,
    echo,
    ends_with_reset,
    hold,
    proxy,
    reset,
    rest,
    scripted,
    until,
)
from tests.system.test_audit import verify

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A router with nothing out of the ordinary."""
    with proxy(tmp_path_factory.mktemp("tunnels")) as running:
        yield running


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A router whose tunnels are bounded."""
    folder = tmp_path_factory.mktemp("short")
    bounds = {"EGRESS_IDLE_TIMEOUT_SECS": "0.5", "EGRESS_LIFETIME_SECS": "1", "EGRESS_MAX_BYTES": "1000000"}
    with proxy(folder, **bounds) as running:
        yield running


class TestBytes:
    def test_both_ways_at_once_every_byte_arrives(self, way: Proxy):
        size = 64 * MIB
        # The first byte begins neither TLS nor HTTP, so nobody looks for names in the rest.
        block = b"\0" + os.urandom(MIB - 1)
        want = hashlib.sha256(block * (size // MIB)).hexdigest()
        got: dict[str, str] = {}

        def receive(name: str, connection: socket.socket, first: bytes = b"") -> None:
            digest = hashlib.sha256(first)
            while data := connection.recv(MIB):
                digest.update(data)
            got[name] = digest.hexdigest()

        def give(connection: socket.socket) -> None:
            for _ in range(size // MIB):
                connection.sendall(block)
            connection.shutdown(socket.SHUT_WR)

        def serve(connection: socket.socket) -> None:
            reader = threading.Thread(target=receive, args=("server", connection))
            reader.start()
            give(connection)
            reader.join()

        with Server(serve) as server:
            way.allow(way.place("bulk.test.example", server.port))
            with way.tunnel("bulk.test.example", server.port, timeout=30) as tunnel:
                sender = threading.Thread(target=give, args=(tunnel.socket,))
                sender.start()
                receive("client", tunnel.socket, tunnel.inbox)
                sender.join()
                until(lambda: len(got) == 2)
        assert got == {"client": want, "server": want}
        call = way.record("bulk.test.example")
        assert (call["sent_bytes"], call["received_bytes"], call["end"]) == (size, size, "complete")

    @pytest.mark.parametrize("first", ["client", "server"])
    def test_a_half_close_is_passed_on_and_the_other_way_stays_open(self, first: str, way: Proxy):
        host = f"half-{first}.test.example"
        with scripted() as server:
            way.allow(way.place(host, server.port))
            with way.tunnel(host, server.port) as tunnel:
                outer = server.connection()
                near, far = (tunnel.socket, outer) if first == "client" else (outer, tunnel.socket)
                near.sendall(b"\0the last")
                near.shutdown(socket.SHUT_WR)
                assert rest(far) == b"\0the last"
                for n in range(20):
                    far.sendall(b"still %d" % n)
                far.shutdown(socket.SHUT_WR)
                assert rest(near) == b"".join(b"still %d" % n for n in range(20))
        assert way.record(host)["end"] == "complete"

    @pytest.mark.parametrize("word", [b"\0" * 40_000, b"G", b"GET", b"PRI", b"POST key", b"\x17\x03\x03", b"x"])
    def test_what_comes_with_the_head_goes_into_the_tunnel(self, word: bytes, way: Proxy):
        host = f"early-{len(word)}-{word[0]}.test.example"
        with Server(lambda one: one.sendall(b"got " + rest(one))) as server:
            way.allow(way.place(host, server.port))
            with way.tunnel(host, server.port, early=word) as tunnel:
                tunnel.socket.shutdown(socket.SHUT_WR)
                assert tunnel.inbox + rest(tunnel.socket) == b"got " + word
        assert way.record(host)["sent_bytes"] == len(word)

    def test_a_head_in_pieces_and_bytes_behind_it(self, way: Proxy):
        with Server(echo) as server:
            way.allow(way.place("pieces.test.example", server.port))
            with client.Client(way.port) as one:
                for byte in connect_head(f"pieces.test.example:{server.port}") + b"\0abc":
                    one.send(bytes([byte]))
                assert one.head().status == 200
                assert one.until(b"abc") == b"\0abc"

    def test_a_server_that_speaks_first_is_heard(self, way: Proxy):
        with Server(lambda one: (one.sendall(b"220 hello\r\n"), echo(one))) as server:
            way.allow(way.place("first.test.example", server.port))
            with way.tunnel("first.test.example", server.port) as tunnel:
                assert tunnel.until(b"\r\n") == b"220 hello\r\n"
                tunnel.send(b"GET whatever\r\n")
                assert tunnel.until(b"\r\n") == b"GET whatever\r\n"

    @pytest.mark.parametrize("before", [b"", b"\r\n", b"\r\n\r\n", b"\n"], ids=["plain", "line", "lines", "bare"])
    def test_a_request_for_another_host_is_found_behind_empty_lines_too(self, before: bytes, way: Proxy):
        host = f"fronted-{before.hex()}x.test.example"
        with scripted() as server:
            way.allow(way.place(host, server.port))
            with way.tunnel(host, server.port, early=before) as tunnel:
                tunnel.send(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n")
                assert tunnel.response().status in {400, 403}
            assert b"other" not in rest(server.connection())

    def test_ipv6_literals_are_reached_under_a_grant_alone(self, way: Proxy):
        with Server(echo, "::1") as server:
            granted = {"host": "::1", "port": server.port, "addresses": ["::1"]}
            way.allow({"host": "::2", "port": server.port, "addresses": ["::2"]})
            assert way.ask("[::1]", server.port).status == 403
            way.allow(granted)
            for spelling in ("[::1]", "[0:0:0:0:0:0:0:1]"):
                with way.tunnel(spelling, server.port) as tunnel:
                    tunnel.send(b"\0six")
                    assert tunnel.until(b"six") == b"\0six"
        until(lambda: len([r for r in way.records("[::1]") if r["call"].get("address") == "::1"]) == 2)


class TestResets:
    def test_the_clients_reset_reaches_the_server(self, way: Proxy):
        with scripted() as server:
            way.allow(way.place("client-rst.test.example", server.port))
            tunnel = way.tunnel("client-rst.test.example", server.port)
            tunnel.send(b"\0abc")
            assert server.connection().recv(4) == b"\0abc"
            tunnel.reset()
            assert ends_with_reset(server.connection())
        assert way.record("client-rst.test.example")["end"] == "client_reset"

    def test_the_servers_reset_reaches_the_client_behind_its_bytes(self, way: Proxy):
        with scripted() as server:
            way.allow(way.place("server-rst.test.example", server.port))
            with way.tunnel("server-rst.test.example", server.port) as tunnel:
                tunnel.send(b"\0abc")
                server.connection().recv(4)
                server.connection().sendall(b"why")
                assert tunnel.until(b"why") == b"why"
                reset(server.connection())
                assert ends_with_reset(tunnel.socket)
        assert way.record("server-rst.test.example")["end"] == "upstream_reset"

    @pytest.mark.parametrize("side", ["client", "server"])
    @pytest.mark.parametrize("said", [b"", b"GET "], ids=["silent", "begun"])
    def test_a_reset_of_a_tunnel_that_has_said_nothing_clear_yet(self, side: str, said: bytes, way: Proxy):
        host = f"young-{side}-{len(said)}.test.example"
        with scripted() as server:
            way.allow(way.place(host, server.port))
            with way.tunnel(host, server.port, early=said) as tunnel:
                outer = server.connection()
                if said:
                    assert outer.recv(100) == said
                if side == "client":
                    tunnel.reset()
                    assert ends_with_reset(outer)
                else:
                    reset(outer)
                    assert ends_with_reset(tunnel.socket)
        assert way.record(host)["end"] == ("client_reset" if side == "client" else "upstream_reset")

    def test_a_reset_is_seen_while_the_other_side_reads_nothing(self, way: Proxy):
        with scripted() as server:
            way.allow(way.place("stuck-rst.test.example", server.port))
            with way.tunnel("stuck-rst.test.example", server.port) as tunnel:
                fill(server.connection())
                reset(server.connection())
                assert way.record("stuck-rst.test.example")["end"] == "upstream_reset"
                tunnel.close()


def fill(connection: socket.socket) -> int:
    """Sends until nothing more is taken; bytes sent."""
    sent = 0
    connection.setblocking(False)
    block = bytes(256 * 1024)
    while select.select([], [connection], [], 0.15)[1]:
        with contextlib.suppress(BlockingIOError):
            sent += connection.send(block)
    connection.setblocking(True)
    return sent


class TestStalls:
    def test_peers_that_never_read_cost_little_and_stop_nobody(self, way: Proxy):
        amount = 8
        with Server(hold, buffer=8192) as sink, Server(echo) as server, contextlib.ExitStack() as stack:
            way.allow(way.place("sink.test.example", sink.port), way.place("echo.test.example", server.port))
            lively = stack.enter_context(way.tunnel("echo.test.example", server.port))
            lively.send(b"\0warm")
            lively.until(b"warm")
            stalled = [stack.enter_context(way.tunnel("sink.test.example", sink.port)) for _ in range(amount)]
            # The thread's own buffers are no tunnel's.
            fill(stalled[0].socket)
            before = way.memory()
            threads = [threading.Thread(target=fill, args=(tunnel.socket,)) for tunnel in stalled[1:]]
            for thread in threads:
                thread.start()
            began, slowest = time.monotonic(), 0.0
            while time.monotonic() - began < 0.5:
                sent = time.monotonic()
                lively.send(b"\0ping")
                lively.until(b"ping")
                slowest = max(slowest, time.monotonic() - sent)
            for thread in threads:
                thread.join()
            assert way.memory() - before < 2 * MIB * (amount - 1)
            assert slowest < 1.0


class TestBounds:
    def test_silence_ends_a_tunnel(self, short: Proxy):
        with scripted() as server:
            short.allow(short.place("idle.test.example", server.port))
            with short.tunnel("idle.test.example", server.port) as tunnel:
                tunnel.send(b"\0abc")
                began = time.monotonic()
                assert ends_with_reset(tunnel.socket)
                assert 0.4 < time.monotonic() - began < 2
                assert ends_with_reset(server.connection())
        assert short.record("idle.test.example")["end"] == "idle"

    def test_silence_from_the_beginning_ends_a_tunnel_too(self, short: Proxy):
        with scripted() as server:
            short.allow(short.place("mute.test.example", server.port))
            with short.tunnel("mute.test.example", server.port) as tunnel:
                assert ends_with_reset(tunnel.socket)
                assert ends_with_reset(server.connection())
        assert short.record("mute.test.example")["end"] == "idle"

    @pytest.mark.parametrize("first", [b"\0", b"GET "], ids=["opaque", "unclear"])
    def test_a_lively_tunnel_ends_with_its_life(self, first: bytes, short: Proxy):
        host = f"life-{len(first)}.test.example"
        with scripted() as server:
            short.allow(short.place(host, server.port))
            with short.tunnel(host, server.port, early=first) as tunnel:
                began = time.monotonic()
                with contextlib.suppress(ConnectionError):
                    while time.monotonic() - began < 4:
                        tunnel.send(b"x")
                        time.sleep(0.1)
                assert 0.9 < time.monotonic() - began < 2.5
                assert ends_with_reset(server.connection())
        assert short.record(host)["end"] == "lifetime"

    @pytest.mark.parametrize("more", [0, 1], ids=["exact", "one more"])
    @pytest.mark.parametrize("side", ["client", "server"])
    def test_a_tunnel_moves_what_its_bound_allows_and_not_a_byte_more(self, side: str, more: int, short: Proxy):
        host, most = f"most-{side}-{more}.test.example", 1_000_000
        with scripted() as server:
            short.allow(short.place(host, server.port))
            with short.tunnel(host, server.port) as tunnel:
                outer = server.connection()
                near, far = (tunnel.socket, outer) if side == "client" else (outer, tunnel.socket)
                near.sendall(bytes(most))
                assert taken(far, most) == bytes(most)
                near.sendall(bytes(more))
                if not more:
                    tunnel.socket.shutdown(socket.SHUT_WR)
                    outer.shutdown(socket.SHUT_WR)
                else:
                    assert ends_with_reset(near)
                call = short.record(host)
                assert call["sent_bytes"] + call["received_bytes"] == most
                assert call["end"] == ("bytes" if more else "complete")

    def test_the_rules_bound_counts_both_ways_together(self, way: Proxy):
        with Server(echo) as server:
            way.allow(way.place("both.test.example", server.port, maxBytes=1000))
            with way.tunnel("both.test.example", server.port) as tunnel:
                for _ in range(50):
                    tunnel.send(b"\0" + b"x" * 9)
                    tunnel.fill(10)
                    tunnel.inbox = b""
                tunnel.send(b"y")
                assert ends_with_reset(tunnel.socket)
        call = way.record("both.test.example")
        assert (call["sent_bytes"], call["received_bytes"], call["end"]) == (500, 500, "bytes")

    @pytest.mark.parametrize("word", [b"GET aaaaaaaaaaaaaaaa", b"\0" + b"a" * 19, b"G"])
    def test_what_comes_early_counts(self, word: bytes, way: Proxy):
        host = f"early-bound-{word[0]}-{len(word)}.test.example"
        with scripted() as server:
            way.allow(way.place(host, server.port, maxBytes=10))
            with way.tunnel(host, server.port, early=word) as tunnel:
                outer = server.connection()
                assert taken(outer, min(len(word), 10)) == word[:10]
                if len(word) < 10:
                    tunnel.send(b" more than that")
                    assert taken(outer, 9) == b" more tha"
                assert ends_with_reset(tunnel.socket)
        call = way.record(host)
        assert (call["sent_bytes"], call["received_bytes"], call["end"]) == (10, 0, "bytes")

    def test_an_approvals_end_is_its_tunnels_end_and_lets_nobody_else_in(self, way: Proxy):
        # Silent, opaque, and not clear yet.
        words = [b"", b"\0abc", b"GET "]
        with scripted() as server, contextlib.ExitStack() as stack:
            way.allow()
            rules = [way.place(f"approved-{n}.test.example", server.port) for n in range(len(words))]
            ends = int(time.time()) + 2
            way.approve(approval("brief", *rules, ends=ends + 0.01 - time.time()))
            tunnels = [
                stack.enter_context(way.tunnel(rule["host"], server.port, early=word))
                for rule, word in zip(rules, words, strict=True)
            ]
            for number, tunnel in enumerate(tunnels):
                assert ends_with_reset(tunnel.socket)
                assert abs(time.time() - ends) < 0.5
                assert ends_with_reset(server.connection(number))
                assert way.record(rules[number]["host"])["end"] == "lifetime"
            refused = way.ask(rules[0]["host"], server.port)
            assert (refused.status, b"until" in refused.body) == (403, True)


def taken(connection: socket.socket, size: int) -> bytes:
    """That many bytes."""
    found = bytearray()
    while len(found) < size:
        data = connection.recv(size - len(found))
        assert data
        found += data
    return bytes(found)


class TestReaching:
    def test_every_address_is_tried_before_giving_up(self, way: Proxy):
        # 127.0.0.11 refuses, 127.0.0.12 says nothing.
        with Server(echo, "127.0.0.13") as server, blackhole("127.0.0.12", server.port):
            addresses = ["127.0.0.11", "127.0.0.12", "127.0.0.13"]
            way.allow(way.place("many.test.example", server.port, addresses))
            with way.tunnel("many.test.example", server.port) as tunnel:
                tunnel.send(b"\0there")
                assert tunnel.until(b"there") == b"\0there"
        assert way.record("many.test.example")["address"] == "127.0.0.13"

    def test_a_refused_connection_is_told(self, way: Proxy):
        with socket.socket() as unused:
            unused.bind(("127.0.0.14", 0))
            port = unused.getsockname()[1]
            way.allow(way.place("refused.test.example", port, "127.0.0.14"))
            found = way.ask("refused.test.example", port)
        assert (found.status, b"refused" in found.body) == (502, True)
        assert found.header("proxy-status") == "kars; error=connection_refused"
        record = way.record("refused.test.example")
        assert (record["status"], record["end"]) == (502, "connect_failed")

    def test_no_answer_to_connecting_is_told(self, way: Proxy):
        with blackhole("127.0.0.15") as port:
            way.allow(way.place("hole.test.example", port, "127.0.0.15"))
            found = way.ask("hole.test.example", port)
        assert (found.status, found.header("proxy-status")) == (504, "kars; error=connection_timeout")
        assert way.record("hole.test.example")["end"] == "connect_timeout"

    def test_a_name_server_that_says_nothing_is_told(self, way: Proxy):
        way.allow(way.place("silent.test.example", 443, Silent()))
        began = time.monotonic()
        found = way.ask("silent.test.example", 443)
        assert time.monotonic() - began < 3
        assert (found.status, found.header("proxy-status")) == (504, "kars; error=dns_timeout")
        assert b"no name server answered within 1s" in found.body
        assert way.record("silent.test.example")["end"] == "resolve_timeout"

    def test_a_name_that_does_not_exist_is_told_with_the_words_of_old(self, way: Proxy):
        way.allow({"host": "missing.test.example", "port": 443, "addresses": LOOPBACK})
        with client.Client(way.port) as one:
            one.send(connect_head("missing.test.example:443"))
            line = one.until(b"\r\n").decode()
        assert line == "HTTP/1.1 502 Bad Gateway \u2014 DNS validation failed\r\n"
        assert way.record("missing.test.example")["end"] == "resolve_failed"

    def test_a_name_server_that_fails_is_told(self, way: Proxy):
        way.allow(way.place("failing.test.example", 443, Code(2)))
        found = way.ask("failing.test.example", 443)
        assert (found.status, found.header("proxy-status")) == (502, "kars; error=dns_error")

    def test_a_slow_name_does_not_hold_others_up(self, way: Proxy):
        with Server(echo) as server:
            way.allow(
                way.place("late.test.example", server.port, Late(0.3, ["127.0.0.1"])),
                way.place("quick.test.example", server.port),
            )
            with client.Client(way.port) as slow:
                slow.send(connect_head(f"late.test.example:{server.port}"))
                began = time.monotonic()
                way.tunnel("quick.test.example", server.port).close()
                assert time.monotonic() - began < 0.25
                assert slow.head().status == 200


class TestRecords:
    def test_a_tunnels_record_tells_bytes_duration_address_and_end(self, way: Proxy):
        with Server(echo, "127.0.0.16") as server:
            way.allow(way.place("told.test.example", server.port, "127.0.0.16"))
            with client.Client(way.port) as one:
                trace = ("x-kars-trace-id", "a-tunnels-trace")
                one.send(connect_head(f"told.test.example:{server.port}", trace))
                assert one.head().status == 200
                one.send(b"\0hello")
                one.until(b"hello")
                time.sleep(0.2)
                one.socket.shutdown(socket.SHUT_WR)
                assert rest(one.socket) == b""
        (record,) = way.records("told.test.example")
        assert record["decision"] == "allow"
        call = record["call"]
        assert (call["sent_bytes"], call["received_bytes"]) == (6, 6)
        assert (call["address"], call["end"], call["status"]) == ("127.0.0.16", "complete", 200)
        assert 200_000 < call["latency_us"] < 5_000_000
        assert 0 < call["first_byte_us"] < call["latency_us"]
        assert call["rule"] == "allowlist.endpoints[0]"
        assert call["trace_id"] == "a-tunnels-trace"
        entry = way.router.entry("EgressAllowlist")
        assert entry is not None
        assert call["policy"] == entry["digest"]

    def test_kill_9_with_open_tunnels_leaves_a_record_that_can_be_verified(self, tmp_path):
        with proxy(tmp_path) as way, Server(echo) as server, contextlib.ExitStack() as stack:
            way.allow(way.place("echo.test.example", server.port))
            for _ in range(10):
                tunnel = stack.enter_context(way.tunnel("echo.test.example", server.port))
                tunnel.send(b"\0abc")
                tunnel.until(b"abc")
            way.tunnel("echo.test.example", server.port).close()
            way.records("echo.test.example")
            way.router.kill()
            found = verify(way.router.audit_folder)
            assert found.returncode == 0, found.stdout + found.stderr
            way.router.start()
            way.tunnel("echo.test.example", server.port).close()
            way.records("echo.test.example", 2)
            assert verify(way.router.audit_folder).returncode == 0
