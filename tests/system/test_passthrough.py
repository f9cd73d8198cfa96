"""Bodies, statuses and header fields pass unchanged but for the edits that are named here."""

import gzip
import json

import pytest

from tests.system import behaviours, client, payloads
from tests.system.conftest import StartRouter
from tests.system.dialects import ALL, CHAT, MESSAGES, Dialect, inserted
from tests.system.router import Router
from tests.system.upstream import Upstream

every_dialect = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)

#: Odd but valid: order, spacing, number spelling, escapes, unknown and repeated members.
ODD = (
    b'{ "zeta":[1, 2.50 ,1e3,-0.0],"model" : "gpt-4.1",\n\t"made_up":{"b":null,"a":"\\u00e9 \\/ \xe2\x9c\x93"},'
    b'"messages":[{"role":"user","content":"hi \\ud83d\\udc4b","x":1}],"input":"hi","max_tokens":9,'
    b'"temperature":1.00,"dup":1,"dup":2 }'
)


@pytest.fixture
def upstream(shared_upstream: Upstream):
    yield shared_upstream
    shared_upstream.clear()


@pytest.fixture
def router(shared_router: Router):
    return shared_router


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/images/generations",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/anthropic/v1/messages",
        "/openai/v1/chat/completions",
    ],
)
def test_a_buffered_request_passes_byte_for_byte(path: str, router: Router, upstream: Upstream):
    assert client.post(router.port, path, ODD).status == 200
    assert upstream.last.body == ODD


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_a_streamed_request_passes_byte_for_byte(path: str, router: Router, upstream: Upstream):
    body = ODD[:-1] + b',"stream":true}'
    assert client.post(router.port, path, body).status == 200
    assert upstream.last.body == body


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_streamed_chat_gains_include_usage_and_nothing_else(path: str, router: Router, upstream: Upstream):
    body = ODD[:-1] + b', "stream" : true }'
    client.post(router.port, path, body)
    inserted(body, upstream.last.body)
    sent = upstream.last.json
    assert sent.pop("stream_options") == {"include_usage": True}
    assert sent == json.loads(body)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (b'{"include_obfuscation":false}', {"include_obfuscation": False, "include_usage": True}),
        (b'{ "include_usage" : false , "x":1 }', {"include_usage": True, "x": 1}),
        (b"{}", {"include_usage": True}),
        (b"null", {"include_usage": True}),
        (b'{"include_usage":true}', {"include_usage": True}),
    ],
)
def test_stream_options_keep_their_other_members(options: bytes, expected: dict, router: Router, upstream: Upstream):
    body = (
        b'{"stream":true,"stream_options":'
        + options
        + b',"model":"gpt-4.1","messages":[{"role":"user","content":"hi"}]}'
    )
    client.post(router.port, CHAT.path, body)
    sent = upstream.last.json
    assert sent["stream_options"] == expected
    assert {**sent, "stream_options": None} == {**json.loads(body), "stream_options": None}
    if options == b'{"include_usage":true}':
        assert upstream.last.body == body


def test_a_request_without_model_gets_the_default_one_and_nothing_else(start_router: StartRouter, upstream: Upstream):
    router = start_router(DEFAULT_MODEL="house-model", OPENAI_BASE_URL=f"{upstream.url}/v1")
    body = b'{ "messages":[{"role":"user","content":"hi"}], "x" : 1.0 }'
    client.post(router.port, CHAT.path, body)
    inserted(body, upstream.last.body)
    assert upstream.last.json == {**json.loads(body), "model": "house-model"}


def test_a_chunked_request_passes_byte_for_byte(router: Router, upstream: Upstream):
    pieces = [ODD[:10], ODD[10:11], ODD[11:]]
    chunks = b"".join(behaviours.chunked(piece) for piece in pieces) + behaviours.LAST_CHUNK
    head = b"POST /v1/responses HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    with client.Client(router.port) as one:
        one.send(head + chunks)
        assert one.response().status == 200
    assert upstream.last.body == ODD


