"""Each wait for an upstream has its own bound and its own error."""

import contextlib
import socket
import time

import pytest

from tests.system import behaviours, client
from tests.system.conftest import StartRouter
from tests.system.dialects import ALL, CHAT, MESSAGES, Dialect
from tests.system.router import Router, free_ports
from tests.system.upstream import Upstream

every_dialect = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)


@contextlib.contextmanager
def deaf_server(*, accepts: bool):
    """A port that completes no handshake (its queue is full), or accepts and never speaks."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(64 if accepts else 0)
        port = listener.getsockname()[1]
        for _ in range(0 if accepts else 4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", port))
        yield port


def check(found: client.Response, dialect: Dialect, status: int, code: str) -> None:
    assert found.status == status, found.body
    error = dialect.error(found.json)
    if dialect is MESSAGES:
        assert error["type"] == ("timeout_error" if status == 504 else "api_error")
    else:
        assert (error["type"], error["code"]) == ("proxy_error", code)


@every_dialect
def test_a_refused_connection_gets_502(dialect: Dialect, start_router: StartRouter):
    (port,) = free_ports(1)
    router = start_router(OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1", ANTHROPIC_BASE_URL=f"http://127.0.0.1:{port}")
    check(client.post(router.port, dialect.path, dialect.request()), dialect, 502, "bad_gateway")
    check(client.post(router.port, dialect.path, dialect.request(stream=True)), dialect, 502, "bad_gateway")


def test_a_name_without_address_gets_502(start_router: StartRouter):
    router = start_router(OPENAI_BASE_URL="http://no-such-host.invalid/v1")
    found = client.post(router.port, CHAT.path, CHAT.request())
    assert found.status == 502
    CHAT.error(found.json)


def test_the_connect_timeout_has_its_own_code(start_router: StartRouter):
    with deaf_server(accepts=False) as port:
        router = start_router(OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1", ROUTER_CONNECT_TIMEOUT_SECS="1")
        check(client.post(router.port, CHAT.path, CHAT.request()), CHAT, 504, "upstream_connect_timeout")


def test_the_tls_timeout_has_its_own_code(start_router: StartRouter):
    with deaf_server(accepts=True) as port:
        router = start_router(OPENAI_BASE_URL=f"https://127.0.0.1:{port}/v1", ROUTER_TLS_TIMEOUT_SECS="1")
        check(client.post(router.port, CHAT.path, CHAT.request()), CHAT, 504, "upstream_tls_timeout")


@every_dialect
def test_the_first_byte_timeout_has_its_own_code(dialect: Dialect, start_router: StartRouter, upstream: Upstream):
    router = start_router(ROUTER_FIRST_BYTE_TIMEOUT_SECS="1")
    upstream.default = behaviours.never()
    check(client.post(router.port, dialect.path, dialect.request()), dialect, 504, "upstream_first_byte_timeout")
    check(
        client.post(router.port, dialect.path, dialect.request(stream=True)),
        dialect,
        504,
        "upstream_first_byte_timeout",
    )
    upstream.last.left_at()


@every_dialect
def test_the_idle_timeout_of_a_stream_is_a_typed_event(dialect: Dialect, start_router: StartRouter, upstream: Upstream):
    router = start_router(ROUTER_IDLE_TIMEOUT_SECS="1")
    events = dialect.events("hel", "lo")
    upstream.next(behaviours.silent_in_stream(events, 2, 30))
    found = client.post(router.port, dialect.path, dialect.request(stream=True))
    error = dialect.event_error(found)
    if dialect is MESSAGES:
        assert error["type"] == "timeout_error"
    else:
        assert error["code"] == "upstream_idle_timeout"
    upstream.last.left_at()


def test_a_keepalive_does_not_reset_the_idle_timeout(start_router: StartRouter, upstream: Upstream):
    router = start_router(ROUTER_IDLE_TIMEOUT_SECS="2.5", ROUTER_KEEPALIVE_SECS="1")
    upstream.next(behaviours.silent_in_stream(CHAT.events("hel"), 2, 30))
    began = time.monotonic()
    found = client.post(router.port, CHAT.path, CHAT.request(stream=True))
    assert CHAT.event_error(found)["code"] == "upstream_idle_timeout"
    assert 2 < time.monotonic() - began < 6
    assert found.body.count(CHAT.keepalive) == 2


def test_the_idle_timeout_of_a_buffered_answer_breaks_it(start_router: StartRouter, upstream: Upstream):
    router = start_router(ROUTER_IDLE_TIMEOUT_SECS="1")

    async def half(peer, request):
        await peer.send(behaviours.head(200, behaviours.JSON, ("content-length", "100")) + b'{"half":')
        await peer.wait_gone()

    upstream.next(half)
    found = client.post(router.port, CHAT.path, CHAT.request())
    assert found.status == 504 or not found.whole


def test_the_total_timeout_has_its_own_code(start_router: StartRouter, upstream: Upstream):
    router = start_router(ROUTER_TOTAL_TIMEOUT_SECS="1")
    upstream.next(behaviours.never(), behaviours.endless(0.1))
    check(client.post(router.port, CHAT.path, CHAT.request()), CHAT, 504, "total_timeout")
    found = client.post(router.port, CHAT.path, CHAT.request(stream=True))
    assert CHAT.event_error(found)["code"] == "total_timeout"
    upstream.last.left_at()


def test_a_long_stream_is_not_cut_by_any_default(router: Router, upstream: Upstream):
    events = CHAT.events(*"abcdefgh")
    upstream.next(behaviours.stream(events, pace=0.4))
    found = client.post(router.port, CHAT.path, CHAT.request(stream=True, stream_options={"include_usage": True}))
    assert found.body == b"".join(events)
