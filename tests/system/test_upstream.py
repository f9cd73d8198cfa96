"""The scripted upstream does what the other tests rely on."""

import gzip
import time

import pytest

from tests.system import behaviours, client, payloads
from tests.system.upstream import Upstream

PATH = "/v1/chat/completions"


def test_answers_and_remembers_the_request_byte_for_byte(upstream: Upstream):
    body = b'{"b":1, "a":{"z":[1,2]},"model":"x"}'
    found = client.post(upstream.port, PATH, body, ("X-Odd", "Value"))
    assert found.status == 200
    assert found.json["choices"][0]["message"]["content"] == "hello"
    assert upstream.last.body == body
    assert ("X-Odd", "Value") in upstream.last.fields


def test_keeps_a_connection_for_several_requests(upstream: Upstream):
    with client.Client(upstream.port) as one:
        for _ in range(3):
            one.post(PATH, payloads.chat_request())
            assert one.response().status == 200
    assert upstream.accepted == 1
    assert [request.connection for request in upstream.received] == [1, 1, 1]


def test_reads_a_chunked_request(upstream: Upstream):
    with client.Client(upstream.port) as one:
        one.send(b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        one.response()
    assert upstream.last.body == b"abcde"


def test_streams_each_event_in_its_own_write(upstream: Upstream):
    events = payloads.chat_events("a", "b")
    upstream.next(behaviours.stream(events, pace=0.01))
    found = client.post(upstream.port, PATH, {"stream": True})
    assert found.body == b"".join(events)
    assert [piece for _, piece in found.reads] == events


@pytest.mark.parametrize("at", [1, 20, 150, 333])
def test_splits_events_at_any_byte(upstream: Upstream, at: int):
    events = payloads.chat_events("a", "b")
    upstream.next(behaviours.split_stream(events, at))
    found = client.post(upstream.port, PATH, {})
    assert [len(piece) for _, piece in found.reads] == [at, len(b"".join(events)) - at]


def test_resets_and_ends_streams_early(upstream: Upstream):
    events = payloads.chat_events("a")[:2]
    for how in ("reset", "fin"):
        upstream.next(behaviours.broken_stream(events, how))
        found = client.post(upstream.port, PATH, {})
        assert not found.whole
        assert found.body == b"".join(events)


def test_notes_when_the_peer_left(upstream: Upstream):
    upstream.next(behaviours.endless())
    one = client.Client(upstream.port)
    one.post(PATH, {})
    one.until(b"more ")
    left = one.reset()
    assert 0 <= upstream.last.left_at() - left < 0.05
    assert upstream.last.peer.gone_how == "rst"


def test_stays_silent_as_long_as_told(upstream: Upstream):
    upstream.next(behaviours.silent_before_head(0.2, behaviours.answer()))
    began = time.monotonic()
    client.post(upstream.port, PATH, {})
    assert time.monotonic() - began >= 0.2


def test_compresses_and_closes(upstream: Upstream):
    upstream.next(behaviours.gzipped(b"{}"), behaviours.until_close(b"abc", version="HTTP/1.0"))
    found = client.post(upstream.port, PATH, {})
    assert gzip.decompress(found.body) == b"{}"
    assert client.post(upstream.port, PATH, {}).body == b"abc"
