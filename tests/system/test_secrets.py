"""Credentials stay on their own side, and neither they nor any content get into what the router records."""

import json

import pytest

from tests.system import behaviours, client, payloads
from tests.system.conftest import ROUTER_KEY, StartRouter
from tests.system.dialects import ALL, CHAT, MESSAGES, Dialect
from tests.system.router import Mount, Router, policy
from tests.system.upstream import Upstream

every_dialect = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)

CLIENT_KEYS = (
    ("Authorization", "Bearer sk-client-canary-authorization"),
    ("api-key", "sk-client-canary-api-key"),
    ("x-api-key", "sk-client-canary-x-api-key"),
    ("Proxy-Authorization", "Basic sk-client-canary-proxy"),
    ("x-kars-admin", "sk-client-canary-admin"),
)


@every_dialect
def test_the_clients_credentials_never_go_upstream(dialect: Dialect, router: Router, upstream: Upstream):
    for stream in (False, True):
        client.post(router.port, dialect.path, dialect.request(stream=stream), *CLIENT_KEYS)
        assert b"canary" not in upstream.last.raw
        expected = ("x-api-key", ROUTER_KEY) if dialect is MESSAGES else ("authorization", f"Bearer {ROUTER_KEY}")
        assert upstream.last.header(expected[0]) == expected[1]
        assert upstream.last.raw.count(ROUTER_KEY.encode()) == 1


def test_a_call_without_credentials_gets_the_routers(router: Router, upstream: Upstream):
    client.post(router.port, CHAT.path, CHAT.request())
    assert upstream.last.header("authorization") == f"Bearer {ROUTER_KEY}"


def test_azure_gets_its_key_in_its_own_field(start_router: StartRouter, upstream: Upstream):
    router = start_router(
        AZURE_OPENAI_ENDPOINT=upstream.url,
        AZURE_OPENAI_API_KEY="sk-azure-router-key-0123456789",
        OPENAI_BASE_URL="",
        OPENAI_API_KEY="",
    )
    path = "/openai/deployments/dep/chat/completions?api-version=2024-10-21"
    found = client.post(router.port, path, payloads.chat_request(), *CLIENT_KEYS)
    assert found.status == 200
    assert b"canary" not in upstream.last.raw
    keys = [upstream.last.header("api-key"), upstream.last.header("authorization")]
    assert "sk-azure-router-key-0123456789" in [(key or "").removeprefix("Bearer ") for key in keys]


def test_the_clients_credentials_on_reads_never_go_upstream(router: Router, upstream: Upstream):
    client.get(router.port, "/v1/models", *CLIENT_KEYS)
    assert b"canary" not in upstream.last.raw
    assert upstream.last.header("authorization") == f"Bearer {ROUTER_KEY}"


def test_an_upstream_that_echoes_the_routers_key_is_not_believed(router: Router, upstream: Upstream):
    echo = f"you sent {ROUTER_KEY}, did you not?"
    fields = (("x-echo", ROUTER_KEY), ("authorization", f"Bearer {ROUTER_KEY}"), ("x-request-id", f"r-{ROUTER_KEY}"))
    document = payloads.pack({"error": {"message": echo, "type": "x", "param": None, "code": None}})
    events = [payloads.chunk({"content": echo}), *CHAT.events(echo)]
    upstream.next(
        behaviours.answer(payloads.chat(echo), 200, *fields),
        behaviours.answer(document, 401, *fields),
        behaviours.stream(events, *fields),
        behaviours.split_stream(events, b"".join(events).index(ROUTER_KEY.encode()) + 9),
    )
    for stream in (False, False, True, True):
        found = client.post(router.port, CHAT.path, CHAT.request(stream=stream))
        assert ROUTER_KEY.encode() not in found.body
        assert ROUTER_KEY not in repr(found.fields)
        assert ROUTER_KEY[:12].encode() not in found.body or stream


def test_nothing_recorded_holds_a_secret_or_content(start_router: StartRouter, upstream: Upstream, mount: Mount):
    """Plants a canary in every place a call has, ends calls in every way, and looks through all that is kept."""
    mount.write(
        policy(
            tokenBudget={"perRequestTokens": 500},
            models={"deny": ["denied-*"]},
            tools={"deny": ["canary_tool_*"]},
            contentSafety={"hate": "Low"},
        )
    )
    router = start_router(INFERENCE_POLICY_DIR=str(mount.folder), ADMIN_TOKEN="canary-admin-token", RUST_LOG="trace")
    text = "canary-content"
    annotated = {
        "prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True, "severity": "high"}}}]
    }
    upstream.next(
        behaviours.answer(payloads.chat(text)),
        behaviours.stream(CHAT.events(text)),
        behaviours.broken_stream([payloads.chunk({"content": text})], "reset"),
        behaviours.answer(payloads.pack({"error": {"message": text, "type": "x", "code": text}}), 400),
        behaviours.answer(payloads.chat(text, **annotated)),
        behaviours.raw(b"HTTP/1.1 200 OK\r\nContent-Length: canary-content\r\n\r\n"),
        behaviours.raw(b"canary-content is not HTTP\r\n\r\n"),
    )
    tools = [{"type": "function", "function": {"name": "canary_tool_name", "parameters": {"canary-content": 1}}}]
    calls = [
        CHAT.request(text),
        CHAT.request(text, stream=True),
        CHAT.request(text, stream=True),
        CHAT.request(text, tools=tools),
        CHAT.request(text),
        CHAT.request(text),
        CHAT.request(text),
        CHAT.request(text, max_tokens=1_000_000),
        CHAT.request(text, model="denied-model"),
        b'{"messages": canary-content',
        b'["canary-content"]',
        b'{"model": {"canary-content": 1}}',
    ]
    for call in calls:
        client.post(router.port, CHAT.path, call, *CLIENT_KEYS, ("x-canary-content", "canary-content"))
    client.get(router.port, "/v1/canary-content?key=canary-content", *CLIENT_KEYS)
    client.get(router.port, "/admin/model", ("Authorization", "Bearer canary-wrong-token"))
    with client.Client(router.port) as one:
        one.send(b"GET /canary-content HTTP/1.1\r\nHost: h\r\ncanary-content\r\n\r\n")
        one.response()
    mount.write(b'{"canary-policy": true}')
    client.get(router.port, "/internal/policy-status")
    kept = {"metrics": router.metrics(), "status": json.dumps(router.policy_status())}
    for path in ("/statusz", "/configz"):
        kept[path] = client.get(router.port, path, ("Authorization", "Bearer canary-admin-token")).text
    router.stop()
    kept["log"] = router.log
    for path in router.folder.rglob("*"):
        if path.is_file():
            kept[str(path.relative_to(router.folder))] = path.read_text(errors="replace")
    secrets = [ROUTER_KEY, "canary-content", "canary-client", "canary-admin-token", "canary-wrong-token"]
    secrets += [value.rpartition(" ")[2] for _, value in CLIENT_KEYS]
    for name, content in kept.items():
        for secret in secrets:
            assert secret not in content, (
                f"{secret} is in {name}: {content[max(0, content.index(secret) - 200) :][:400]}"
            )
