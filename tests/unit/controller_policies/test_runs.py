"""Runs of evaluations, approved repairs, pairings and signing keys through time."""

import asyncio
import json

import pytest

from kars.controller.marks import stump
from kars.controller.policies import jobs, mcp
from kars.controller.policies.evaluations import DRIFT, RUN_NOW, Evaluations
from kars.controller.policies.jwks import Failed
from kars.controller.policies.mcp import McpServers, allowed
from kars.controller.policies.pairing import Pairings
from kars.controller.policies.sre import Actions
from kars.controller.reconcile import Temporary
from kars.kube.errors import Busy
from kars.kube.types import Key
from kars.model.decode import parse
from kars.model.kinds import KINDS
from kars.model.mcp import McpServer
from kars.model.sandbox import KarsSandbox
from tests.unit.controller_policies.memory import World, stamp

EVAL = {"corpus": {"builtin": "banned-tools"}, "targetSandboxRef": {"name": "s"}}


class Issuer:
    """Says what it is told to, and counts."""

    def __init__(self):
        self.asked = 0
        self.answer = b'{"keys":[]}'

    async def fetch(self, issuer):
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def issuer():
    return Issuer()


@pytest.fixture
def world(issuer):
    return World(Evaluations(), Actions(), Pairings(), McpServers(issuer))


def ended_job(world, evaluation, report, *, name="run", minutes=0):
    """Make a Job of an evaluation that ended, and its pod with a log."""
    world.pass_time(minutes=minutes)
    uid = world.api.objects["KarsEval", evaluation]["metadata"]["uid"]
    marks = {jobs.DIGEST: "sha256:x", jobs.LABEL: "builtin:banned-tools"}
    world.child(
        "Job",
        name,
        namespace="team",
        api="batch/v1",
        labels={jobs.EVALUATION: evaluation.name},
        metadata={"annotations": marks, "ownerReferences": [{"uid": uid}]},
        status={
            "conditions": [{"type": "Complete", "status": "True"}],
            "succeeded": 1,
            "completionTime": stamp(world.clock),
        },
    )
    pod = Key("team", f"{name}-x")
    labels = {"batch.kubernetes.io/job-name": name}
    world.api.store({"apiVersion": "v1", "kind": "Pod", "metadata": {**pod._asdict(), "labels": labels}})
    world.api.logs[pod] = b"starting\n" + json.dumps(report).encode() + b"\n"


def report(passed, failed):
    results = [{"caseId": f"p{number}", "verdict": {"result": "Pass"}} for number in range(passed)]
    results += [{"caseId": f"f{number}", "verdict": {"result": "Fail"}} for number in range(failed)]
    return {"schemaVersion": "v1", "total": passed + failed, "passed": passed, "failed": failed, "results": results}


async def test_a_report_becomes_the_result_and_the_newest_of_the_history(world):
    key = world.put("KarsEval", "e", EVAL)
    await world.look("KarsEval", key)
    ended_job(world, key, report(5, 0))
    assert ("KarsEval", key) in world.woken
    await world.look("KarsEval", key)
    said = world.status("KarsEval", key)
    assert (said["phase"], world.ready("KarsEval", key)["reason"]) == ("Ready", "AllPassed")
    assert (said["lastResult"]["passed"], said["lastResult"]["corpusDigest"]) == (5, "sha256:x")
    ended_job(world, key, report(3, 2), name="again", minutes=5)
    await world.look("KarsEval", key)
    said = world.status("KarsEval", key)
    assert (said["phase"], world.ready("KarsEval", key)["reason"]) == ("Degraded", "DriftDetected")
    assert said["lastResult"]["firstFailingCases"] == ["f0", "f1"]
    assert [one["jobName"] for one in said["history"]] == ["again", "run"]
    # A log is read once.
    reads = world.api.requests["log", "Pod"]
    await world.look("KarsEval", key)
    assert world.api.requests["log", "Pod"] == reads


async def test_the_history_is_bounded_and_keeps_the_newest(world):
    key = world.put("KarsEval", "e", EVAL)
    for number in range(25):
        ended_job(world, key, report(1, 0), name=f"r{number}", minutes=1)
    await world.look("KarsEval", key)
    names = [one["jobName"] for one in world.status("KarsEval", key)["history"]]
    assert names == [f"r{number}" for number in range(24, 4, -1)]


