"""What the controller compiles, as a running router reports it."""

from datetime import UTC, datetime, timedelta

from kars.model.decode import decode
from kars.policy.compiled import egress, inference
from kars.policy.compiled.outcome import Given


def resource(kind, spec):
    return decode({"apiVersion": "kars.azure.com/v1alpha1", "kind": kind, "metadata": {"name": "one"}, "spec": spec})


def approval(*hosts, name="one"):
    now = datetime.now(UTC)
    spec = {"sandbox": "boundary", "hosts": [{"host": host} for host in hosts], "reason": "a test", "ttl": "PT1H"}
    made = resource("EgressApproval", spec)
    return egress.approval_file(name), egress.approval(made, effective_at=now, expires_at=now + timedelta(hours=1))


def test_a_running_router_reports_the_digests_that_were_computed(router):
    made = resource("InferencePolicy", {"appliesTo": {}, "tokenBudget": {"perRequestTokens": 9, "dailyTokens": 3}})
    policy = inference.render(made, Given())
    running = router(policy=policy.objects[0]["data"][inference.FILE])
    listed = resource(
        "EgressApproval",
        {
            "sandbox": "boundary",
            "hosts": [{"host": "B.example"}, {"host": "a.example", "port": 80}, {"host": "169.254.169.254"}],
            "reason": "r",
            "ttl": "PT1H",
        },
    ).spec.hosts
    baseline = egress.allowlist(listed)
    approvals = dict([approval("c.example", "b.EXAMPLE"), approval("d.example", name="two")])
    running.write_egress(egress.FILE, baseline.decode())
    for name, body in approvals.items():
        running.write_egress(name, body.decode())
    expected = {
        "InferencePolicy": policy.digest,
        "EgressAllowlist": egress.allowlist_digest(baseline),
        "EgressApproval": egress.merged_digest(baseline, approvals.values()),
    }

    def reported():
        rows = {kind: running.policy_status(kind) for kind in expected}
        return {kind: row["digest"] for kind, row in rows.items() if row} == expected

    running.until(reported)
    assert all(running.policy_status(kind)["last_error"] is None for kind in expected)
