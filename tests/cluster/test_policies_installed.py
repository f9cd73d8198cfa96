"""Every kind with the rights that the chart gives the controller, and sandboxes by their own reconciler."""

import pytest

from tests.cluster.installation import NAMESPACE, Installation
from tests.cluster.plane import ControlPlane
from tests.cluster.world import GROUP, MODELS, World

ROUTED = "kars-governed"


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    made = ControlPlane(tmp_path_factory.mktemp("installed")).start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def world(plane):
    """The controller's own namespace of an installation with everything switched on."""
    installation = Installation(plane, "sre.enabled=true").install()
    controller = installation.start()
    plane.wait(lambda: controller.get("/readyz"), what="the controller's readiness")
    plane.node()
    kubelet = plane.kubelet(ROUTED)
    yield World(plane, NAMESPACE)
    plane.retire(kubelet)
    installation.stop()


SPECS = {
    "ToolPolicy": ({"appliesTo": {"sandboxMatchLabels": {"a": "b"}}}, "Ready", "Reconciled"),
    "InferencePolicy": ({"appliesTo": {}, "modelPreference": MODELS}, "Compiled", "NoSandboxesReferencing"),
    "KarsMemory": (
        {"sandboxRef": {"name": "none"}, "storeName": "s", "scope": "a"},
        "Compiled",
        "NoSandboxesReferencing",
    ),
    "McpServer": ({"url": "http://tools:9000/mcp"}, "Ready", "Reconciled"),
    "A2AAgent": (
        {"endpointUrl": "http://x", "signingKeys": [{"kid": "k", "alg": "EdDSA", "publicKeyB64u": "A" * 43}]},
        "Ready",
        "Reconciled",
    ),
    "TrustGraph": (
        {"vertices": [{"id": "a", "alg": "EdDSA", "publicKeyB64u": "A" * 43}]},
        "Ready",
        "Reconciled",
    ),
    "KarsEval": (
        {"corpus": {"builtin": "banned-tools"}, "targetSandboxRef": {"name": "none"}, "schedule": "0 3 * * *"},
        "Pending",
        "Scheduled",
    ),
    "KarsPairing": (
        {"tokenHash": "0" * 64, "expiresAt": "2099-01-01T00:00:00Z"},
        "PendingPairing",
        "AwaitingPeer",
    ),
    "EgressApproval": (
        {"sandbox": "none", "hosts": [{"host": "a.example"}], "reason": "r", "ttl": "PT1H"},
        "Pending",
        "BlockedOnSandbox",
    ),
}


@pytest.mark.parametrize("kind", SPECS)
def test_a_resource_of_every_kind_is_reconciled_and_goes_with_the_charts_rights(world, kind):
    spec, phase, reason = SPECS[kind]
    world.create(kind, "plain", spec)
    world.reaches(kind, "plain", phase, reason)
    world.delete(kind, "plain")
    world.wait_gone(kind, "plain")


def test_a_sandbox_and_its_policies_come_into_force_together_and_an_approval_on_top(world):
    world.create("InferencePolicy", "models", {"appliesTo": {}, "modelPreference": MODELS})
    names = {"runtime": {"kind": "OpenClaw", "openclaw": {}}, "sandbox": {}, "inferenceRef": {"name": "models"}}
    world.create("KarsSandbox", "governed", names)
    spec = {"sandbox": "governed", "hosts": [{"host": "a.example"}], "reason": "r", "ttl": "PT1H"}
    world.create("EgressApproval", "download", spec)
    said = world.reaches("InferencePolicy", "models", "Ready", "RouterEnforcing", 45)
    assert said["loadedDigest"] == said["compiledDigest"]
    world.reaches("EgressApproval", "download", "Active", "RouterConfirmed", 30)
    # The chart's default policy governs it; the router of this version does not report its kind, so it is not Ready.
    world.plane.wait(lambda: "governed: its router does not report AgtProfile" in said_of_default(world), 30)
    world.delete("EgressApproval", "download")
    world.wait_gone("EgressApproval", "download", 25)


def said_of_default(world):
    return (world.condition("ToolPolicy", "kars-default") or {}).get("message", "")


def test_an_approved_repair_is_done_with_the_charts_rights(world):
    space = world.plane.make_namespace()
    quotas = f"/api/v1/namespaces/{space}/resourcequotas"
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "tight"},
        "spec": {"hard": {"pods": "1"}},
    }
    world.plane.api.create(quotas, quota)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stuck", "namespace": space},
        "spec": {"containers": [{"name": "c", "image": "i"}], "nodeSelector": {"none": "such"}},
    }
    world.plane.api.create(f"/api/v1/namespaces/{space}/pods", pod)
    for kind, name in (("DeleteResourceQuota", "tight"), ("DeletePod", "stuck")):
        spec = {
            "action": {"type": kind, "params": {"namespace": space, "name": name}},
            "approval": {"state": "Pending"},
        }
        action = f"{kind.lower()}"
        world.create("KarsSREAction", action, spec)
        world.plane.wait(lambda action=action: world.status("KarsSREAction", action).get("phase") == "Proposed")
        world.merge("KarsSREAction", action, {"spec": {"approval": {"state": "Approved"}}})
        try:
            world.plane.wait(lambda action=action: world.status("KarsSREAction", action).get("phase") == "Recovered")
        except AssertionError as error:
            raise AssertionError(f"{error} {world.status('KarsSREAction', action)}") from None
    assert world.plane.api.find(f"{quotas}/tight") is None


def test_an_evaluation_runs_with_the_charts_rights(world):
    spec = {"corpus": {"builtin": "banned-tools"}, "targetSandboxRef": {"name": "none"}}
    world.create("KarsEval", "now", spec, annotations={f"{GROUP}/run-now": "true"})
    # kwok ends the pod well, and has no log of it.
    world.reaches("KarsEval", "now", "Degraded", "RunReportReadFailed", 40)
