"""Every call leaves one record in a chain that can be verified, and recording costs the same for each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import behaviours, client, payloads
from tests.system.conftest import StartRouter
from tests.system.dialects import ALL, CHAT, Dialect
from tests.system.router import Mount, Router, policy
from tests.system.upstream import Upstream

every_dialect = pytest.mark.parametrize("dialect", ALL, ids=lambda dialect: dialect.name)


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `kars audit verify`."""
    command = [sys.executable, "-m", "kars", "audit", "verify", str(folder), "-o", "json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@every_dialect
def test_a_call_leaves_one_record_that_says_what_happened(dialect: Dialect, router: Router):
    client.post(router.port, dialect.path, dialect.request(), ("x-kars-trace-id", "trace-1"))
    client.post(router.port, dialect.path, dialect.request(stream=True), ("x-kars-trace-id", "trace-2"))
    records = router.wait_audit(2)
    assert len(records) == 2
    for record, trace in zip(records, ["trace-1", "trace-2"], strict=True):
        call = record["call"]
        assert record["decision"] == "allow"
        assert record["sandbox"] == record["agent_id"] == "test-sandbox"
        assert call["trace_id"] == trace
        assert (call["input_tokens"], call["output_tokens"]) == (5, 7)
        assert (call["status"], call["end"], call["attempts"]) == (200, "complete", 1)
        assert call["latency_us"] >= call["first_byte_us"] > 0
        assert "estimated" not in call
        assert record["action"].startswith("inference:")


def test_denied_and_broken_calls_leave_their_record(start_router: StartRouter, upstream: Upstream, mount: Mount):
    mount.write(policy(models={"deny": ["banned"]}))
    router = start_router(INFERENCE_POLICY_DIR=str(mount.folder))
    client.post(router.port, CHAT.path, CHAT.request(model="banned"))
    upstream.next(behaviours.broken_stream(CHAT.events("a")[:2], "reset"))
    client.post(router.port, CHAT.path, CHAT.request(stream=True))
    upstream.next(behaviours.endless())
    with client.Client(router.port) as one:
        one.post(CHAT.path, CHAT.request(stream=True))
        one.until(b"more ")
        one.reset()
    denied, broken, left = router.wait_audit(3)
    assert (denied["decision"], denied["call"]["status"]) == ("deny", 403)
    assert "models.deny" in denied["call"]["rule"]
    assert denied["call"]["policy"].startswith("sha256:")
    assert (broken["decision"], broken["call"]["end"]) == ("allow", "reset")
    assert left["call"]["end"] == "client_gone"
    assert left["call"]["estimated"] is True


def test_the_log_verifies_while_running_after_a_kill_and_after_a_restart(router: Router, upstream: Upstream):
    for _ in range(50):
        client.post(router.port, CHAT.path, CHAT.request())
    router.wait_audit(50)
    upstream.next(behaviours.endless())
    with client.Client(router.port) as one:
        one.post(CHAT.path, CHAT.request(stream=True))
        one.until(b"more ")
        router.kill()
    router.start()
    for _ in range(50):
        client.post(router.port, CHAT.path, CHAT.request())
    records = router.wait_audit(100)
    assert len(records) >= 100
    done = verify(router.audit_folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert router.stop() == 0
    done = verify(router.audit_folder)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    numbers = [record["seq"] for record in router.audit()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.parametrize("change", ["edit", "drop", "swap"])
def test_a_changed_log_does_not_verify(change: str, router: Router):
    for _ in range(10):
        client.post(router.port, CHAT.path, CHAT.request())
    router.wait_audit(10)
    router.stop()
    (path, *_) = sorted(router.audit_folder.glob("*.jsonl"))
    lines = path.read_text().splitlines(keepends=True)
    if change == "edit":
        lines[4] = lines[4].replace('"status":200', '"status":201')
    elif change == "drop":
        del lines[4]
    else:
        lines[4], lines[5] = lines[5], lines[4]
    path.write_text("".join(lines))
    assert verify(router.audit_folder).returncode == 1


def test_a_record_is_there_although_the_router_is_killed_right_after(router: Router):
    for _ in range(20):
        assert client.post(router.port, CHAT.path, CHAT.request()).status == 200
    router.kill()
    router.start()
    assert len(router.wait_audit(20)) == 20


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_cost_of_a_call_does_not_grow_with_the_log(start_router: StartRouter):
    """W-34: no step of a call looks at what was recorded before."""
    router = start_router(RUST_LOG="warn")
    body = CHAT.request()

    def cost(calls: int) -> float:
        before = cpu_seconds(router.pid)
        with client.Client(router.port) as one:
            for _ in range(calls):
                one.post(CHAT.path, body)
                assert one.response().status == 200
        return cpu_seconds(router.pid) - before

    cost(500)
    early = cost(1500)
    cost(5000)
    late = cost(1500)
    assert late < 2 * early + 0.1, (early, late)


def test_no_audit_can_be_asked_for(start_router: StartRouter):
    router = start_router(KARS_AUDIT_DIR="disabled")
    assert client.post(router.port, CHAT.path, CHAT.request()).status == 200
    assert not router.audit_folder.exists()


def test_usage_of_embeddings_is_recorded(router: Router, upstream: Upstream):
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    document = {"object": "list", "data": [], "model": "e", "usage": usage}
    upstream.next(behaviours.answer(payloads.pack(document)))
    client.post(router.port, "/v1/embeddings", {"model": "e", "input": "hi"})
    (record,) = router.wait_audit(1)
    assert record["call"]["input_tokens"] == 9
    assert record["action"] == "inference:embeddings:e"