async def test_a_job_of_another_evaluation_of_that_name_does_not_count(world):
    key = world.put("KarsEval", "e", EVAL)
    ended_job(world, key, report(5, 0))
    await world.api.delete(world.cluster.kinds["KarsEval"].kind, key)
    world.put("KarsEval", "e", EVAL)
    await world.look("KarsEval", key)
    assert world.status("KarsEval", key)["phase"] == "Pending"


async def test_a_log_that_cannot_be_read_is_tried_for_a_while_and_then_given_up(world):
    key = world.put("KarsEval", "e", EVAL)
    ended_job(world, key, report(5, 0))
    world.api.failures["log", "Pod"] = Busy("no kubelet", status=502)
    done = await world.look("KarsEval", key)
    assert world.ready("KarsEval", key)["reason"] == "RunReportReadFailed"
    assert done.after == 30.0
    world.pass_time(minutes=11)
    done = await world.look("KarsEval", key)
    assert done.after is None
    world.api.failures.clear()
    await world.look("KarsEval", key)
    assert "history" not in world.status("KarsEval", key)


async def test_drift_shows_on_the_sandbox_until_no_evaluation_says_so(world):
    sandbox = world.sandbox("s")
    first = world.put("KarsEval", "a", {**EVAL, "failSandboxOnDrift": True})
    second = world.put("KarsEval", "b", {**EVAL, "failSandboxOnDrift": True})
    silent = world.put("KarsEval", "c", EVAL)
    for number, key in enumerate((first, second, silent)):
        ended_job(world, key, report(1, 1), name=f"run{number}")
        await world.look("KarsEval", key)

    def drift():
        found = world.status("KarsSandbox", sandbox).get("conditions", ())
        return next((one["message"] for one in found if one["reason"] == DRIFT), "")

    assert drift() == "cases of KarsEval a, b fail"
    ended_job(world, first, report(2, 0), name="better", minutes=1)
    await world.look("KarsEval", first)
    assert drift() == "cases of KarsEval b fail"
    await world.finish("KarsEval", second)
    assert drift() == ""


async def test_an_evaluation_that_is_not_valid_any_more_leaves_no_drift_behind(world):
    sandbox = world.sandbox("s")
    key = world.put("KarsEval", "a", {**EVAL, "failSandboxOnDrift": True})
    ended_job(world, key, report(1, 1))
    await world.look("KarsEval", key)
    assert world.status("KarsSandbox", sandbox)["conditions"]
    world.put("KarsEval", "a", {"nonsense": True})
    known = world.cluster.known(KINDS["KarsEval"], key)
    assert known.resource is None
    await world.reconcilers["KarsEval"].finalize(stump(KINDS["KarsEval"], known.metadata), world.cluster)
    assert not world.status("KarsSandbox", sandbox)["conditions"]


async def test_what_a_sandbox_says_of_itself_is_not_overwritten(world):
    sandbox = world.sandbox("s")
    own = {
        "type": "Degraded",
        "status": "True",
        "reason": "FailedClosed",
        "message": "",
        "lastTransitionTime": "2026-05-04T12:00:00Z",
    }
    world.put("KarsSandbox", "s", world.api.objects["KarsSandbox", sandbox]["spec"], status={"conditions": [own]})
    key = world.put("KarsEval", "a", {**EVAL, "failSandboxOnDrift": True})
    ended_job(world, key, report(1, 1))
    await world.look("KarsEval", key)
    assert world.status("KarsSandbox", sandbox)["conditions"] == [own]


async def test_a_request_to_run_makes_one_job_however_often_it_is_seen(world):
    key = world.put("KarsEval", "e", EVAL, metadata={"annotations": {RUN_NOW: "true"}})
    seen = world.cluster.resource(KINDS["KarsEval"], key)
    for _ in range(3):
        await world.reconcilers["KarsEval"].reconcile(seen, world.cluster)
    made = [value for (kind, _), value in world.api.objects.items() if kind == "Job"]
    assert len(made) == 1
    assert RUN_NOW not in world.api.objects["KarsEval", key]["metadata"]["annotations"]


@pytest.mark.parametrize("length", [1, 30, 63])
async def test_names_of_jobs_fit_whatever_the_evaluation_is_called(world, length):
    key = world.put("KarsEval", "e" * length, {**EVAL, "schedule": "0 3 * * *"})
    evaluation = world.cluster.resource(KINDS["KarsEval"], key)
    assert len(jobs.run_now_name(evaluation)) <= 63
    assert len(jobs.cron_job_name(evaluation)) <= 52


