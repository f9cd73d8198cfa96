"""Policies and real routers: nothing is told to be in force that a router does not say."""

import itertools
import json
import time
from collections import Counter

import pytest

from kars.controller import policies
from tests.cluster.controlling import Running
from tests.cluster.world import MODELS, House, World

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def controller(kars_plane):
    made = policies.reconcilers()
    looks = Counter()
    for one in made:
        count(one, looks)
    with Running(kars_plane, made, namespace=kars_plane.make_namespace()) as running:
        running.looks = looks
        yield running


def count(reconciler, looks):
    """Count how often each resource is looked at."""
    inner = reconciler.reconcile

    async def reconcile(resource, cluster):
        looks[type(resource).__name__, resource.metadata.namespace, resource.metadata.name] += 1
        return await inner(resource, cluster)

    reconciler.reconcile = reconcile


@pytest.fixture
def world(kars_plane, controller, namespace):
    return World(kars_plane, namespace)


@pytest.fixture
def house(world, make_kubelet):
    """Make sandboxes with real routers."""
    made = []

    def make(**spec):
        one = House(world, f"h{next(NUMBERS)}-{world.namespace}")
        make_kubelet(one.namespace)
        made.append(one)
        return one.make(**spec)

    yield make
    for one in made:
        one.plane.api.delete(f"/api/v1/namespaces/{one.namespace}")


def inference(world, **more):
    return world.create("InferencePolicy", "models", {"appliesTo": {}, "modelPreference": MODELS, **more})


def test_an_inference_policy_is_ready_when_the_real_router_has_it_in_force_and_not_before(world, house):
    inference(world)
    sandbox = house()
    waits = world.reaches("InferencePolicy", "models", "Compiled", "AwaitingRouterEnforcement")
    assert waits["conditions"][0]["message"].startswith(f"0/1 sandboxes enforce it: {sandbox.name}: ")
    sandbox.copy("inferencepolicy-models-profile")
    sandbox.run()
    said = world.reaches("InferencePolicy", "models", "Ready", "RouterEnforcing", 30)
    assert said["loadedDigest"] == said["compiledDigest"]
    compiled_at = said["lastCompiledAt"]
    # A change that the sandbox is not given yet is not in force, whatever was.
    world.merge("InferencePolicy", "models", {"spec": {"tokenBudget": {"dailyTokens": 1000}}})
    changed = world.reaches("InferencePolicy", "models", "Compiled", "AwaitingRouterEnforcement")
    assert changed["compiledDigest"] != said["compiledDigest"]
    assert "loadedDigest" not in changed
    assert said["compiledDigest"] in changed["conditions"][0]["message"]
    sandbox.copy("inferencepolicy-models-profile")
    again = world.reaches("InferencePolicy", "models", "Ready", "RouterEnforcing", 30)
    assert again["lastCompiledAt"] > compiled_at


def test_a_suspended_sandbox_holds_no_policy_up(world, house):
    inference(world)
    house(suspended=True)
    awake = house()
    awake.copy("inferencepolicy-models-profile")
    awake.run()
    world.reaches("InferencePolicy", "models", "Ready", "RouterEnforcing", 30)
    world.merge("KarsSandbox", awake.name, {"spec": {"suspended": True}})
    said = world.reaches("InferencePolicy", "models", "Compiled", "NoSandboxesReferencing")
    assert "2 suspended" in said["conditions"][0]["message"]


def test_a_tool_policy_whose_kind_no_router_reports_is_never_ready(world, house):
    inference(world)
    profile = {"inline": 'version: "1.0"\nagent: "*"\npolicies: []\n'}
    # The sandbox names no tool policy: the default one governs it, and counts it.
    world.create("ToolPolicy", "kars-default", {"appliesTo": {"sandboxMatchLabels": {"a": "b"}}, "agtProfile": profile})
    sandbox = house()
    sandbox.copy("inferencepolicy-models-profile")
    sandbox.run()

    def unreported():
        condition = world.condition("ToolPolicy", "kars-default")
        return "its router does not report AgtProfile" in condition["message"] and condition

    condition = world.plane.wait(unreported, 30)
    assert (condition["status"], condition["reason"]) == ("False", "AwaitingRouterEnforcement")
    assert world.status("ToolPolicy", "kars-default")["phase"] == "Compiled"


def said(world):
    """What the default tool policy says of itself."""
    return (world.condition("ToolPolicy", "kars-default") or {}).get("message", "")


def test_the_default_tool_policy_of_the_controller_counts_sandboxes_without_one_of_their_own(
    world, kars_plane, controller
):
    home = World(kars_plane, controller.settings.namespace)
    spec = {"appliesTo": {"sandboxMatchLabels": {"a": "b"}}, "agtProfile": {"inline": "version: '1'\n"}}
    home.create("ToolPolicy", "kars-default", spec)
    names = {"runtime": {"kind": "OpenClaw", "openclaw": {}}, "sandbox": {}, "inferenceRef": {"name": "models"}}
    world.create("KarsSandbox", f"d-{world.namespace}", names)

    world.plane.wait(lambda: f"d-{world.namespace}" in said(home))
    world.create("ToolPolicy", "kars-default", spec)
    world.plane.wait(lambda: f"d-{world.namespace}" not in said(home))
    world.plane.wait(lambda: f"d-{world.namespace}" in said(world))
    home.delete("ToolPolicy", "kars-default")


