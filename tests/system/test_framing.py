"""What an upstream sends is read strictly: nothing ambiguous is forwarded, nothing leaks into the next answer."""

import pytest

from tests.system import behaviours, client
from tests.system.conftest import StartRouter
from tests.system.dialects import CHAT
from tests.system.router import Router
from tests.system.upstream import Upstream

GOOD = CHAT.whole()
LENGTH = f"Content-Length: {len(GOOD)}\r\n".encode()
CHUNKED = behaviours.chunked(GOOD) + behaviours.LAST_CHUNK
KIND = b"Content-Type: application/json\r\n"

AMBIGUOUS = {
    "length_and_chunked": b"HTTP/1.1 200 OK\r\n" + KIND + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "two_lengths": b"HTTP/1.1 200 OK\r\n" + KIND + LENGTH + b"Content-Length: 5\r\n\r\n" + GOOD,
    "list_of_lengths": b"HTTP/1.1 200 OK\r\n" + KIND + b"Content-Length: 5, 6\r\n\r\n" + GOOD,
    "signed_length": b"HTTP/1.1 200 OK\r\n" + KIND + b"Content-Length: +5\r\n\r\n" + GOOD,
    "hexadecimal_length": b"HTTP/1.1 200 OK\r\n" + KIND + b"Content-Length: 0x5\r\n\r\n" + GOOD,
    "huge_length": b"HTTP/1.1 200 OK\r\n" + KIND + b"Content-Length: 99999999999999999999999\r\n\r\n" + GOOD,
    "unknown_coding": b"HTTP/1.1 200 OK\r\n" + KIND + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKED,
    "chunked_twice": b"HTTP/1.1 200 OK\r\n" + KIND + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKED,
    "chunked_in_1_0": b"HTTP/1.0 200 OK\r\n" + KIND + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "space_before_colon": b"HTTP/1.1 200 OK\r\n" + KIND + LENGTH.replace(b":", b" :") + b"\r\n" + GOOD,
    "folded_field": b"HTTP/1.1 200 OK\r\n" + KIND + b"X-A: b\r\n c\r\n" + LENGTH + b"\r\n" + GOOD,
    "bare_return": b"HTTP/1.1 200 OK\r\n" + KIND + b"X-A: b\rc\r\n" + LENGTH + b"\r\n" + GOOD,
    "nul_in_field": b"HTTP/1.1 200 OK\r\n" + KIND + b"X-A: b\x00c\r\n" + LENGTH + b"\r\n" + GOOD,
    "no_http": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "status_of_two_digits": b"HTTP/1.1 20 OK\r\n" + LENGTH + b"\r\n" + GOOD,
    "huge_head": b"HTTP/1.1 200 OK\r\n" + KIND + b"X-A: " + b"b" * 100_000 + b"\r\n" + LENGTH + b"\r\n" + GOOD,
}

BAD_CHUNKS = {
    "no_number": b"zz\r\n",
    "sign": b"+5\r\nhello\r\n",
    "overflow": b"fffffffffffffffff\r\nhello\r\n",
    "missing_line_end": b"5\r\nhelloX0\r\n\r\n",
    "endless_extension": b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n",
}


@pytest.fixture
def upstream(shared_upstream: Upstream):
    yield shared_upstream
    shared_upstream.clear()


@pytest.fixture
def router(shared_router: Router):
    return shared_router


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_an_ambiguous_answer_gets_502(name: str, stream: bool, router: Router, upstream: Upstream):
    upstream.next(*[behaviours.raw(AMBIGUOUS[name])] * 3)
    found = client.post(router.port, CHAT.path, CHAT.request(stream=stream))
    assert found.status == 502
    error = CHAT.error(found.json)
    assert (error["type"], error["code"]) == ("proxy_error", "upstream_protocol_error")
    assert GOOD not in found.body
    upstream.queue.clear()
    assert client.post(router.port, CHAT.path, CHAT.request()).body == GOOD


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_a_bad_chunk_breaks_the_answer(name: str, router: Router, upstream: Upstream):
    opened = behaviours.head(200, behaviours.EVENT_STREAM, ("transfer-encoding", "chunked"))
    event = CHAT.events("hi")[0]
    upstream.next(behaviours.raw(opened + behaviours.chunked(event), BAD_CHUNKS[name]))
    found = client.post(router.port, CHAT.path, CHAT.request(stream=True))
    assert found.body.startswith(event)
    assert CHAT.event_error(found)["code"] == "upstream_protocol_error"
    assert client.post(router.port, CHAT.path, CHAT.request()).body == GOOD


