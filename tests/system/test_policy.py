"""A policy is loaded strictly, swapped at once, and decides about models, tools and content."""

import hashlib
import json
import statistics
import struct
import time

import pytest

from tests.system import behaviours, client, payloads
from tests.system.conftest import StartRouter
from tests.system.dialects import ALL, CHAT, MESSAGES, RESPONSES, Dialect, inserted
from tests.system.router import Mount, Router, policy
from tests.system.upstream import Upstream

every_dialect = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)


@pytest.fixture
def governed(start_router: StartRouter, mount: Mount):
    """Starts a router under a policy given by its parts."""

    def start(**parts) -> Router:
        mount.write(policy(**parts))
        return start_router(INFERENCE_POLICY_DIR=str(mount.folder))

    return start


def digest(content: bytes) -> str:
    """The digest the controller computes."""
    name = b"inference-policy.json"
    framed = struct.pack(">Q", len(name)) + name + struct.pack(">Q", len(content)) + content
    return f"sha256:{hashlib.sha256(framed).hexdigest()}"


def wait_digest(router: Router, wanted: str, timeout: float = 10.0) -> float:
    """Waits until the policy status shows a digest; monotonic seconds of that."""
    deadline = time.monotonic() + timeout
    with client.Client(router.port) as one:
        while True:
            one.send(client.request("GET", "/internal/policy-status"))
            rows = one.response().json["entries"]
            if any(row["digest"] == wanted for row in rows):
                return time.monotonic()
            assert time.monotonic() < deadline, rows
            time.sleep(0.001)


def test_the_status_shows_the_digest_in_force(governed, mount: Mount):
    router = governed(displayName="first")
    content = (mount.folder / "inference-policy.json").read_bytes()
    status = router.policy_status()
    assert status["schema_version"] == 1
    assert status["count"] == len(status["entries"])
    entry = router.entry()
    assert entry is not None
    assert entry["digest"] == digest(content)
    assert entry["last_error"] is None
    assert entry["source_path"].startswith(str(mount.folder))


def test_a_swapped_mount_is_in_force_within_50_ms(governed, mount: Mount):
    router = governed(displayName="first")
    delays = []
    for turn in range(7):
        wanted = mount.write(policy(displayName=f"turn {turn}", models={"deny": [f"banned-{turn}"]}))
        swapped = time.monotonic()
        delays.append(wait_digest(router, digest(wanted)) - swapped)
        assert client.post(router.port, CHAT.path, CHAT.request(model=f"banned-{turn}")).status == 403
        assert client.post(router.port, CHAT.path, CHAT.request(model=f"banned-{turn - 1}")).status == 200
    assert statistics.median(delays) <= 0.05, delays


