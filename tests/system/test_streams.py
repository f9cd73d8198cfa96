"""Streams stay alive in silences, end with a typed error when they break, and end upstream when the client leaves."""

import statistics
import time

import pytest

from tests.system import behaviours, client, payloads
from tests.system.conftest import StartRouter
from tests.system.dialects import ALL, CHAT, MESSAGES, RESPONSES, Dialect
from tests.system.router import Router
from tests.system.upstream import Upstream

every_dialect = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)


def streamed(dialect: Dialect, **more) -> dict:
    """A streamed request whose answer passes whole."""
    wants = {"stream_options": {"include_usage": True}} if dialect is CHAT else {}
    return dialect.request(stream=True, **wants, **more)


@pytest.fixture
def lively(start_router: StartRouter) -> Router:
    """A router that fills a silence of one second."""
    return start_router(ROUTER_KEEPALIVE_SECS="1")


@every_dialect
def test_a_silence_between_events_is_filled(dialect: Dialect, lively: Router, upstream: Upstream):
    events = dialect.events("hel", "lo")
    upstream.next(behaviours.silent_in_stream(events, 2, 2.5))
    found = client.post(lively.port, dialect.path, streamed(dialect))
    assert found.body.count(dialect.keepalive) == 2
    assert found.body.replace(dialect.keepalive, b"") == b"".join(events)
    assert found.body.startswith(b"".join(events[:2]) + dialect.keepalive)


@every_dialect
def test_a_silence_inside_an_event_never_tears_it(dialect: Dialect, lively: Router, upstream: Upstream):
    events = dialect.events("hel", "lo")
    upstream.next(behaviours.silent_in_event(events, 2, 2.5))
    found = client.post(lively.port, dialect.path, streamed(dialect))
    assert found.body.replace(dialect.keepalive, b"") == b"".join(events)
    for event in events:
        assert event in found.body


@every_dialect
def test_a_silence_before_the_answers_head_is_filled(dialect: Dialect, lively: Router, upstream: Upstream):
    events = dialect.events("hel", "lo")
    upstream.next(behaviours.silent_before_head(2.5, behaviours.stream(events)))
    began = time.monotonic()
    with client.Client(lively.port) as one:
        one.post(dialect.path, streamed(dialect))
        found = one.head()
        assert time.monotonic() - began < 2.3
        assert found.status == 200
        assert (found.header("content-type") or "").startswith("text/event-stream")
        one.chunks(found)
    assert found.body == dialect.keepalive * 2 + b"".join(events)


@every_dialect
def test_an_error_after_a_filled_silence_is_an_event(dialect: Dialect, lively: Router, upstream: Upstream):
    refused = behaviours.answer(b'{"error":{"message":"too much","type":"x","param":null,"code":"y"}}', 429)
    upstream.next(behaviours.silent_before_head(1.5, refused))
    found = client.post(lively.port, dialect.path, streamed(dialect))
    assert found.body.startswith(dialect.keepalive)
    assert dialect.event_error(found)["message"]


@every_dialect
def test_a_lost_upstream_after_a_filled_silence_is_an_event(dialect: Dialect, lively: Router, upstream: Upstream):
    upstream.next(*[behaviours.silent_before_head(1.5, behaviours.raw(b"", close=True))] * 3)
    found = client.post(lively.port, dialect.path, streamed(dialect))
    dialect.event_error(found)


def test_a_buffered_call_is_never_given_keepalives(lively: Router, upstream: Upstream):
    upstream.next(behaviours.silent_before_head(1.5, behaviours.answer(CHAT.whole())))
    assert client.post(lively.port, CHAT.path, CHAT.request()).body == CHAT.whole()


def test_keepalives_can_be_turned_off(start_router: StartRouter, upstream: Upstream):
    router = start_router(ROUTER_KEEPALIVE_SECS="0")
    events = CHAT.events("hel", "lo")
    upstream.next(behaviours.silent_in_stream(events, 2, 1.5))
    assert client.post(router.port, CHAT.path, streamed(CHAT)).body == b"".join(events)