@pytest.mark.parametrize("extra", [b"X", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET", b"\r\n"])
@pytest.mark.parametrize("together", [True, False], ids=["same_write", "later_write"])
def test_bytes_beyond_an_answer_never_reach_the_next(extra: bytes, together: bool, router: Router, upstream: Upstream):
    answer = behaviours.head(200, behaviours.JSON, ("content-length", str(len(GOOD)))) + GOOD
    upstream.next(behaviours.raw(answer + extra) if together else behaviours.raw(answer, extra))
    with client.Client(router.port) as one:
        one.post(CHAT.path, CHAT.request())
        assert one.response().body == GOOD
        for _ in range(3):
            one.post(CHAT.path, CHAT.request())
            found = one.response()
            assert (found.status, found.body) == (200, GOOD)


def test_bytes_beyond_a_chunked_stream_never_reach_the_next(router: Router, upstream: Upstream):
    events = CHAT.events("hi")
    opened = behaviours.head(200, behaviours.EVENT_STREAM, ("transfer-encoding", "chunked"))
    stream = b"".join(behaviours.chunked(event) for event in events) + behaviours.LAST_CHUNK
    upstream.next(behaviours.raw(opened + stream + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET"))
    wanted = {"include_usage": True}
    assert client.post(router.port, CHAT.path, CHAT.request(stream=True, stream_options=wanted)).body == b"".join(
        events
    )
    for _ in range(3):
        assert client.post(router.port, CHAT.path, CHAT.request()).body == GOOD


def test_an_answer_shorter_than_declared_is_not_passed_as_whole(router: Router, upstream: Upstream):
    short = behaviours.head(200, behaviours.JSON, ("content-length", str(len(GOOD) + 10))) + GOOD
    upstream.next(behaviours.raw(short, close=True))
    found = client.post(router.port, CHAT.path, CHAT.request())
    assert found.status == 502 or not found.whole
    assert client.post(router.port, CHAT.path, CHAT.request()).body == GOOD


def test_interim_answers_are_skipped(router: Router, upstream: Upstream):
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    final = behaviours.head(200, behaviours.JSON, ("content-length", str(len(GOOD)))) + GOOD
    upstream.next(behaviours.raw(interim + final), behaviours.raw(interim[:10], interim[10:], final))
    for _ in range(2):
        assert client.post(router.port, CHAT.path, CHAT.request()).body == GOOD


def test_a_connection_the_upstream_closes_is_not_used_again(router: Router, upstream: Upstream):
    answer = behaviours.answer(GOOD, 200, ("connection", "close"))
    upstream.next(answer, answer)
    for _ in range(3):
        assert client.post(router.port, CHAT.path, CHAT.request()).body == GOOD
    connections = [request.connection for request in upstream.received[-3:]]
    assert len(set(connections)) == 3


def test_a_kept_connection_closed_in_the_meantime_costs_no_call(router: Router, upstream: Upstream):
    length = str(len(GOOD))
    upstream.next(behaviours.raw(behaviours.head(200, behaviours.JSON, ("content-length", length)) + GOOD, close=True))
    for _ in range(4):
        assert client.post(router.port, CHAT.path, CHAT.request()).status == 200


def test_answers_of_old_servers_pass(router: Router, upstream: Upstream):
    upstream.next(
        behaviours.until_close(GOOD, behaviours.JSON, version="HTTP/1.0"),
        behaviours.until_close(GOOD, behaviours.JSON),
        behaviours.raw(behaviours.head(200, behaviours.JSON, version="HTTP/1.0") + GOOD, close=True),
    )
    for _ in range(3):
        found = client.post(router.port, CHAT.path, CHAT.request())
        assert (found.status, found.body, found.whole) == (200, GOOD, True)


def test_a_head_in_single_bytes_passes(router: Router, upstream: Upstream):
    answer = behaviours.head(200, behaviours.JSON, ("content-length", str(len(GOOD)))) + GOOD
    upstream.next(behaviours.raw(*[answer[at : at + 1] for at in range(len(answer))], pace=0.0005))
    assert client.post(router.port, CHAT.path, CHAT.request()).body == GOOD


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_body_passes(status: int, router: Router, upstream: Upstream):
    upstream.next(behaviours.raw(behaviours.head(status)))
    assert client.post(router.port, CHAT.path, CHAT.request()).status == status
    assert client.post(router.port, CHAT.path, CHAT.request()).body == GOOD


def test_a_redirect_is_not_followed(router: Router, upstream: Upstream):
    upstream.next(behaviours.answer(b"{}", 307, ("location", f"{upstream.url}/elsewhere")))
    before = len(upstream.received)
    found = client.post(router.port, CHAT.path, CHAT.request())
    assert found.status == 307
    assert len(upstream.received) == before + 1


def test_a_switch_of_protocols_is_refused(router: Router, upstream: Upstream):
    upstream.next(*[behaviours.raw(behaviours.head(101, ("upgrade", "x"), ("connection", "upgrade")))] * 3)
    assert client.post(router.port, CHAT.path, CHAT.request()).status == 502


def test_a_trailer_is_dropped(router: Router, upstream: Upstream):
    opened = behaviours.head(200, behaviours.JSON, ("transfer-encoding", "chunked"))
    upstream.next(behaviours.raw(opened + behaviours.chunked(GOOD) + b"0\r\nX-Late: yes\r\n\r\n"))
    with client.Client(router.port) as one:
        one.post(CHAT.path, CHAT.request())
        assert one.response().body == GOOD
        one.post(CHAT.path, CHAT.request())
        assert one.response().body == GOOD


def test_an_upstream_that_answers_before_the_body_is_sent_is_heard(start_router: StartRouter, upstream: Upstream):
    router = start_router()
    upstream.next(behaviours.answer(b'{"error":{"message":"no","type":"x","param":null,"code":null}}', 401))
    assert client.post(router.port, CHAT.path, CHAT.request("x" * 3_000_000)).status == 401
