"""The routes people, probes and tools rely on."""

import pytest

from tests.system import behaviours, client, payloads
from tests.system.conftest import StartRouter
from tests.system.dialects import ALL, CHAT, MESSAGES, Dialect
from tests.system.router import Router
from tests.system.upstream import Upstream

every_dialect = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)


@pytest.fixture
def router(shared_router: Router):
    return shared_router


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/livez"])
def test_the_probes_answer_on_both_ports(path: str, router: Router):
    for port in (router.port, router.metrics_port):
        found = client.get(port, path)
        assert (found.status, found.body) == (200, b"ok")


def test_the_metrics_are_on_both_ports_and_parse(router: Router):
    from prometheus_client.parser import text_string_to_metric_families

    client.post(router.port, CHAT.path, CHAT.request())
    for port in (router.port, router.metrics_port):
        found = client.get(port, "/metrics")
        assert found.status == 200
        assert (found.header("content-type") or "").startswith("text/plain")
        names = {family.name for family in text_string_to_metric_families(found.text)}
        assert {"kars_inference_requests", "kars_inference_latency_seconds", "kars_tokens"} <= names
    assert router.metric("kars_bugs_total") == 0


def test_the_metrics_port_serves_no_calls(router: Router):
    assert client.post(router.metrics_port, CHAT.path, CHAT.request()).status == 404


@every_dialect
def test_a_wrong_method_gets_405_in_the_dialect(dialect: Dialect, router: Router):
    found = client.call(router.port, "PUT", dialect.path, b"{}")
    assert found.status == 405
    assert "POST" in (found.header("allow") or "")
    dialect.error(found.json)


def test_an_unknown_path_gets_404_in_the_dialect(router: Router):
    CHAT.error(client.get(router.port, "/v1/nothing").json)
    found = client.get(router.port, "/v1/nothing", ("anthropic-version", "2023-06-01"))
    assert found.status == 404
    assert MESSAGES.error(found.json)["type"] == "not_found_error"


@pytest.mark.parametrize("path", ["/v1/../admin/model", "/v1//chat/completions", "/v1/chat/completions/", "/V1/models"])
def test_a_path_is_taken_literally(path: str, router: Router, shared_upstream: Upstream):
    before = len(shared_upstream.received)
    assert client.post(router.port, path, CHAT.request()).status in {400, 404, 405}
    assert len(shared_upstream.received) == before


def test_what_coding_tools_ask_first_is_answered(router: Router):
    assert client.call(router.port, "HEAD", "/").status == 200


def test_every_answer_has_a_trace_id(router: Router):
    for found in (
        client.post(router.port, CHAT.path, CHAT.request()),
        client.post(router.port, CHAT.path, b"[]"),
        client.get(router.port, "/v1/nothing"),
    ):
        assert found.header("x-kars-trace-id")


@pytest.mark.parametrize("path", ["/admin/model", "/statusz", "/configz"])
def test_the_admin_routes_need_the_token_even_on_loopback(path: str, start_router: StartRouter):
    """W-1, W-7: the agent is on loopback too, and without a token nobody gets in."""
    guarded = start_router(ADMIN_TOKEN="the-token")
    assert client.get(guarded.port, path).status == 401
    assert client.get(guarded.port, path, ("Authorization", "Bearer the-token")).status == 200
    assert client.call(guarded.port, "PUT", path, {"model": "m"}).status == 401
    unset = start_router()
    assert client.call(unset.port, "PUT", path, {"model": "m"}).status in {401, 403}
    assert client.call(unset.port, "PUT", path, {"model": "m"}, ("Authorization", "Bearer ")).status in {401, 403}


def test_each_dialect_goes_to_its_provider(start_router: StartRouter, upstream: Upstream):
    from tests.system.upstream import Upstream as Other

    with Other(behaviours.service()) as other:
        router = start_router(ANTHROPIC_BASE_URL=other.url)
        client.post(router.port, CHAT.path, CHAT.request())
        client.post(router.port, MESSAGES.path, MESSAGES.request())
        assert [request.target for request in upstream.received] == ["/v1/chat/completions"]
        assert [request.target for request in other.received] == ["/v1/messages"]


def test_azure_forms_go_to_azure(start_router: StartRouter, upstream: Upstream):
    router = start_router(
        OPENAI_BASE_URL="", OPENAI_API_KEY="", AZURE_OPENAI_ENDPOINT=upstream.url, AZURE_OPENAI_API_KEY="k" * 20
    )
    body = {"messages": [{"role": "user", "content": "hi"}]}
    found = client.post(router.port, "/openai/deployments/dep/chat/completions?api-version=2024-10-21", body)
    assert found.status == 200
    assert upstream.last.target.startswith("/openai/")
    assert "dep" in upstream.last.target or upstream.last.json["model"] == "dep"
    client.post(router.port, "/v1/chat/completions", payloads.chat_request())
    assert upstream.last.target == "/openai/v1/chat/completions"


def test_a_dialect_without_provider_gets_a_typed_error(start_router: StartRouter):
    router = start_router(ANTHROPIC_BASE_URL="", ANTHROPIC_API_KEY="")
    found = client.post(router.port, MESSAGES.path, MESSAGES.request())
    assert 400 <= found.status < 600
    MESSAGES.error(found.json)


def test_a_wrong_setting_is_named_and_nothing_starts(start_router: StartRouter):
    router = start_router(ROUTER_BODY_LIMIT_BYTES="lots", wait=False)
    assert router.wait(10) != 0
    assert "ROUTER_BODY_LIMIT_BYTES" in router.log


def test_a_taken_port_is_named_and_nothing_starts(start_router: StartRouter, upstream: Upstream):
    router = start_router(ROUTER_PORT=str(upstream.port), wait=False)
    assert router.wait(10) != 0
    assert str(upstream.port) in router.log
