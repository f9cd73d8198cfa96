"""Budgets hold under concurrency, crashes and departures; every route is metered; rates say when to come back."""

import threading
import time
from collections import Counter

import pytest

from tests.system import behaviours, client, payloads
from tests.system.conftest import StartRouter
from tests.system.dialects import ALL, CHAT, MESSAGES, Dialect, inserted
from tests.system.router import Mount, Router, policy
from tests.system.upstream import Upstream

every_dialect = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)

#: What each call of the test upstream reports: 5 in, 7 out.
COST = 12


@pytest.fixture
def limited(start_router: StartRouter, mount: Mount):
    """Starts a router under a policy given by its parts, with further variables if need be."""

    def start(variables: dict[str, str] | None = None, **parts) -> Router:
        mount.write(policy(**parts))
        return start_router(INFERENCE_POLICY_DIR=str(mount.folder), **(variables or {}))

    return start


def reserved(router: Router) -> float:
    return router.metric("kars_budget_tokens", state="reserved", window="daily")


def spent(router: Router) -> float:
    return router.metric("kars_budget_tokens", state="spent", window="daily")


def settled(router: Router, timeout: float = 5.0) -> float:
    """Waits until nothing is reserved; what was spent."""
    deadline = time.monotonic() + timeout
    while reserved(router):
        assert time.monotonic() < deadline, f"{reserved(router)} tokens stay reserved"
        time.sleep(0.02)
    return spent(router)


def ask(**more) -> dict:
    return CHAT.request(max_tokens=7, **more)


@pytest.mark.parametrize("workers", ["1", "4"])
def test_a_thousand_concurrent_calls_never_exceed_the_daily_budget(workers: str, limited, upstream: Upstream):
    budget = 3_000
    router = limited({"ROUTER_WORKERS": workers}, tokenBudget={"dailyTokens": budget})
    streams = behaviours.stream(CHAT.events("hel", "lo"), pace=0.002)
    upstream.default = behaviours.by_stream(
        behaviours.silent_before_head(0.01, behaviours.answer(CHAT.whole())), streams
    )
    statuses: Counter[int] = Counter()
    lock = threading.Lock()

    def run(number: int) -> None:
        found = client.post(router.port, CHAT.path, ask(stream=number % 2 == 0), timeout=60)
        with lock:
            statuses[found.status] += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.keys() <= {200, 429}
    assert sum(statuses.values()) == 1000
    assert statuses[200] * COST <= budget
    assert statuses[200] > 10
    assert settled(router) == statuses[200] * COST
    while client.post(router.port, CHAT.path, ask()).status == 200:
        statuses[200] += 1
        assert statuses[200] * COST <= budget
    assert budget - statuses[200] * COST < 200
    assert len(upstream.received) == statuses[200]


@every_dialect
def test_a_used_up_budget_gets_429_in_the_dialect(dialect: Dialect, limited, upstream: Upstream):
    router = limited(tokenBudget={"dailyTokens": 10})
    found = client.post(router.port, dialect.path, dialect.request())
    assert found.status == 429
    error = dialect.error(found.json)
    assert "Daily token budget exceeded" in error["message"]
    if dialect is MESSAGES:
        assert error["type"] == "rate_limit_error"
    else:
        assert (error["type"], error["code"]) == ("token_budget_exceeded", "budget_exceeded")
    assert found.header("x-should-retry") == "false"
    assert int(found.header("retry-after") or 0) >= 1
    assert upstream.received == []


@pytest.mark.parametrize("window", ["hourlyTokens", "dailyTokens", "monthlyTokens"])
def test_each_window_limits(window: str, limited):
    router = limited(tokenBudget={window: 300})
    statuses = [client.post(router.port, CHAT.path, ask()).status for _ in range(30)]
    assert statuses[0] == 200
    assert statuses[-1] == 429


ROUTES = {
    "/v1/chat/completions": payloads.chat_request(max_tokens=7),
    "/openai/v1/chat/completions": payloads.chat_request(max_tokens=7),
    "/v1/completions": {"model": "gpt-4.1", "prompt": "hi", "max_tokens": 7},
    "/v1/embeddings": {"model": "gpt-4.1", "input": "hi"},
    "/v1/responses": payloads.responses_request(max_output_tokens=7),
    "/v1/messages": payloads.messages_request(),
    "/anthropic/v1/messages": payloads.messages_request(),
}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_every_route_is_metered(path: str, stream: bool, limited):
    if stream and path.endswith("embeddings"):
        return
    router = limited(tokenBudget={"dailyTokens": 100_000})
    found = client.post(router.port, path, {**ROUTES[path], **({"stream": True} if stream else {})})
    assert found.status == 200
    assert settled(router) == COST
    assert router.metric("kars_tokens_total") == COST


