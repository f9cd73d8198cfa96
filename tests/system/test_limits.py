"""What a client may send is bounded, and one client's slowness is its own."""

import contextlib
import threading
import time

import pytest

from tests.system import behaviours, client, payloads
from tests.system.conftest import StartRouter
from tests.system.dialects import ALL, CHAT, Dialect
from tests.system.router import Router
from tests.system.upstream import Upstream

every_dialect = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@every_dialect
def test_a_body_above_the_cap_gets_413_naming_the_limit(
    framing: str, dialect: Dialect, start_router: StartRouter, upstream: Upstream
):
    router = start_router(ROUTER_BODY_LIMIT_BYTES="20000")
    body = payloads.pack(dialect.request("x" * 30_000))
    head = f"POST {dialect.path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    with client.Client(router.port) as one:
        if framing == "length":
            one.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        else:
            chunks = behaviours.chunked(body) + behaviours.LAST_CHUNK
            one.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks)
        found = one.response()
    assert found.status == 413
    assert "20000" in dialect.error(found.json)["message"]
    assert upstream.received == []


def test_a_body_at_the_cap_passes(start_router: StartRouter, upstream: Upstream):
    router = start_router(ROUTER_BODY_LIMIT_BYTES="20000")
    body = payloads.pack(CHAT.request(""))
    body = payloads.pack(CHAT.request("x" * (20_000 - len(body))))
    assert len(body) == 20_000
    assert client.post(router.port, CHAT.path, body).status == 200


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_counts_against_the_memory_of_all_however_small_its_pieces(framing: str, start_router: StartRouter):
    router = start_router(ROUTER_BODY_MEMORY_BYTES="200000")
    body = payloads.pack(CHAT.request("x" * 300_000))
    head = f"POST {CHAT.path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
    with client.Client(router.port) as one:
        if framing == "length":
            one.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        else:
            one.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            with contextlib.suppress(ConnectionError):
                for at in range(0, len(body), 10_000):
                    one.send(behaviours.chunked(body[at : at + 10_000]))
                    time.sleep(0.005)
        found = one.response()
    assert found.status == 503
    assert "ROUTER_BODY_MEMORY_BYTES" in found.text


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null", b"[{}]"])
@every_dialect
def test_json_that_is_no_object_gets_400(body: bytes, dialect: Dialect, shared_router: Router):
    found = client.post(shared_router.port, dialect.path, body)
    assert found.status == 400
    dialect.error(found.json)


@pytest.mark.parametrize("body", [b"", b"{", b'{"model":}', b"\xff\xfe{}", b'{"model":"x"} trailing'])
@every_dialect
def test_what_is_no_json_gets_400(body: bytes, dialect: Dialect, shared_router: Router):
    found = client.post(shared_router.port, dialect.path, body)
    assert found.status == 400
    dialect.error(found.json)


def test_a_deeply_nested_body_does_no_harm(shared_router: Router, shared_upstream: Upstream):
    shared_upstream.next(behaviours.answer(CHAT.whole()))
    body = b'{"model":"m","messages":[],"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert client.post(shared_router.port, CHAT.path, body).status in {200, 400}
    assert client.get(shared_router.port, "/healthz").status == 200
    shared_upstream.clear()


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/messages HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length : 2\r\n\r\n{}",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nX-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: h\r\nX-Nul: a\x00b\r\n\r\n",
        b"GET  /healthz HTTP/1.1\r\nHost: h\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_an_ambiguous_request_is_refused_and_its_connection_closed(
    raw: bytes, shared_router: Router, shared_upstream: Upstream
):
    before = len(shared_upstream.received)
    with client.Client(shared_router.port) as one:
        one.send(raw + client.request("GET", "/healthz"))
        found = one.response()
        assert found.status in {400, 501}
        with contextlib.suppress(ConnectionError):
            assert not one.more() or b"200" not in one.inbox
    assert len(shared_upstream.received) == before


def test_a_head_above_the_cap_gets_431(shared_router: Router):
    with client.Client(shared_router.port) as one:
        with contextlib.suppress(ConnectionError):
            one.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * 200_000 + b"\r\n\r\n")
        assert one.response().status == 431


