"""The sidecar as a process: policy, cold routes, signals, tools."""

import http.client
import json
import signal

import pytest

from kars.controller import echo
from tests.boundary.conftest import TOKEN

CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()


def test_a_policy_is_in_force_from_the_first_answer(router):
    one = router(policy={"models": {"deny": ["m"]}})
    status, body = one.call("POST", "/v1/chat/completions", CHAT)
    assert status == 403
    assert json.loads(body)["error"]["type"] == "policy_violation"


def test_without_a_policy_where_one_is_meant_calls_are_refused(router):
    one = router()
    assert one.get("/readyz")[0] == 503
    assert one.call("POST", "/v1/chat/completions", CHAT)[0] == 503


def test_a_changed_policy_comes_into_force_and_its_digest_is_shown(router):
    one = router(policy={"models": {"deny": ["m"]}})
    before = one.policy_status()["digest"]
    one.write_policy({"models": {"deny": ["other"]}})
    one.until(lambda: one.policy_status()["digest"] != before)
    # Nothing listens upstream, so an allowed call fails there and not here.
    assert one.call("POST", "/v1/chat/completions", CHAT)[0] == 502


def test_a_bad_policy_is_refused_and_the_old_one_stays_until_a_good_one_comes(router):
    one = router(policy={"models": {"deny": ["m"]}})
    digest = one.policy_status()["digest"]
    one.write_policy('{"models": 3}')
    one.until(lambda: one.policy_status()["last_error"])
    assert one.policy_status()["digest"] == digest
    assert "models" in one.policy_status()["last_error"]
    assert one.call("POST", "/v1/chat/completions", CHAT)[0] == 403
    one.write_policy({"models": {"deny": ["m", "n"]}})
    one.until(lambda: one.policy_status()["last_error"] is None)
    assert one.policy_status()["digest"] != digest


def test_the_cold_routes_answer_the_first_call_and_the_next(router, token):
    one = router(policy={})
    status, body = one.get("/admin/model", token=token)
    assert (status, json.loads(body)) == (200, {"model": "gpt-4.1", "default": "gpt-4.1"})
    status, body = one.call("PUT", "/admin/model", b'{"model": "o3"}', token=token)
    assert (status, json.loads(body)) == (200, {"model": "o3", "previous": "gpt-4.1"})
    assert json.loads(one.get("/admin/model", token=token)[1])["model"] == "o3"
    assert one.get("/statusz", token=token)[1].startswith(b"kars router\n")


@pytest.mark.parametrize("given", [None, "wrong"])
@pytest.mark.parametrize("path", ["/admin/model", "/statusz", "/configz"])
def test_cold_routes_ask_for_the_token_on_loopback_too(router, path, given):
    one = router(policy={})
    assert one.get(path, token=given)[0] == 401


def test_a_change_without_the_token_changes_nothing(router, token):
    one = router(policy={})
    assert one.call("PUT", "/admin/model", b'{"model": "o3"}')[0] == 401
    assert json.loads(one.get("/admin/model", token=token)[1])["model"] == "gpt-4.1"


def test_a_bad_body_for_the_model_is_a_400_of_the_flat_shape(router, token):
    one = router(policy={})
    status, body = one.call("PUT", "/admin/model", b'{"model": 3}', token=token)
    assert status == 400
    assert list(json.loads(body)) == ["error"]


def test_configz_holds_no_secret(router, token):
    one = router(policy={}, OPENAI_API_KEY="sk-very-secret", ANTHROPIC_API_KEY="ak-very-secret")
    for path in ("/configz", "/statusz"):
        status, body = one.get(path, token=token)
        assert status == 200
        assert b"very-secret" not in body
        assert token.encode() not in body


def test_sigterm_ends_it_with_status_0(router):
    one = router(policy={})
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(15) == 0


def test_sigterm_ends_it_with_the_cold_server_running(router, token):
    one = router(policy={})
    assert one.get("/statusz", token=token)[0] == 200
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(15) == 0


def test_a_port_in_use_is_told_in_one_line(router):
    one = router(policy={})
    one.environment |= {"KARS_AUDIT_DIR": "", "TOKEN_BUDGET_PERSIST_PATH": "", "EGRESS_LEARNED_PATH": ""}
    done = one.cli("router")
    assert done.returncode == 2
    assert "ROUTER_PORT" in done.stderr
    assert str(one.port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_variable_is_told_in_one_line_with_status_2(router):
    one = router(policy={})
    one.environment["ROUTER_BODY_LIMIT_BYTES"] = "much"
    done = one.cli("router")
    assert done.returncode == 2
    assert "ROUTER_BODY_LIMIT_BYTES" in done.stderr


def test_probe_reaches_its_own_router_and_carries_the_token(router):
    one = router(policy={})
    assert (one.cli("probe").returncode, one.cli("probe").stdout) == (0, "ok\n")
    assert one.cli("probe", "/internal/policy-status").returncode == 0
    assert one.cli("probe", "/nothing").returncode == 1


def test_probe_without_a_router_is_status_1_with_a_hint(router):
    one = router(policy={})
    one.stop()
    done = one.cli("probe")
    assert done.returncode == 1
    assert "hint:" in done.stderr


def test_the_audit_log_of_a_run_is_whole_and_a_changed_byte_breaks_it(router):
    one = router(policy={"models": {"deny": ["m"]}})
    for _ in range(5):
        one.call("POST", "/v1/chat/completions", CHAT)
    one.stop()
    done = one.cli("audit", "verify", str(one.audit), "-o", "json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True), done.stdout
    assert report["records"] >= 5
    log = next(one.audit.glob("*.jsonl"))
    lines = log.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"deny", b"fine", 1)
    log.write_bytes(b"".join(lines))
    done = one.cli("audit", "verify", str(one.audit))
    assert done.returncode == 1
    assert f"{log.name}:2" in done.stdout


def test_policy_validate_says_what_the_router_would(router, tmp_path):
    one = router(policy={})
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text("{}")
    bad.write_text('{"tokenBudget": {"dayly": 1}}')
    assert one.cli("policy", "validate", str(good)).returncode == 0
    assert one.cli("policy", "digest", str(good)).stdout.strip() == one.policy_status()["digest"]
    done = one.cli("policy", "validate", str(bad))
    assert done.returncode == 1
    assert "dayly" in done.stderr


def test_who_holds_the_token_is_shown_who_answers_without_sending_it(router):
    """The controller's question by which it knows the router from whoever else answers at the pod's address."""
    one = router(policy={})
    nonce = "5" * 64

    def ask(token):
        client = http.client.HTTPConnection("127.0.0.1", one.port, timeout=15)
        try:
            client.request("GET", "/internal/policy-status", headers={"authorization": echo.question(token, nonce)})
            answer = client.getresponse()
            return answer.status, answer.getheader("x-kars-proof", ""), answer.read()
        finally:
            client.close()

    status, shown, body = ask(TOKEN)
    assert status == 200
    assert echo.proven(shown, TOKEN, nonce, body)
    assert echo.read(body)
    # Loopback may read, but who has another token learns nothing of this one.
    status, shown, body = ask("another")
    assert (status, shown) == (200, "")