def grant(world, name, sandbox, host, **more):
    spec = {"sandbox": sandbox.name, "hosts": [{"host": host}], "reason": "a download", "ttl": "PT1H", **more}
    return world.create("EgressApproval", name, spec)


def files(sandbox):
    found = sandbox.world.config_map(f"karssandbox-{sandbox.name}-egress-approvals", sandbox.namespace)
    return set((found or {}).get("data") or {})


def test_approvals_come_and_go_beside_each_other_as_the_real_router_says(world, house):
    sandbox = house(phase="Creating")
    grant(world, "first", sandbox, "one.example.org")
    grant(world, "second", sandbox, "two.example.org")
    world.reaches("EgressApproval", "first", "Pending", "BlockedOnSandbox")
    sandbox.say("Running")
    world.reaches("EgressApproval", "first", "Pending", "AwaitingRouterEcho")
    assert files(sandbox) == {"approval-first.json", "approval-second.json"}
    sandbox.run()
    first = world.reaches("EgressApproval", "first", "Active", "RouterConfirmed", 30)
    second = world.reaches("EgressApproval", "second", "Active", "RouterConfirmed", 30)
    assert first["mergedDigest"] == second["mergedDigest"]
    assert first["effectiveAt"] < first["expiresAt"]
    world.delete("EgressApproval", "first")
    world.wait_gone("EgressApproval", "first", 10)
    assert files(sandbox) == {"approval-second.json"}

    def alone():
        status = world.status("EgressApproval", "second")
        return status["phase"] == "Active" and status["mergedDigest"] != first["mergedDigest"]

    world.plane.wait(alone, 20)
    assert world.status("EgressApproval", "second")["effectiveAt"] == second["effectiveAt"]


def test_an_approval_ends_at_its_time_once_and_makes_no_loop(world, house, controller):
    sandbox = house()
    sandbox.run()
    grant(world, "short", sandbox, "one.example.org", ttl="PT4S")
    world.reaches("EgressApproval", "short", "Active", "RouterConfirmed", 20)
    world.reaches("EgressApproval", "short", "Expired", "Expired", 15)
    assert not files(sandbox)
    version = world.get("EgressApproval", "short")["metadata"]["resourceVersion"]
    looks = controller.looks["EgressApproval", world.namespace, "short"]
    time.sleep(3)
    assert world.get("EgressApproval", "short")["metadata"]["resourceVersion"] == version
    assert controller.looks["EgressApproval", world.namespace, "short"] - looks <= 1
    world.delete("EgressApproval", "short")
    world.wait_gone("EgressApproval", "short", 5)


def test_an_approval_past_the_ceiling_grants_nothing(world, house):
    sandbox = house()
    grant(world, "long", sandbox, "one.example.org", ttl="P8D")
    said = world.reaches("EgressApproval", "long", "Pending", "TtlExceedsCeiling")
    assert {one["type"]: one["status"] for one in said["conditions"]}["Degraded"] == "True"
    assert not files(sandbox)


def test_an_approval_of_another_namespace_grants_a_sandbox_of_that_name_nothing(world, house, kars_plane):
    sandbox = house()
    other = World(kars_plane, kars_plane.make_namespace())
    stranger = House(other, sandbox.name)
    names = {"runtime": {"kind": "OpenClaw", "openclaw": {}}, "sandbox": {}, "inferenceRef": {"name": "models"}}
    other.create("KarsSandbox", sandbox.name, names)
    stranger.say("Running")
    grant(other, "foreign", stranger, "one.example.org")
    other.reaches("EgressApproval", "foreign", "Pending", "BlockedOnSandbox")
    assert not files(sandbox)


def test_nothing_is_written_while_nothing_changes(world, house, controller):
    inference(world)
    world.create("A2AAgent", "x", {"endpointUrl": "http://x", "signingKeys": [json.loads(KEY)]})
    sandbox = house()
    sandbox.copy("inferencepolicy-models-profile")
    sandbox.run()
    world.reaches("InferencePolicy", "models", "Ready", "RouterEnforcing", 30)
    world.reaches("A2AAgent", "x", "Ready", "Reconciled")

    def versions():
        resources = [world.get("InferencePolicy", "models"), world.get("A2AAgent", "x")]
        maps = [world.config_map("inferencepolicy-models-profile"), world.config_map("a2aagent-x-card")]
        return [one["metadata"]["resourceVersion"] for one in (*resources, *maps)]

    time.sleep(1)
    before, looks = versions(), sum(controller.looks[one] for one in mine(world))
    time.sleep(5)
    assert versions() == before
    assert sum(controller.looks[one] for one in mine(world)) - looks <= 1


def mine(world):
    return [("InferencePolicy", world.namespace, "models"), ("A2AAgent", world.namespace, "x")]


KEY = '{"kid": "k", "alg": "EdDSA", "publicKeyB64u": "' + "A" * 43 + '"}'