# Pairings


async def test_a_pairing_ends_at_its_time_and_keeps_what_the_other_side_wrote(world):
    key = world.put(
        "KarsPairing",
        "p",
        {"tokenHash": "0" * 64, "expiresAt": "2026-05-04T13:00:00Z"},
        status={"phase": "Active", "boundAmid": "abc", "slotsUsed": 1},
    )
    done = await world.look("KarsPairing", key)
    assert (world.status("KarsPairing", key)["phase"], done.after) == ("Active", 3600.0)
    world.pass_time(hours=1)
    assert (await world.look("KarsPairing", key)).after is None
    said = world.status("KarsPairing", key)
    assert (said["phase"], said["boundAmid"], said["slotsUsed"]) == ("Expired", "abc", 1)


async def test_a_revoked_pairing_stays_revoked(world):
    spec = {"tokenHash": "0" * 64, "expiresAt": "2026-05-04T13:00:00Z"}
    key = world.put("KarsPairing", "p", spec, status={"phase": "Revoked"})
    world.pass_time(hours=2)
    await world.look("KarsPairing", key)
    assert world.status("KarsPairing", key)["phase"] == "Revoked"


# Repairs


def action(world, *, state="Pending", namespace="team", **more):
    target = {"namespace": namespace, "name": "x"}
    spec = {"action": {"type": "DeletePod", "params": target}, "approval": {"state": state}, **more}
    return world.put("KarsSREAction", "a", spec, namespace="kars-sre")


async def test_an_undecided_action_expires_and_an_approval_afterwards_does_nothing(world):
    key = action(world, ttlMinutes=10)
    done = await world.look("KarsSREAction", key)
    assert (world.status("KarsSREAction", key)["phase"], done.after) == ("Proposed", 600.0)
    world.pass_time(minutes=10)
    action(world, state="Approved", ttlMinutes=10)
    await world.look("KarsSREAction", key)
    assert world.status("KarsSREAction", key)["phase"] == "Expired"
    await world.look("KarsSREAction", key)
    assert world.status("KarsSREAction", key)["phase"] == "Expired"


async def test_an_action_that_ended_goes_after_an_hour_and_says_so(world):
    key = action(world, state="Rejected")
    await world.look("KarsSREAction", key)
    world.pass_time(minutes=59)
    done = await world.look("KarsSREAction", key)
    assert done.after == 60.0
    world.pass_time(minutes=1)
    await world.look("KarsSREAction", key)
    assert ("KarsSREAction", key) not in world.api.objects
    assert world.told.events[-1] == ("a", "Removed", "Normal")


async def test_an_action_that_helped_late_is_recovered_after_all(world):
    key = action(world, state="Approved")
    world.put(
        "KarsSREAction",
        "a",
        world.api.objects["KarsSREAction", key]["spec"],
        namespace="kars-sre",
        status={"phase": "Applied", "appliedAt": stamp(world.clock)},
    )
    bad = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w", "namespace": "team"}}
    world.api.store({**bad, "spec": {"replicas": 2}, "status": {"availableReplicas": 1}})
    await world.look("KarsSREAction", key)
    assert world.status("KarsSREAction", key)["phase"] == "Applied"
    world.pass_time(minutes=10)
    await world.look("KarsSREAction", key)
    assert world.status("KarsSREAction", key)["phase"] == "Failed"
    world.pass_time(minutes=10)
    world.api.store({**bad, "spec": {"replicas": 2}, "status": {"availableReplicas": 2}})
    await world.look("KarsSREAction", key)
    said = world.status("KarsSREAction", key)
    assert (said["phase"], said["conditions"][0]["reason"]) == ("Recovered", "LateRecovery")


# Keys


def server(**more):
    return {"url": "https://t.example", "productionMode": True, "oauth": {"issuer": "https://i.example"}, **more}


async def test_a_key_set_is_fetched_by_schedule_once_for_every_server_of_an_issuer(world, issuer):
    keys = [world.put("McpServer", f"m{number}", server()) for number in range(5)]
    for key in keys:
        done = await world.look("McpServer", key)
        assert done.after == 300.0
    assert issuer.asked == 1
    world.pass_time(minutes=5)
    for key in keys:
        await world.look("McpServer", key)
    assert issuer.asked == 2
    writes = sum(world.api.requests.values())
    world.pass_time(minutes=5)
    await world.look("McpServer", keys[0])
    assert sum(world.api.requests.values()) == writes


