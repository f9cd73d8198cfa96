"""Who calls is the sandbox this router belongs to, whatever a header says (W-4)."""

from tests.system import client
from tests.system.conftest import StartRouter
from tests.system.dialects import CHAT
from tests.system.router import Mount, Router, policy


def test_a_sandbox_header_changes_nothing(router: Router):
    client.post(router.port, CHAT.path, CHAT.request(), ("x-kars-sandbox", "somebody-else"))
    (record,) = router.wait_audit(1)
    assert record["sandbox"] == "test-sandbox"
    assert "somebody-else" not in router.metrics()
    assert router.metric("kars_inference_requests_total", sandbox="test-sandbox") == 1


def test_a_new_sandbox_name_gives_no_new_budget(start_router: StartRouter, mount: Mount):
    mount.write(policy(tokenBudget={"dailyTokens": 200}))
    router = start_router(INFERENCE_POLICY_DIR=str(mount.folder))
    statuses = [
        client.post(router.port, CHAT.path, CHAT.request(max_tokens=7), ("x-kars-sandbox", f"other-{turn}")).status
        for turn in range(40)
    ]
    assert 429 in statuses
    assert statuses[-1] == 429


def test_a_trace_id_is_kept_when_it_is_well_formed(router: Router, upstream):
    found = client.post(router.port, CHAT.path, CHAT.request(), ("x-kars-trace-id", "my-trace_1"))
    assert found.header("x-kars-trace-id") == "my-trace_1"
    bad = client.post(router.port, CHAT.path, CHAT.request(), ("x-kars-trace-id", "bad trace!" + "x" * 200))
    assert len(bad.header("x-kars-trace-id") or "") == 16