def test_images_are_metered(limited, upstream: Upstream):
    router = limited(tokenBudget={"dailyTokens": 100_000})
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    upstream.next(behaviours.answer(payloads.pack({"created": 1, "data": [{"b64_json": "aGk="}], "usage": usage})))
    assert client.post(router.port, "/v1/images/generations", {"model": "i", "prompt": "p"}).status == 200
    assert settled(router) == COST


@pytest.mark.parametrize("stream", [False, True], ids=["buffered", "streamed"])
def test_leaving_early_is_not_free(stream: bool, limited, upstream: Upstream):
    router = limited(tokenBudget={"dailyTokens": 100_000})
    events = [payloads.chunk({"content": f"word{number} "}) for number in range(50)]
    upstream.default = behaviours.silent_in_stream([*events, behaviours.payloads.DONE], 50, 30)
    with client.Client(router.port) as one:
        one.post(CHAT.path, CHAT.request("tell me a story " * 100, stream=True, max_tokens=500))
        one.until(b"word49")
        (one.reset if stream else one.close)()
    upstream.last.left_at()
    assert settled(router) >= 50
    assert router.metric("kars_usage_estimated_total") == 1


def test_a_call_that_never_reached_the_upstream_is_free(limited, upstream: Upstream):
    router = limited(tokenBudget={"dailyTokens": 100_000})
    upstream.default = behaviours.answer(b'{"error":{"message":"no","type":"x","param":null,"code":null}}', 400)
    assert client.post(router.port, CHAT.path, ask()).status == 400
    assert settled(router) == 0


def test_a_stream_without_usage_is_estimated(limited, upstream: Upstream):
    router = limited(tokenBudget={"dailyTokens": 100_000})
    upstream.next(behaviours.stream(CHAT.events(*"abcdefghij", with_usage=False)))
    client.post(router.port, CHAT.path, ask(stream=True))
    assert settled(router) >= 10
    assert router.metric("kars_usage_estimated_total") == 1


def test_a_killed_router_keeps_what_was_spent_and_no_reservation(limited, upstream: Upstream):
    budget = 2_000
    router = limited(tokenBudget={"dailyTokens": budget})
    for _ in range(10):
        assert client.post(router.port, CHAT.path, ask()).status == 200
    before = settled(router)
    assert before == 10 * COST
    upstream.next(behaviours.endless())
    with client.Client(router.port) as one:
        one.post(CHAT.path, CHAT.request(stream=True, max_tokens=500))
        one.until(b"more ")
        assert reserved(router) > 0
        router.kill()
    router.start()
    assert reserved(router) == 0
    after = spent(router)
    assert before <= after <= budget
    upstream.default = behaviours.answer(CHAT.whole())
    calls = 0
    while client.post(router.port, CHAT.path, ask()).status == 200:
        calls += 1
        assert before + calls * COST <= budget
    assert calls > 0


def test_a_restarted_router_remembers(limited):
    router = limited(tokenBudget={"dailyTokens": 2_000})
    for _ in range(5):
        client.post(router.port, CHAT.path, ask())
    assert router.stop() == 0
    router.start()
    assert spent(router) == 5 * COST


@pytest.mark.parametrize("member", ["max_tokens", "max_completion_tokens"])
def test_the_cap_per_request_gets_429_with_both_numbers(member: str, limited, upstream: Upstream):
    router = limited(tokenBudget={"perRequestTokens": 100})
    found = client.post(router.port, CHAT.path, CHAT.request(**{member: 101}))
    assert found.status == 429
    error = CHAT.error(found.json)
    assert (error["type"], error["code"]) == ("token_budget_exceeded", "per_request_tokens_exceeded")
    assert error["message"] == "Requested max_tokens=101 exceeds InferencePolicy tokenBudget.perRequestTokens=100"
    assert upstream.received == []
    assert client.post(router.port, CHAT.path, CHAT.request(**{member: 100})).status == 200