@pytest.mark.parametrize("how", ["reset", "fin"])
@every_dialect
def test_a_broken_stream_ends_with_a_typed_error(how: str, dialect: Dialect, router: Router, upstream: Upstream):
    events = dialect.events("hel", "lo")[:3]
    upstream.next(behaviours.broken_stream(events, how))
    found = client.post(router.port, dialect.path, streamed(dialect))
    assert found.body.startswith(b"".join(events))
    error = dialect.event_error(found)
    assert error["message"]
    if dialect is CHAT:
        assert error["type"] == "proxy_error"
        assert error["code"] in {"upstream_reset", "upstream_protocol_error"}
    if dialect is MESSAGES:
        assert error["type"] == "api_error"


@every_dialect
def test_half_an_event_is_not_forwarded_before_the_error(dialect: Dialect, router: Router, upstream: Upstream):
    events = dialect.events("hel", "lo")
    whole, half = events[:2], events[2][: len(events[2]) // 2]
    upstream.next(behaviours.broken_stream([*whole, half], "reset"))
    found = client.post(router.port, dialect.path, streamed(dialect))
    dialect.event_error(found)
    assert half not in found.body


def test_an_upstreams_own_error_event_passes(router: Router, upstream: Upstream):
    events = [*CHAT.events("hel")[:2], b'data: {"error":{"message":"own","type":"server_error"}}\n\n']
    upstream.next(behaviours.stream(events))
    assert client.post(router.port, CHAT.path, streamed(CHAT)).body == b"".join(events)


def leave(one: client.Client, how: str) -> float:
    return one.reset() if how == "rst" else one.close()


@pytest.mark.parametrize("how", ["rst", "fin"])
@every_dialect
def test_the_upstream_is_left_within_50_ms_of_the_client(
    how: str, dialect: Dialect, router: Router, upstream: Upstream
):
    delays = []
    for turn in range(1, 6):
        upstream.next(behaviours.endless())
        one = client.Client(router.port)
        one.post(dialect.path, streamed(dialect))
        one.until(b"more ")
        left = leave(one, how)
        delays.append(upstream.wait(turn).left_at() - left)
    assert statistics.median(delays) <= 0.05, delays


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@pytest.mark.parametrize("how", ["rst", "fin"])
def test_the_upstream_is_left_even_before_it_answers(how: str, stream: bool, router: Router, upstream: Upstream):
    delays = []
    for turn in range(1, 6):
        upstream.next(behaviours.never())
        one = client.Client(router.port)
        one.post(CHAT.path, CHAT.request(stream=stream))
        request = upstream.wait(turn)
        left = leave(one, how)
        delays.append(request.left_at() - left)
    assert statistics.median(delays) <= 0.05, delays


@pytest.mark.parametrize("asked", [None, False], ids=["absent", "false"])
def test_the_usage_chunk_is_stripped_unless_asked_for(asked: bool | None, router: Router, upstream: Upstream):
    events = CHAT.events("hel", "lo")
    upstream.next(behaviours.stream(events))
    more = {} if asked is None else {"stream_options": {"include_usage": asked}}
    found = client.post(router.port, CHAT.path, CHAT.request(stream=True, **more))
    assert upstream.last.json["stream_options"]["include_usage"] is True
    assert found.body == b"".join(events[:-2] + events[-1:])
    assert router.metric("kars_tokens_total", direction="input") == 5
    assert router.metric("kars_tokens_total", direction="output") == 7


@pytest.mark.parametrize("at", [-1, -2, -10, -14, -15, -16, -40, -120, -200, -290, -300])
def test_the_usage_chunk_is_found_wherever_it_is_cut(at: int, shared_router: Router, shared_upstream: Upstream):
    events = CHAT.events("hel", "lo")
    before = shared_router.metric("kars_tokens_total")
    shared_upstream.next(behaviours.split_stream(events, len(b"".join(events)) + at))
    found = client.post(shared_router.port, CHAT.path, CHAT.request(stream=True))
    assert found.body == b"".join(events[:-2] + events[-1:])
    assert shared_router.metric("kars_tokens_total") - before == 12


@every_dialect
def test_a_stream_in_single_bytes_passes_and_is_metered(
    dialect: Dialect, shared_router: Router, shared_upstream: Upstream
):
    events = dialect.events("hel ✓", "lo 👋")
    before = shared_router.metric("kars_tokens_total")
    shared_upstream.next(behaviours.bytewise_stream(events))
    found = client.post(shared_router.port, dialect.path, streamed(dialect))
    assert found.body == b"".join(events)
    assert shared_router.metric("kars_tokens_total") - before == 12


@pytest.mark.parametrize("end", [b"\r\n", b"\r"], ids=["crlf", "cr"])
@every_dialect
def test_other_line_ends_pass_and_are_metered(
    end: bytes, dialect: Dialect, shared_router: Router, shared_upstream: Upstream
):
    events = [event.replace(b"\n", end) for event in dialect.events("hel", "lo")]
    before = shared_router.metric("kars_tokens_total")
    shared_upstream.next(behaviours.stream(events))
    found = client.post(shared_router.port, dialect.path, streamed(dialect))
    assert found.body == b"".join(events)
    assert shared_router.metric("kars_tokens_total") - before == 12


def test_a_giant_event_passes(shared_router: Router, shared_upstream: Upstream):
    text = "".join(f"{number} " for number in range(700_000))
    events = RESPONSES.events(text)
    shared_upstream.next(behaviours.stream(events))
    found = client.post(shared_router.port, RESPONSES.path, RESPONSES.request(stream=True), timeout=30)
    assert found.body == b"".join(events)


def test_a_burst_of_many_events_passes(shared_router: Router, shared_upstream: Upstream):
    events = CHAT.events(*[f"word{number} " for number in range(20_000)])
    shared_upstream.next(
        behaviours.raw(
            behaviours.head(200, behaviours.EVENT_STREAM, ("transfer-encoding", "chunked"))
            + b"".join(behaviours.chunked(event) for event in events)
            + behaviours.LAST_CHUNK
        )
    )
    found = client.post(shared_router.port, CHAT.path, streamed(CHAT), timeout=30)
    assert found.body == b"".join(events)


def test_events_are_not_held_back(shared_router: Router, shared_upstream: Upstream):
    events = CHAT.events("a", "b", "c")
    shared_upstream.next(behaviours.stream(events, pace=0.2))
    found = client.post(shared_router.port, CHAT.path, streamed(CHAT))
    times = [at for at, _ in found.reads]
    assert b"".join(piece for _, piece in found.reads) == b"".join(events)
    assert len(times) >= len(events)
    assert times[-1] - times[0] > 0.2 * (len(events) - 2)


def test_a_stream_from_a_server_with_nagles_algorithm_passes(shared_router: Router, shared_upstream: Upstream):
    events = CHAT.events(*"abcdef")
    shared_upstream.next(behaviours.nagle_stream(events, 0.02))
    assert client.post(shared_router.port, CHAT.path, streamed(CHAT)).body == b"".join(events)


@every_dialect
def test_intermediaries_are_told_not_to_buffer(dialect: Dialect, shared_router: Router):
    found = client.post(shared_router.port, dialect.path, streamed(dialect))
    assert found.header("x-accel-buffering") == "no"
    assert "no-cache" in (found.header("cache-control") or "")
    assert (found.header("content-type") or "").startswith("text/event-stream")


def test_a_stream_that_ends_with_its_connection_passes(shared_router: Router, shared_upstream: Upstream):
    events = CHAT.events("hel", "lo")
    shared_upstream.next(behaviours.until_close(b"".join(events), behaviours.EVENT_STREAM))
    found = client.post(shared_router.port, CHAT.path, streamed(CHAT))
    assert found.body == b"".join(events)
    assert found.whole


def test_a_streamed_call_answered_whole_passes(shared_router: Router, shared_upstream: Upstream):
    shared_upstream.next(behaviours.answer(CHAT.whole()))
    found = client.post(shared_router.port, CHAT.path, CHAT.request(stream=True))
    assert found.body == CHAT.whole()
    assert found.header("content-type") == "application/json"


def test_an_empty_stream_passes(shared_router: Router, shared_upstream: Upstream):
    shared_upstream.next(behaviours.stream([]))
    found = client.post(shared_router.port, CHAT.path, CHAT.request(stream=True))
    assert (found.status, found.body, found.whole) == (200, b"", True)


def test_usage_of_the_last_block_wins(shared_router: Router, shared_upstream: Upstream):
    events = [payloads.chunk({"content": "a"}, usage=payloads.usage(5, 1)), *CHAT.events("b")]
    before = shared_router.metric("kars_tokens_total")
    shared_upstream.next(behaviours.stream(events))
    client.post(shared_router.port, CHAT.path, streamed(CHAT))
    assert shared_router.metric("kars_tokens_total") - before == 12
