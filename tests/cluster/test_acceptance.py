"""What the reference's own end-to-end run asks of an installation, on both charts as helm installs them.

The controller has the rights and the variables that the chart gives it; routers are real processes.
"""

import json
import shlex

import pytest

from tests.cluster.installation import NAMESPACE, ROOT, Installation
from tests.cluster.plane import ControlPlane

GROUP = "kars.azure.com"
# Sandboxes whose routers are real processes; the pods of all others turn ready by themselves.
ROUTED = ("kars-routed", "kars-rerouted", "kars-waited")
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
        if kars.plane.api.find(sandbox.path) is not None:
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


def test_a_policy_that_changes_reaches_a_running_router_without_a_new_pod(make):
    sandbox = make("rerouted")
    sandbox.wait(lambda: sandbox.condition("Ready").get("status") == "True", 30)
    path = f"/apis/{GROUP}/v1alpha1/namespaces/{NAMESPACE}/inferencepolicies/e2e-inference"
    before = sandbox.plane.api.get(path)["status"]["compiledDigest"]
    deployment = sandbox.deployment()["metadata"]["generation"]
    changed = {
        "tokenBudget": {"dailyTokens": 200000, "perRequestTokens": 1000},
        "contentSafety": {"requirePromptShields": False},
    }
    sandbox.plane.api.merge(path, {"spec": changed})

    def enforced():
        status = sandbox.plane.api.get(path)["status"]
        digests = {status["compiledDigest"], status.get("loadedDigest")}
        return len(digests) == 1 and before not in digests

    sandbox.wait(enforced, 30, "the echo of the new digest")
    data = sandbox.find("configmaps", "inferencepolicy-e2e-inference-profile")["data"]
    assert "200000" in data["inference-policy.json"]
    sandbox.wait(lambda: sandbox.condition("PoliciesEnforced").get("status") == "True", 30)
    assert sandbox.deployment()["metadata"]["generation"] == deployment


MEMORY = """
apiVersion: kars.azure.com/v1alpha1
kind: KarsMemory
metadata: {name: e2e-memory}
spec: {storeName: notes, scope: agent, sandboxRef: {name: NAME}}
"""


def test_a_copy_goes_with_its_reference(make):
    sandbox = make("e2e-memory", SANDBOX + "  memoryRef: {name: e2e-memory}\n---" + MEMORY)
    copy = "karsmemory-e2e-memory-binding"
    sandbox.wait(lambda: sandbox.find("configmaps", copy))
    sandbox.merge({"spec": {"memoryRef": None}})
    sandbox.wait(lambda: sandbox.find("configmaps", copy) is None)
    assert sandbox.find("configmaps", "inferencepolicy-e2e-inference-profile")


def test_a_memory_of_another_sandbox_is_not_given(make):
    sandbox = make("e2e-forgetful", SANDBOX + "  memoryRef: {name: e2e-memory-other}\n")
    sandbox.plane.apply(
        MEMORY.replace("e2e-memory", "e2e-memory-other").replace("NAME", "somebody"), namespace=NAMESPACE
    )
    sandbox.wait(lambda: sandbox.condition("Ready").get("reason") == "MemoryNotAllowed")
    assert sandbox.deployment() is None
    assert sandbox.condition("Degraded")["status"] == "True"


def test_children_go_with_their_parent(make):
    parent = make("e2e-parent")
    text = SANDBOX.replace("{name: NAME}", "{name: NAME, labels: {kars.azure.com/parent: e2e-parent}}")
    child = make("e2e-child", text)
    parent.wait(parent.deployment)
    child.wait(child.deployment)
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/kars-spawner-e2e-parent"

    def may_touch():
        return any(child.name in rule.get("resourceNames", ()) for rule in parent.plane.api.get(role)["rules"])

    parent.wait(may_touch, what="the parent's right to touch its child")
    parent.plane.api.delete(parent.path)
    parent.wait(lambda: parent.plane.api.find(child.path) is None, 40)


def test_a_missing_policy_is_named_and_its_coming_is_noticed(make):
    text = SANDBOX.replace("e2e-inference", "e2e-later")
    sandbox = make("e2e-early", text)
    sandbox.wait(lambda: sandbox.condition("Ready").get("reason") == "InferencePolicyNotFound")
    assert sandbox.read()["status"]["phase"] == "Degraded"
    sandbox.plane.apply(POLICIES.replace("e2e-inference", "e2e-later"), namespace=NAMESPACE)
    sandbox.wait(sandbox.deployment)


def test_a_sandbox_may_keep_its_files_and_its_volume(make):
    text = SANDBOX.replace("{isolation: standard}", "{isolation: standard, persistence: {size: 1Gi, reclaim: Retain}}")
    sandbox = make("e2e-keeper", text)
    deployment = sandbox.wait(sandbox.deployment)
    claim = sandbox.find("persistentvolumeclaims", "e2e-keeper-data")
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    assert deployment["spec"]["strategy"]["type"] == "Recreate"
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "e2e-kept"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Delete",
            "hostPath": {"path": "/nowhere"},
        },
    }
    sandbox.plane.api.create("/api/v1/persistentvolumes", volume)
    path = f"/api/v1/namespaces/{sandbox.space}/persistentvolumeclaims/e2e-keeper-data"
    sandbox.plane.api.merge(path, {"spec": {"volumeName": "e2e-kept"}})
    sandbox.plane.api.delete(sandbox.path)
    sandbox.wait(lambda: sandbox.plane.api.find(sandbox.path) is None, 40)
    kept = sandbox.plane.api.get("/api/v1/persistentvolumes/e2e-kept")
    assert kept["spec"]["persistentVolumeReclaimPolicy"] == "Retain"


def test_what_happens_is_told_as_events(make):
    sandbox = make("e2e-told")
    sandbox.wait(sandbox.deployment)

    def told():
        listed = sandbox.plane.kubectl("get", "events.events.k8s.io", "-n", NAMESPACE, "-o", "json").stdout
        return [
            one
            for one in json.loads(listed)["items"]
            if one["regarding"].get("name") == sandbox.name
            and one["reportingController"] == "kars-controller/KarsSandbox"
        ]

    assert {one["action"] for one in sandbox.wait(told)} == {"Reconcile"}


def test_the_commands_of_the_page_on_statuses_work(make):
    sandbox = make("waited")
    text = (ROOT / "docs" / "conditions.md").read_text()
    block = text.split("```\n")[1]
    lines = block.replace("\\n", "@n").splitlines()
    assert len(lines) == 3
    for line in reversed(lines):
        words = shlex.split(line.replace("first", sandbox.name).replace("@n", "\\n"))
        said = sandbox.plane.kubectl(*words[1:]).stdout
        assert said