def test_too_many_fields_get_431(shared_router: Router):
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(500))
    with client.Client(shared_router.port) as one:
        one.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n")
        assert one.response().status in {400, 431}


def test_a_head_that_trickles_in_is_given_up(start_router: StartRouter):
    router = start_router(ROUTER_HEAD_TIMEOUT_SECS="1")
    began = time.monotonic()
    with client.Client(router.port) as one:
        ended = False
        for byte in b"POST /v1/chat/completions HTTP/1.1\r\nHost: slow.example\r\nX-A: b\r\n":
            try:
                one.send(bytes([byte]))
            except ConnectionError:
                ended = True
                break
            time.sleep(0.05)
        if not ended:
            with contextlib.suppress(ConnectionError):
                found = one.response()
                assert found.status == 408
    assert 0.9 < time.monotonic() - began < 4.5


def test_a_body_that_stops_coming_is_given_up(start_router: StartRouter, upstream: Upstream):
    router = start_router(ROUTER_BODY_TIMEOUT_SECS="1")
    with client.Client(router.port) as one:
        one.send(b'POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{"model"')
        found = one.response()
    assert found.status == 408
    assert upstream.received == []


def test_an_idle_connection_is_closed(start_router: StartRouter):
    router = start_router(ROUTER_CLIENT_IDLE_SECS="1")
    with client.Client(router.port, timeout=5) as one:
        one.send(client.request("GET", "/healthz"))
        assert one.response().status == 200
        assert not one.more()


def test_slow_readers_do_not_hold_up_others(start_router: StartRouter, upstream: Upstream):
    router = start_router()
    text = CHAT.events(*["x" * 10_000] * 1_000)
    upstream.default = behaviours.by_stream(behaviours.answer(CHAT.whole()), behaviours.stream(text))
    with contextlib.ExitStack() as held:
        slow = [held.enter_context(client.Client(router.port, receive_buffer=4096)) for _ in range(10)]
        for one in slow:
            one.post(CHAT.path, CHAT.request(stream=True))
        for one in slow:
            one.head()
        upstream.wait(10)
        began = time.monotonic()
        for _ in range(20):
            assert client.post(router.port, CHAT.path, CHAT.request()).status == 200
        assert time.monotonic() - began < 5
        assert memory(router.pid) < 150_000_000


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    with open(f"/proc/{pid}/status") as lines:
        (line,) = [line for line in lines if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


def test_a_reader_that_stops_is_given_up_and_the_upstream_left(start_router: StartRouter, upstream: Upstream):
    router = start_router(ROUTER_CLIENT_STALL_SECS="1")
    upstream.next(behaviours.stream(CHAT.events(*["x" * 100_000] * 200)))
    with client.Client(router.port, receive_buffer=4096) as one:
        one.post(CHAT.path, CHAT.request(stream=True))
        one.head()
        upstream.wait(1).left_at(timeout=10)


def test_calls_above_the_concurrency_limit_get_503(start_router: StartRouter, upstream: Upstream):
    router = start_router(ROUTER_CONCURRENCY_LIMIT="2")
    upstream.default = behaviours.never()
    with client.Client(router.port) as one, client.Client(router.port) as two:
        one.post(CHAT.path, CHAT.request())
        two.post(CHAT.path, CHAT.request())
        upstream.wait(2)
        found = client.post(router.port, CHAT.path, CHAT.request())
    assert found.status == 503
    assert int(found.header("retry-after") or 0) >= 1
    CHAT.error(found.json)


def test_hundreds_of_streams_run_side_by_side(start_router: StartRouter, upstream: Upstream):
    router = start_router()
    events = CHAT.events(*[f"word{number} " for number in range(20)])
    upstream.default = behaviours.stream(events, pace=0.02)
    results: list[bytes] = []

    def run() -> None:
        body = CHAT.request(stream=True, stream_options={"include_usage": True})
        results.append(client.post(router.port, CHAT.path, body, timeout=60).body)

    threads = [threading.Thread(target=run) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [b"".join(events)] * 200