def test_the_cap_per_request_holds_in_the_other_dialects(limited):
    router = limited(tokenBudget={"perRequestTokens": 100})
    found = client.post(router.port, "/v1/responses", payloads.responses_request(max_output_tokens=101))
    assert (found.status, found.json["error"]["code"]) == (429, "per_request_tokens_exceeded")
    found = client.post(router.port, "/v1/messages", payloads.messages_request(max_tokens=101))
    assert (found.status, found.json["error"]["type"]) == (429, "rate_limit_error")


@every_dialect
def test_the_request_rate_gets_429_with_the_time_to_come_back(dialect: Dialect, limited):
    router = limited(requestRate={"requestsPerMinute": 60, "burst": 3})
    found = [client.post(router.port, dialect.path, dialect.request()) for _ in range(6)]
    assert [one.status for one in found[:3]] == [200, 200, 200]
    denied = found[-1]
    assert denied.status == 429
    assert int(denied.header("retry-after") or 0) >= 1
    assert denied.header("x-ratelimit-limit-requests") == "60"
    assert denied.header("x-ratelimit-remaining-requests") == "0"
    assert denied.header("x-ratelimit-reset-requests")
    error = dialect.error(denied.json)
    assert error["type"] == "rate_limit_error"
    time.sleep(1.1)
    assert client.post(router.port, dialect.path, dialect.request()).status == 200


def test_calls_that_name_no_cap_do_not_lock_each_other_out(limited, upstream: Upstream):
    router = limited(tokenBudget={"dailyTokens": 50_000})
    upstream.default = behaviours.silent_before_head(0.3, behaviours.answer(CHAT.whole()))
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(client.post(router.port, CHAT.path, CHAT.request()).status))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8


def test_a_budget_from_the_environment_holds_without_a_policy(start_router: StartRouter):
    router = start_router(TOKEN_BUDGET_DAILY="300")
    statuses = [client.post(router.port, CHAT.path, ask()).status for _ in range(30)]
    assert statuses[0] == 200
    assert statuses[-1] == 429


def test_a_policys_zero_means_unlimited_whatever_the_environment_says(start_router: StartRouter, mount: Mount):
    mount.write(policy(tokenBudget={"dailyTokens": 0}))
    router = start_router(TOKEN_BUDGET_DAILY="10", INFERENCE_POLICY_DIR=str(mount.folder))
    assert client.post(router.port, CHAT.path, ask()).status == 200


def test_a_compressed_answer_is_metered(limited, upstream: Upstream):
    router = limited(tokenBudget={"dailyTokens": 100_000})
    upstream.next(behaviours.gzipped_if_asked(CHAT.whole()))
    found = client.post(router.port, CHAT.path, ask(), ("Accept-Encoding", "gzip, deflate"))
    assert found.status == 200
    assert settled(router) == COST
    assert router.metric("kars_usage_estimated_total") == 0


def test_a_call_without_cap_gets_what_is_left_as_its_cap(limited, upstream: Upstream):
    router = limited(tokenBudget={"dailyTokens": 1_500})
    body = payloads.pack(CHAT.request(made_up=1.50))
    assert client.post(router.port, CHAT.path, body).status == 200
    inserted(body, upstream.last.body)
    sent = upstream.last.json
    cap = sent.pop("max_completion_tokens", None) or sent.pop("max_tokens", None)
    assert 0 < cap < 1_500
    assert sent == CHAT.request(made_up=1.5)


def test_a_cap_is_lowered_to_what_is_left_if_the_policy_says_so(limited, upstream: Upstream):
    router = limited(tokenBudget={"dailyTokens": 1_500, "clampToRemaining": True})
    assert client.post(router.port, CHAT.path, CHAT.request(max_tokens=100_000)).status == 200
    assert 0 < upstream.last.json["max_tokens"] < 1_500
    assert upstream.last.json == {**CHAT.request(), "max_tokens": upstream.last.json["max_tokens"]}


def test_a_hard_cap_above_what_is_left_is_denied(limited, upstream: Upstream):
    router = limited(tokenBudget={"dailyTokens": 1_500})
    assert client.post(router.port, CHAT.path, CHAT.request(max_tokens=100_000)).status == 429
    assert upstream.received == []


def test_several_choices_are_reserved_for(limited, upstream: Upstream):
    router = limited(tokenBudget={"dailyTokens": 1_500})
    assert client.post(router.port, CHAT.path, CHAT.request(max_tokens=1_000, n=2)).status == 429
    assert client.post(router.port, CHAT.path, CHAT.request(max_tokens=100, n=2)).status == 200
    assert len(upstream.received) == 1
