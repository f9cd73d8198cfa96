"""What a tenant with a namespace of its own can write, and what that must not do to others: on a real API server."""

import json

import pytest

from kars.controller import roster
from kars.kube import types
from kars.kube.errors import Missing
from kars.kube.types import Key
from kars.model.sandbox import KarsSandbox
from tests.cluster.controlling import Running, settings
from tests.cluster.world import World, where

SANDBOX = {"runtime": {"kind": "OpenClaw"}, "sandbox": {}, "inferenceRef": {"name": "none"}}


@pytest.fixture(scope="module")
def controller(kars_plane):
    with Running(kars_plane, roster.reconcilers(settings()), namespace=kars_plane.make_namespace()) as running:
        yield running


@pytest.fixture
def make_team(kars_plane, controller):
    """Make namespaces of teams; everything in them is let go in the end."""
    made = []

    def make():
        made.append(World(kars_plane, kars_plane.make_namespace()))
        return made[-1]

    yield make
    for team in made:
        kars_plane.api.delete(f"/api/v1/namespaces/{team.namespace}")


def post(team, kind, text):
    """Create a resource whose text no encoder here would write."""
    answer = team.plane.api.session.post(
        team.plane.api.url + where(kind, team.namespace), data=text, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 201, answer.text[:500]


def deep(name, levels):
    spec = json.dumps({**SANDBOX, "runtime": {"kind": "OpenClaw", "openclaw": {"config": "HERE"}}})
    spec = spec.replace('"HERE"', '{"a":' * levels + "1" + "}" * levels)
    return (
        f'{{"apiVersion":"kars.azure.com/v1alpha1","kind":"KarsSandbox","metadata":{{"name":"{name}"}},"spec":{spec}}}'
    )


def read(controller, team, name):
    """A KarsSandbox, read by the controller's own client, since a test's reader of JSON ends where it nests."""
    try:
        return controller.call(controller.client.get(types.custom(KarsSandbox), Key(team.namespace, name)))
    except Missing:
        return None


def test_a_resource_nested_to_the_api_servers_limit_ends_nobody_elses_watch_or_list(make_team, controller):
    """One such resource kept the list of KarsSandboxes from being read, by this controller and by every later one."""
    bad, good = make_team(), make_team()
    # Past the decoder of JSON, past that of resources, and what can be read.
    reasons = {9000: {"SpecInvalid"}, 940: {"SpecInvalid", "InferencePolicyNotFound"}, 70: {"InferencePolicyNotFound"}}
    for levels in reasons:
        post(bad, "KarsSandbox", deep(f"deep-{levels}", levels))
    good.create("KarsSandbox", f"flat-{good.namespace}", SANDBOX)
    good.reaches("KarsSandbox", f"flat-{good.namespace}", "Degraded", "InferencePolicyNotFound")

    def reason(levels):
        conditions = (read(controller, bad, f"deep-{levels}").get("status") or {}).get("conditions", ())
        return next((one["reason"] for one in conditions if one["type"] == "Ready"), None)

    for levels, wanted in reasons.items():
        assert bad.plane.wait(lambda levels=levels: reason(levels)) in wanted
    controller.call(controller.cluster.kinds["KarsSandbox"].relist())
    assert len(controller.cluster.kinds["KarsSandbox"]) >= len(reasons) + 1
    for levels in reasons:
        controller.call(controller.client.delete(types.custom(KarsSandbox), Key(bad.namespace, f"deep-{levels}")))
        bad.plane.wait(lambda levels=levels: read(controller, bad, f"deep-{levels}") is None)


APPROVED = '{"effectiveAt":"2026-01-01T00:00:00Z"}'


def test_an_approval_of_another_team_takes_nothing_from_a_sandbox_of_the_name(make_team):
    """Each approval has a key and a field manager by its name alone, which two namespaces can both have."""
    ours, theirs = make_team(), make_team()
    name = f"agent-{ours.namespace}"
    labels = {"app.kubernetes.io/managed-by": "kars-controller", "kars.azure.com/sandbox": name}
    space = ours.plane.make_namespace(f"kars-{name}", {**labels, "kars.azure.com/parent-namespace": ours.namespace})
    path = f"/api/v1/namespaces/{space}/configmaps/karssandbox-{name}-egress-approvals"
    head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"karssandbox-{name}-egress-approvals"}}
    value = {**head, "metadata": {**head["metadata"], "labels": labels}}
    ours.plane.api.apply(path, value, manager="kars-controller/egressapproval")
    value = {**head, "data": {"approval-friday.json": APPROVED}}
    ours.plane.api.apply(path, value, manager="kars-controller/egressapproval/friday")
    spec = {"sandbox": name, "hosts": [{"host": "api.example.com"}], "reason": "none", "ttl": "P30D"}
    theirs.create("EgressApproval", "friday", spec)
    theirs.reaches("EgressApproval", "friday", "Pending", "TtlExceedsCeiling")
    theirs.delete("EgressApproval", "friday")
    theirs.wait_gone("EgressApproval", "friday")
    assert ours.plane.api.get(path)["data"] == {"approval-friday.json": APPROVED}