def test_a_body_that_waits_for_100_continue_is_asked_for(router: Router, upstream: Upstream):
    with client.Client(router.port) as one:
        head = f"POST /v1/responses HTTP/1.1\r\nHost: h\r\nContent-Length: {len(ODD)}\r\nExpect: 100-continue\r\n\r\n"
        one.send(head.encode())
        assert one.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        one.send(ODD)
        assert one.response().status == 200
    assert upstream.last.body == ODD
    assert upstream.last.header("expect") is None


@every_dialect
def test_a_buffered_answer_passes_byte_for_byte(dialect: Dialect, router: Router, upstream: Upstream):
    body = b'{ "usage" : {"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}, "z":1.50,"a":"\\u00e9" }\n'
    upstream.next(behaviours.answer(body))
    found = client.post(router.port, dialect.path, dialect.request())
    assert (found.status, found.body) == (200, body)


@every_dialect
def test_a_streamed_answer_passes_byte_for_byte(dialect: Dialect, router: Router, upstream: Upstream):
    events = [b": a comment\n\n", *dialect.events("hel", "lo ✓"), b"event: made_up\nid: 7\ndata: {}\n\n"]
    upstream.next(behaviours.stream(events))
    more = {"stream_options": {"include_usage": True}} if dialect is CHAT else {}
    found = client.post(router.port, dialect.path, dialect.request(stream=True, **more))
    assert found.body == b"".join(events)
    assert found.whole


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503, 529])
@every_dialect
def test_an_upstream_error_passes_unchanged(status: int, dialect: Dialect, router: Router, upstream: Upstream):
    body = b'{"error" :{"message":"no","type":"x","param":null,"code":"y"} }'
    upstream.next(*[behaviours.answer(body, status, ("retry-after", "7"), ("x-request-id", "req_1"))] * 4)
    found = client.post(router.port, dialect.path, dialect.request())
    assert (found.status, found.body) == (status, body)
    assert (found.header("retry-after"), found.header("x-request-id")) == ("7", "req_1")
    assert found.header("content-type") == "application/json"


@every_dialect
def test_an_upstream_error_to_a_streamed_call_passes_unchanged(dialect: Dialect, router: Router, upstream: Upstream):
    body = b'{"error":{"message":"no","type":"x","param":null,"code":"y"}}'
    upstream.next(behaviours.answer(body, 400))
    found = client.post(router.port, dialect.path, dialect.request(stream=True))
    assert (found.status, found.body, found.header("content-type")) == (400, body, "application/json")


ANSWER_FIELDS = (
    ("x-request-id", "req_123"),
    ("request-id", "req_456"),
    ("openai-processing-ms", "12"),
    ("openai-organization", "org"),
    ("openai-version", "2020-10-01"),
    ("x-ratelimit-limit-requests", "100"),
    ("x-ratelimit-remaining-tokens", "99"),
    ("x-ratelimit-reset-tokens", "6m0s"),
    ("anthropic-ratelimit-requests-remaining", "5"),
    ("x-ms-request-id", "abc"),
    ("apim-request-id", "def"),
    ("x-should-retry", "false"),
)


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_the_services_own_answer_fields_pass(stream: bool, router: Router, upstream: Upstream):
    behaviour = (
        behaviours.stream(CHAT.events("hi"), *ANSWER_FIELDS)
        if stream
        else behaviours.answer(CHAT.whole(), 200, *ANSWER_FIELDS)
    )
    upstream.next(behaviour)
    found = client.post(router.port, CHAT.path, CHAT.request(stream=stream))
    for name, value in ANSWER_FIELDS:
        assert found.header(name) == value


