"""What a tenant with a namespace of its own can write, and what that must not do to others: on a real API server."""

import json

import pytest

from kars.controller import roster
from kars.kube import types
from kars.kube.errors import Missing
from kars.kube.types import Key
from kars.model.sandbox import KarsSandbox
from tests.cluster.controlling import Running, install_crds, settings
from tests.cluster.world import World, where

SANDBOX = {"runtime": {"kind": "OpenClaw"}, "sandbox": {}, "inferenceRef": {"name": "none"}}


@pytest.fixture(scope="session")
def kars_plane(plane):
    install_crds(plane)
    return plane


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