BAD = {
    "no_json": b"{",
    "not_utf8": b"\xff\xfe{}",
    "unknown_field": b'{"tokenBudgets": {}}',
    "wrong_type": b'{"tokenBudget": {"dailyTokens": "many"}}',
    "negative": b'{"tokenBudget": {"dailyTokens": -1}}',
    "unknown_severity": b'{"contentSafety": {"hate": "Severe"}}',
    "half_a_model": b'{"modelPreference": {"primary": {"provider": "openai"}}}',
    "no_object": b"[]",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_policy_is_refused_and_the_old_one_kept(name: str, governed, mount: Mount):
    router = governed(models={"deny": ["banned"]})
    before = router.entry()
    assert before is not None
    mount.write(BAD[name])
    deadline = time.monotonic() + 5
    while not (entry := router.entry()) or entry["last_error"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert entry["digest"] == before["digest"]
    assert client.post(router.port, CHAT.path, CHAT.request(model="banned")).status == 403
    assert client.post(router.port, CHAT.path, CHAT.request()).status == 200
    assert router.metric("kars_policy_bundle_healthy", kind="InferencePolicy") == 0
    good = mount.write(policy(displayName="good again"))
    wait_digest(router, digest(good))
    entry = router.entry()
    assert entry is not None
    assert entry["last_error"] is None


def test_a_call_in_flight_keeps_its_policy(governed, mount: Mount, upstream: Upstream):
    router = governed(displayName="first")
    events = CHAT.events(*"abcdefgh")
    upstream.next(behaviours.stream(events, pace=0.1))
    with client.Client(router.port) as one:
        one.post(CHAT.path, CHAT.request(stream=True, stream_options={"include_usage": True}))
        found = one.head()
        wait_digest(router, digest(mount.write(policy(models={"deny": ["*"]}))))
        one.chunks(found)
    assert found.body == b"".join(events)
    assert client.post(router.port, CHAT.path, CHAT.request()).status == 403


@every_dialect
def test_an_empty_mount_denies(dialect: Dialect, start_router: StartRouter, mount: Mount, upstream: Upstream):
    router = start_router(INFERENCE_POLICY_DIR=str(mount.folder), wait=False)
    deadline = time.monotonic() + 15
    while True:
        try:
            assert client.get(router.port, "/healthz").status == 200
            break
        except OSError:
            assert time.monotonic() < deadline, router.log
            time.sleep(0.02)
    found = client.post(router.port, dialect.path, dialect.request())
    assert found.status == 503
    error = dialect.error(found.json)
    if dialect is not MESSAGES:
        assert (error["type"], error["code"]) == ("policy_violation", "policy_not_loaded")
    assert upstream.received == []
    assert client.get(router.port, "/readyz").status == 503
    mount.write(policy())
    router.wait_ready()
    assert client.post(router.port, dialect.path, dialect.request()).status == 200


def test_a_policy_that_goes_away_denies_and_its_digest_with_it(governed, mount: Mount):
    router = governed(displayName="first")
    mount.remove()
    deadline = time.monotonic() + 10
    while client.post(router.port, CHAT.path, CHAT.request()).status != 503:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    entry = router.entry()
    assert entry is None or entry["digest"] is None


def test_a_policy_for_another_sandbox_does_not_apply_here(start_router: StartRouter, mount: Mount):
    mount.write({"appliesTo": {"sandboxName": "somebody-else"}})
    router = start_router(INFERENCE_POLICY_DIR=str(mount.folder), wait=False)
    deadline = time.monotonic() + 15
    while True:
        try:
            assert client.post(router.port, CHAT.path, CHAT.request()).status == 503
            break
        except OSError:
            assert time.monotonic() < deadline, router.log
            time.sleep(0.02)


@every_dialect
def test_a_denied_model_gets_403(dialect: Dialect, governed, upstream: Upstream):
    router = governed(models={"deny": ["secret-*"]})
    found = client.post(router.port, dialect.path, dialect.request(model="secret-model"))
    assert found.status == 403
    error = dialect.error(found.json)
    if dialect is MESSAGES:
        assert error["type"] == "permission_error"
    else:
        assert (error["type"], error["code"]) == ("policy_violation", "policy_denied")
    assert upstream.received == []


def test_only_allowed_models_pass(governed):
    router = governed(models={"allow": ["gpt-*"]})
    assert client.post(router.port, CHAT.path, CHAT.request()).status == 200
    assert client.post(router.port, CHAT.path, CHAT.request(model="other")).status == 403
    path = "/openai/deployments/other/chat/completions"
    assert client.post(router.port, path, {"messages": [{"role": "user", "content": "hi"}]}).status == 403


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
@every_dialect
def test_a_model_preference_is_what_goes_over_the_wire(stream: bool, dialect: Dialect, governed, upstream: Upstream):
    """W-15: the preference holds although the body names a model."""
    provider = "anthropic" if dialect is MESSAGES else "openai"
    router = governed(modelPreference={"primary": {"provider": provider, "deployment": "preferred-1"}})
    body = payloads.pack(dialect.request(model="asked", stream=stream, made_up=1.5))
    assert client.post(router.port, dialect.path, body).status == 200
    assert upstream.last.json["model"] == "preferred-1"
    restored = upstream.last.body.replace(b'"preferred-1"', b'"asked"', 1)
    if dialect is CHAT and stream:
        inserted(body, restored)
    else:
        assert restored == body


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_a_failing_model_is_replaced_by_its_fallback(stream: bool, governed, upstream: Upstream):
    primary = {"provider": "openai", "deployment": "first"}
    router = governed(
        modelPreference={"primary": primary, "fallback": [{"provider": "openai", "deployment": "second"}]}
    )

    async def first_fails(peer, request):
        if request.json["model"] == "first":
            await behaviours.answer(b'{"error":{"message":"no","type":"x","param":null,"code":null}}', 503)(
                peer, request
            )
        else:
            await behaviours.service()(peer, request)

    upstream.default = first_fails
    found = client.post(router.port, CHAT.path, CHAT.request(stream=stream))
    assert found.status == 200
    assert [request.json["model"] for request in upstream.received][-1] == "second"
    assert found.header("x-kars-attempts") in {None, "2", "3"}


def tool(dialect: Dialect, name: str) -> dict:
    if dialect is MESSAGES:
        return {"name": name, "input_schema": {"type": "object"}}
    if dialect is RESPONSES:
        return {"type": "function", "name": name, "parameters": {}}
    return {"type": "function", "function": {"name": name, "parameters": {}}}


@every_dialect
def test_denied_tools_are_taken_out_and_nothing_else(dialect: Dialect, governed, upstream: Upstream):
    router = governed(tools={"deny": ["rm_*", "last"]})
    names = ["rm_first", "keep_1", "rm_middle", "keep_2", "last"]
    body = dialect.request(tools=[tool(dialect, name) for name in names], made_up={"x": 1.50})
    assert client.post(router.port, dialect.path, body).status == 200
    kept = [tool(dialect, name) for name in names if name.startswith("keep")]
    assert upstream.last.json == {**body, "tools": kept}
    assert list(upstream.last.json) == list(body)


def test_forty_tools_cost_one_request_of_the_rate(governed):
    """W-23: advertised tools are no requests."""
    router = governed(tools={"deny": ["x"]}, requestRate={"requestsPerMinute": 600, "burst": 5})
    body = CHAT.request(tools=[tool(CHAT, f"tool_{number}") for number in range(40)])
    for _ in range(5):
        assert client.post(router.port, CHAT.path, body).status == 200
    assert len(router.wait_audit(5)) == 5


def filter_results(severity: str) -> dict:
    return {"hate": {"filtered": False, "severity": severity}, "violence": {"filtered": False, "severity": "safe"}}


def annotated(severity: str) -> dict:
    return {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": filter_results(severity)}]}


def check_floor(found: client.Response) -> None:
    assert found.status == 403
    error = CHAT.error(found.json)
    assert error["type"] == "content_policy_violation"
    assert error["code"] == "inference_policy_content_safety_exceeded"
    assert found.header("x-kars-decision") == "blocked"
    assert found.header("x-kars-decision-by") == "InferencePolicy"
    reason = found.header("x-kars-decision-reason") or ""
    assert reason.startswith("InferencePolicy content safety floor exceeded: ")
    assert b"hello" not in found.body


def test_the_content_floor_holds_on_buffered_answers(governed, upstream: Upstream):
    router = governed(contentSafety={"hate": "Low"})
    upstream.next(
        behaviours.answer(payloads.chat(**annotated("low"))),
        behaviours.answer(payloads.chat(**annotated("medium"))),
    )
    assert client.post(router.port, CHAT.path, CHAT.request()).status == 200
    check_floor(client.post(router.port, CHAT.path, CHAT.request()))


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_the_content_floor_holds_before_a_stream_begins(split: bool, governed, upstream: Upstream):
    """W-10: also when the annotation does not come in one piece."""
    router = governed(contentSafety={"hate": "Low"})
    first = b"data: " + payloads.pack({"id": "", "choices": [], **annotated("high")}) + b"\n\n"
    events = [first, *CHAT.events("hello")]
    upstream.next(behaviours.split_stream(events, 60) if split else behaviours.stream(events))
    check_floor(client.post(router.port, CHAT.path, CHAT.request(stream=True)))


def test_the_content_floor_ends_a_stream_half_way(governed, upstream: Upstream):
    router = governed(contentSafety={"hate": "Low"})
    choice = {"index": 0, "delta": {"content": "bad"}, "finish_reason": None}
    choice["content_filter_results"] = filter_results("high")
    bad = b"data: " + payloads.pack({"id": "x", "object": "chat.completion.chunk", "choices": [choice]}) + b"\n\n"
    events = CHAT.events("hello")
    upstream.next(behaviours.stream([*events[:2], bad, *events[2:]], pace=0.05))
    found = client.post(router.port, CHAT.path, CHAT.request(stream=True))
    error = CHAT.event_error(found)
    assert (error["type"], error["code"]) == (
        "content_policy_violation",
        "inference_policy_content_safety_exceeded",
    )
    assert found.body.startswith(b"".join(events[:2]))
    assert b'"bad"' not in found.body


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_required_prompt_shields_fail_closed(stream: bool, governed, upstream: Upstream):
    router = governed(contentSafety={"requirePromptShields": True})
    found = client.post(router.port, CHAT.path, CHAT.request(stream=stream))
    assert found.status == 403
    assert CHAT.error(found.json)["code"] == "inference_policy_prompt_shields_required"


def test_an_upstreams_own_block_is_named(governed, upstream: Upstream):
    router = governed(contentSafety={"hate": "Low"})
    inner = {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"jailbreak": {"detected": True, "filtered": True}},
    }
    error = {"message": "content management policy", "type": None, "param": "prompt", "code": "content_filter"}
    body = payloads.pack({"error": {**error, "status": 400, "innererror": inner}})
    upstream.next(behaviours.answer(body, 400))
    found = client.post(router.port, CHAT.path, CHAT.request())
    assert found.status == 400
    assert found.body == body
    assert found.header("x-kars-decision-reason") == (
        "Azure AI Content Safety blocked: prompt jailbreak detected (content_filter)"
    )


def admin(token: str = "the-token") -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


def test_the_admin_model_is_what_goes_over_the_wire(start_router: StartRouter, upstream: Upstream):
    router = start_router(ADMIN_TOKEN="the-token")
    assert client.call(router.port, "PUT", "/admin/model", {"model": "chosen"}, admin("wrong")).status == 401
    assert client.call(router.port, "PUT", "/admin/model", {"model": "chosen"}).status == 401
    assert client.call(router.port, "PUT", "/admin/model", {"model": "chosen"}, admin()).status == 200
    client.post(router.port, CHAT.path, CHAT.request(model="asked"))
    assert upstream.last.json["model"] == "chosen"
    assert client.call(router.port, "PUT", "/admin/model", {"model": None}, admin()).status == 200
    client.post(router.port, CHAT.path, CHAT.request(model="asked"))
    assert upstream.last.json["model"] == "asked"


def test_a_json_number_keeps_its_spelling_through_every_rewrite(governed, upstream: Upstream):
    router = governed(modelPreference={"primary": {"provider": "openai", "deployment": "m"}}, tools={"deny": ["bad"]})
    body = (
        b'{"model":"x","stream":true,"temperature":1.0e0,"tools":[{"type":"function","function":{"name":"bad"}},'
        b'{"type":"function","function":{"name":"good","x":1.10}}],"messages":[{"role":"user","content":"\\u00e9"}]}'
    )
    assert client.post(router.port, CHAT.path, body).status == 200
    sent = upstream.last.body
    assert b'"temperature":1.0e0' in sent
    assert b'{"type":"function","function":{"name":"good","x":1.10}}' in sent
    assert b'"\\u00e9"' in sent
    assert b'"bad"' not in sent
    assert json.loads(sent)["model"] == "m"
