"""What the reference's own end-to-end run asks of an installation, on both charts as helm installs them.

The controller has the rights and the variables that the chart gives it; routers are real processes.
"""

import json

import pytest

from tests.cluster.installation import NAMESPACE, Installation
from tests.cluster.plane import ControlPlane

GROUP = "kars.azure.com"
# Sandboxes whose routers are real processes; the pods of all others turn ready by themselves.
ROUTED = ("kars-routed", "kars-rerouted")
POLICIES = """
apiVersion: kars.azure.com/v1alpha1
kind: InferencePolicy
metadata: {name: e2e-inference}
spec:
  appliesTo: {}
  modelPreference: {primary: {provider: azure-openai, deployment: gpt-4.1}}
  tokenBudget: {dailyTokens: 100000, perRequestTokens: 8000}
"""
SANDBOX = """
apiVersion: kars.azure.com/v1alpha1
kind: KarsSandbox
metadata: {name: NAME}
spec:
  runtime: {kind: OpenClaw}
  sandbox: {isolation: standard}
  inferenceRef: {name: e2e-inference}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    plane = ControlPlane(tmp_path_factory.mktemp("acceptance")).start()
    yield plane
    plane.stop()


@pytest.fixture(scope="module")
def kars(cluster):
    installation = Installation(cluster).install()
    cluster.apply(POLICIES, namespace=NAMESPACE)
    controller = installation.start()
    cluster.wait(lambda: controller.get("/readyz"), what="the controller's readiness")
    cluster.node()
    kubelet = cluster.kubelet(*ROUTED)
    yield installation
    cluster.retire(kubelet)
    installation.stop()


class Sandbox:
    """One KarsSandbox, seen as a person sees it."""

    def __init__(self, plane, name):
        self.plane = plane
        self.name = name
        self.space = f"kars-{name}"
        self.path = f"/apis/{GROUP}/v1alpha1/namespaces/{NAMESPACE}/karssandboxes/{name}"

    def read(self):
        return self.plane.api.get(self.path)

    def condition(self, kind):
        found = (self.read().get("status") or {}).get("conditions", ())
        return next((one for one in found if one["type"] == kind), {})

    def merge(self, patch):
        return self.plane.api.merge(self.path, patch)

    def find(self, kind, name, group="v1"):
        base = "/api/v1" if group == "v1" else f"/apis/{group}"
        return self.plane.api.find(f"{base}/namespaces/{self.space}/{kind}/{name}")

    def deployment(self):
        return self.find("deployments", self.name, "apps/v1")

    def wait(self, condition, seconds=20.0, what=""):
        return self.plane.wait(condition, seconds, what=what)


@pytest.fixture
def make(kars):
    made = []

    def one(name, text=SANDBOX):
        kars.plane.apply(text.replace("NAME", name), namespace=NAMESPACE)
        made.append(Sandbox(kars.plane, name))
        return made[-1]

    yield one
    # Nobody waits: the control plane's own namespace controller takes seconds for each.
    for sandbox in made:
        kars.plane.api.delete(sandbox.path)


def test_the_definitions_and_the_admission_policies_are_there(kars):
    listed = kars.plane.kubectl("get", "crd", "-o", "name").stdout
    assert listed.count(f".{GROUP}") == 12
    policies = kars.plane.kubectl("get", "validatingadmissionpolicies", "-o", "name").stdout
    for name in (
        "kars-null-provider-block",
        "kars-no-public-router-exposure",
        "kars-sandbox-exec-ban",
        "kars-dev-only-label-immutable",
        "kars-sandbox-posture-lock",
        "kars-content-safety-floor",
    ):
        assert f"/{name}\n" in policies


def test_the_operators_namespace_denies_by_default(kars):
    assert kars.plane.kubectl("get", "netpol", "kars-system-default-deny", "-n", NAMESPACE).returncode == 0


def test_a_sandbox_has_its_namespace_its_account_its_deployment_and_its_network_policy(make):
    sandbox = make("e2e-objects")
    deployment = sandbox.wait(sandbox.deployment)
    space = sandbox.plane.api.get(f"/api/v1/namespaces/{sandbox.space}")
    assert space["metadata"]["labels"][f"{GROUP}/isolated"] == "strict"
    assert sandbox.find("serviceaccounts", "sandbox")
    policy = sandbox.find("networkpolicies", "sandbox-policy", "networking.k8s.io/v1")
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert deployment["metadata"]["labels"][f"{GROUP}/parent-namespace"] == NAMESPACE
    assert sandbox.read()["metadata"]["finalizers"] == [f"{GROUP}/namespace-cleanup"]


def test_a_sandbox_is_ready_once_its_real_router_enforces_its_policies(make):
    sandbox = make("routed")
    sandbox.wait(lambda: sandbox.condition("Ready").get("status") == "True", 30)
    status = sandbox.read()["status"]
    assert status["phase"] == "Running"
    assert "InferencePolicy" in sandbox.condition("PoliciesEnforced")["message"]
    policy = json.loads(
        sandbox.plane.kubectl("get", "inferencepolicy", "e2e-inference", "-n", NAMESPACE, "-o", "json").stdout
    )
    assert policy["status"]["compiledDigest"].startswith("sha256:")


def test_a_pod_whose_router_nobody_can_ask_is_not_ready(make):
    """Under kwok the pod says that it is ready; no router answers there."""
    sandbox = make("e2e-deaf")
    sandbox.wait(lambda: sandbox.condition("RuntimeReady").get("status") == "True")
    assert sandbox.condition("Ready")["status"] == "False"
    assert sandbox.condition("Ready")["reason"] == "AwaitingRouterEnforcement"
    assert sandbox.read()["status"]["phase"] != "Running"


def test_a_suspended_sandbox_has_no_pods_and_says_so_and_comes_back(make):
    sandbox = make("e2e-asleep")
    sandbox.wait(sandbox.deployment)
    sandbox.merge({"spec": {"suspended": True}})
    sandbox.wait(lambda: sandbox.deployment()["spec"]["replicas"] == 0)
    sandbox.wait(lambda: sandbox.condition("Suspended").get("status") == "True")
    assert sandbox.condition("Suspended")["reason"] == "SuspendedBySpec"
    sandbox.merge({"spec": {"suspended": False}})
    sandbox.wait(lambda: sandbox.deployment()["spec"]["replicas"] == 1)
    sandbox.wait(lambda: sandbox.condition("Suspended").get("status") == "False")
    assert sandbox.condition("Suspended")["reason"] == "Active"


def test_a_deployment_that_somebody_scales_is_put_back(make):
    sandbox = make("e2e-scaled")
    sandbox.wait(sandbox.deployment)
    sandbox.plane.kubectl("scale", "deployment", sandbox.name, "-n", sandbox.space, "--replicas=5")
    sandbox.wait(lambda: sandbox.deployment()["spec"]["replicas"] == 1)


def test_what_somebody_deletes_is_made_again(make):
    sandbox = make("e2e-deleted")
    sandbox.wait(sandbox.deployment)
    before = sandbox.find("networkpolicies", "sandbox-policy", "networking.k8s.io/v1")["metadata"]["uid"]
    sandbox.plane.kubectl("delete", "netpol", "sandbox-policy", "-n", sandbox.space)

    def renewed():
        found = sandbox.find("networkpolicies", "sandbox-policy", "networking.k8s.io/v1")
        return found and found["metadata"]["uid"] != before

    sandbox.wait(renewed)


def test_a_deleted_sandbox_leaves_nothing(kars):
    sandbox = Sandbox(kars.plane, "e2e-gone")
    kars.plane.apply(SANDBOX.replace("NAME", "e2e-gone"), namespace=NAMESPACE)
    sandbox.wait(sandbox.deployment)
    kars.plane.api.delete(sandbox.path)
    sandbox.wait(lambda: kars.plane.api.find(sandbox.path) is None, 30)
    assert kars.plane.api.find(f"/api/v1/namespaces/{sandbox.space}") is None
    left = kars.plane.kubectl("get", "role,rolebinding", "-n", NAMESPACE, "-o", "name").stdout
    assert "e2e-gone" not in left


def test_two_sandboxes_have_namespaces_and_tokens_of_their_own(make):
    one, other = make("e2e-one"), make("e2e-other")
    one.wait(one.deployment)
    other.wait(other.deployment)
    tokens = {box.find("secrets", "router-admin-token")["data"]["token"] for box in (one, other)}
    assert len(tokens) == 2


def test_a_policy_that_changes_reaches_a_running_router(make):
    sandbox = make("rerouted")
    sandbox.wait(lambda: sandbox.condition("Ready").get("status") == "True", 30)
    path = f"/apis/{GROUP}/v1alpha1/namespaces/{NAMESPACE}/inferencepolicies/e2e-inference"
    before = sandbox.plane.api.get(path)["status"]["compiledDigest"]
    sandbox.plane.api.merge(path, {"spec": {"tokenBudget": {"dailyTokens": 200000}}})

    def copied():
        data = sandbox.find("configmaps", "inferencepolicy-e2e-inference-profile")["data"]
        return "200000" in data["inference-policy.json"]

    sandbox.wait(copied, what="the copy in the sandbox's namespace")
    sandbox.wait(lambda: sandbox.condition("PoliciesEnforced").get("status") == "True", 30)
    assert sandbox.plane.api.get(path)["status"]["compiledDigest"] != before