def test_the_clients_own_request_fields_pass(router: Router, upstream: Upstream):
    fields = (
        ("User-Agent", "OpenAI/Python 9.9"),
        ("x-stainless-retry-count", "0"),
        ("OpenAI-Beta", "assistants=v2"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "a-2025-01-01,b-2025-01-01"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("Idempotency-Key", "once"),
        ("Accept", "application/json"),
    )
    client.post(router.port, MESSAGES.path, MESSAGES.request(), *fields)
    for name, value in fields:
        assert upstream.last.header(name) == value
    assert upstream.last.header("host") == f"127.0.0.1:{upstream.port}"
    assert upstream.last.header("content-type") == "application/json"


HOP_BY_HOP = (
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Connection", "keep-alive"),
    ("Proxy-Authorization", "Basic c2VjcmV0"),
    ("TE", "trailers"),
    ("Trailer", "X-Later"),
    ("Upgrade", "websocket"),
    ("X-Named", "by connection"),
)


def test_hop_by_hop_request_fields_stop_here(router: Router, upstream: Upstream):
    client.post(router.port, CHAT.path, CHAT.request(), ("Connection", "keep-alive, X-Named"), *HOP_BY_HOP)
    seen = {name.lower() for name, _ in upstream.last.fields}
    assert not seen & {name.lower() for name, _ in HOP_BY_HOP}
    assert "x-named" not in (upstream.last.header("connection") or "").lower()


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_hop_by_hop_answer_fields_stop_here(stream: bool, router: Router, upstream: Upstream):
    fields = (
        ("Connection", "X-Named"),
        ("Keep-Alive", "timeout=1"),
        ("Proxy-Authenticate", "Basic"),
        ("Trailer", "X-Later"),
        ("X-Named", "by connection"),
    )
    upstream.next(
        behaviours.stream(CHAT.events("hi"), *fields) if stream else behaviours.answer(CHAT.whole(), 200, *fields)
    )
    found = client.post(router.port, CHAT.path, CHAT.request(stream=stream))
    seen = {name.lower() for name, _ in found.fields}
    assert found.status == 200
    assert not seen & {"keep-alive", "proxy-authenticate", "trailer", "x-named"}
    assert "x-named" not in (found.header("connection") or "").lower()


def test_a_query_passes(router: Router, upstream: Upstream):
    client.get(router.port, "/v1/models?limit=3&after=a%20b")
    assert upstream.last.target == "/v1/models?limit=3&after=a%20b"


def test_a_compressed_answer_can_be_read(router: Router, upstream: Upstream):
    upstream.next(behaviours.gzipped(CHAT.whole()))
    found = client.post(router.port, CHAT.path, CHAT.request(), ("Accept-Encoding", "gzip"))
    body = gzip.decompress(found.body) if found.header("content-encoding") == "gzip" else found.body
    assert body == CHAT.whole()


def test_a_stream_is_never_asked_for_in_compressed_form(router: Router, upstream: Upstream):
    client.post(router.port, CHAT.path, CHAT.request(stream=True), ("Accept-Encoding", "gzip, br"))
    assert (upstream.last.header("accept-encoding") or "identity") == "identity"


def test_connections_are_kept_on_both_sides(start_router: StartRouter, upstream: Upstream):
    router = start_router(OPENAI_BASE_URL=f"{upstream.url}/v1")
    before = upstream.accepted
    with client.Client(router.port) as one:
        for _ in range(5):
            one.post(CHAT.path, CHAT.request())
            assert one.response().status == 200
            one.post(CHAT.path, CHAT.request(stream=True))
            assert one.response().whole
    assert upstream.accepted - before == 1


def test_pipelined_requests_are_answered_in_order(router: Router, upstream: Upstream):
    upstream.next(behaviours.answer(b'{"n":1}'), behaviours.answer(b'{"n":2}'))
    with client.Client(router.port) as one:
        one.send(
            client.request("POST", CHAT.path, CHAT.request("a")) + client.request("POST", CHAT.path, CHAT.request("b"))
        )
        assert [one.response().json["n"], one.response().json["n"]] == [1, 2]


def test_a_large_body_passes_both_ways(router: Router, upstream: Upstream):
    body = payloads.pack(payloads.chat_request("x" * 8_000_000))
    answer = payloads.chat("y" * 8_000_000)
    upstream.next(behaviours.answer(answer))
    found = client.post(router.port, CHAT.path, body, timeout=30)
    assert found.body == answer
    assert upstream.last.body == body


def test_only_whitelisted_own_fields_are_added_to_an_answer(router: Router, upstream: Upstream):
    upstream.next(behaviours.answer(CHAT.whole()))
    found = client.post(router.port, CHAT.path, CHAT.request())
    names = {name.lower() for name, _ in found.fields}
    own = {name for name in names if not name.startswith("x-kars-")}
    assert own <= {
        "content-type",
        "content-length",
        "date",
        "connection",
        "keep-alive",
        "cache-control",
        "x-request-id",
    }
    assert "x-kars-trace-id" in names