async def test_issuers_that_are_slow_do_not_take_every_worker(world, issuer):
    """Each question takes seconds, and whoever may write McpServers names as many issuers as they like."""
    answered, waiting = asyncio.Event(), []

    async def never(asked):
        waiting.append(asked)
        await answered.wait()
        return b'{"keys":[]}'

    issuer.fetch = never
    keys = [
        world.put("McpServer", f"m{number}", server(oauth={"issuer": f"https://i{number}.example"}))
        for number in range(mcp.AT_ONCE)
    ]
    looks = [asyncio.create_task(world.look("McpServer", key)) for key in keys]
    while len(waiting) < mcp.AT_ONCE:
        await asyncio.sleep(0)
    # Neither another issuer nor one that is being asked is waited for.
    for name, number in (("more", mcp.AT_ONCE), ("same", 0)):
        key = world.put("McpServer", name, server(oauth={"issuer": f"https://i{number}.example"}))
        with pytest.raises(Temporary):
            await asyncio.wait_for(world.look("McpServer", key), 5)
    answered.set()
    await asyncio.gather(*looks)
    assert (await world.look("McpServer", key)).after == 300.0


def test_an_evaluation_asks_the_service_of_its_sandbox_whatever_that_begins_with():
    for name, host in (("a1", "a1.kars-a1"), ("1a", "s-1a.kars-1a")):
        document = {"apiVersion": "kars.azure.com/v1alpha1", "kind": "KarsEval", "metadata": {"name": "e"}}
        spec = {**EVAL, "targetSandboxRef": {"name": name}}
        pod = jobs.pod_spec(parse(KINDS["KarsEval"], {**document, "spec": spec}), "runner:1", "l")
        assert f"http://{host}.svc.cluster.local:8443" in pod["containers"][0]["args"]


async def test_an_issuer_that_fails_is_told_and_its_last_keys_stay(world, issuer):
    issuer.answer = b'{"keys":[{"kid":"one"}]}'
    key = world.put("McpServer", "m", server())
    await world.look("McpServer", key)
    issuer.answer = Failed("timeout", "no answer")
    world.pass_time(minutes=5)
    done = await world.look("McpServer", key)
    assert world.ready("McpServer", key)["reason"] == "JwksFetchFailed"
    assert done.after == 60.0
    data = world.api.objects["ConfigMap", Key("team", "mcp-m-jwks")]["data"]
    assert "one" in data["jwks.json"]


async def test_a_signing_key_is_made_once_and_no_status_tells_it(world):
    key = world.put("McpServer", "m", {"url": "http://t.example"})
    await world.look("McpServer", key)
    made = world.api.objects["Secret", Key("team", "mcp-m-signing")]["data"]
    for _ in range(3):
        await world.look("McpServer", key)
    assert world.api.objects["Secret", Key("team", "mcp-m-signing")]["data"] == made
    assert made["signing-key.private"] not in json.dumps(world.status("McpServer", key))


@pytest.mark.parametrize(
    ("wanted", "labels", "namespace", "expected"),
    [
        (None, {}, "team", True),
        ({}, {}, "team", True),
        ({"a": "b"}, {"a": "b", "c": "d"}, "team", True),
        ({"a": "b"}, {"a": "c"}, "team", False),
        ({"a": "b", "c": "d"}, {"a": "b"}, "team", False),
        (None, {}, "other", False),
    ],
)
def test_a_server_is_given_to_the_sandboxes_of_its_namespace_that_have_its_labels(wanted, labels, namespace, expected):
    spec = {"url": "http://t.example"} | ({} if wanted is None else {"allowedSandboxes": {"matchLabels": wanted}})
    names = {"runtime": {"kind": "OpenClaw", "openclaw": {}}, "sandbox": {}, "inferenceRef": {"name": "m"}}
    document = {"apiVersion": "kars.azure.com/v1alpha1"}
    one = {**document, "kind": "McpServer", "metadata": {"name": "m", "namespace": "team"}, "spec": spec}
    other = {**document, "kind": "KarsSandbox", "metadata": {"name": "s", "namespace": namespace, "labels": labels}}
    assert allowed(parse(McpServer, one), parse(KarsSandbox, {**other, "spec": names})) is expected
