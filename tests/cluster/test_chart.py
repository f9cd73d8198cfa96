"""The chart on a real API server: installed, upgraded to nothing new, its rights, uninstalled."""

import json

import pytest
import yaml

from tests.chart.rendered import CHART, ROOT, one, render
from tests.cluster.plane import ControlPlane

DEFINITIONS = ROOT / "charts" / "kars-crds"
NAMESPACE = "kars-system"
EVERYTHING = (
    "--set",
    "sre.enabled=true,entraSidecar.enabled=true,imageSignatures.enabled=true,namespace.manage=true",
    "--set",
    "signerPolicy.sanPatterns[0]=https://example.com/*",
)
POLICIES = {
    "kars-null-provider-block",
    "kars-no-public-router-exposure",
    "kars-sandbox-exec-ban",
    "kars-dev-only-label-immutable",
    "kars-sandbox-posture-lock",
    "kars-content-safety-floor",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A control plane of its own with everything that the chart has, as docs/install.md installs it."""
    plane = ControlPlane(tmp_path_factory.mktemp("chart")).start()
    try:
        plane.helm("install", "kars-crds", str(DEFINITIONS), "-n", NAMESPACE, "--create-namespace")
        plane.helm("install", "kars", str(CHART), "-n", NAMESPACE, "--take-ownership", *EVERYTHING)
        plane.wait(lambda: all(checked(each) for each in policies(plane)), what="the policies' type check")
        yield plane
    finally:
        plane.stop()


def policies(plane):
    said = plane.kubectl("get", "validatingadmissionpolicies", "-o", "json").stdout
    return json.loads(said)["items"]


def checked(policy):
    """Whether the controller manager has looked at a policy's expressions."""
    return policy.get("status", {}).get("observedGeneration") == policy["metadata"]["generation"]


def manifest(plane):
    """The release's objects as they stand."""
    text = plane.helm("get", "manifest", "kars", "-n", NAMESPACE).stdout
    found = {}
    for each in yaml.safe_load_all(text):
        if each:
            where = ["-n", each["metadata"]["namespace"]] if "namespace" in each["metadata"] else []
            kind = f"{each['kind']}.{each['apiVersion'].rpartition('/')[0]}".rstrip(".")
            said = plane.kubectl("get", kind, each["metadata"]["name"], *where, "-o", "json").stdout
            found[each["kind"], each["metadata"]["name"], each["metadata"].get("namespace", "")] = json.loads(said)
    return found


def may(plane, account, verb, what, namespace=""):
    """Whether an account may do something; `what` is group, resource/subresource and name, each but the second if any."""
    group, _, rest = what.rpartition(":")
    resource, _, name = rest.partition("=")
    resource, _, subresource = resource.partition("/")
    return allowed(plane, f"system:serviceaccount:{account}", verb, group, resource, subresource, name, namespace)


def allowed(plane, user, verb, group, resource, subresource="", name="", namespace=""):
    """What the API server says of a request before it is made."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "groups": ["system:authenticated", *(["system:serviceaccounts"] if ":" in user else [])],
            "resourceAttributes": {
                "verb": verb,
                "group": group,
                "resource": resource,
                "subresource": subresource,
                "name": name,
                "namespace": namespace,
            },
        },
    }
    answer = plane.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return answer["status"]["allowed"]


def test_the_six_policies_and_ours_are_bound_and_their_expressions_are_sound(installed):
    bound = {
        each["spec"]["policyName"]
        for each in json.loads(installed.kubectl("get", "validatingadmissionpolicybindings", "-o", "json").stdout)[
            "items"
        ]
    }
    names = {each["metadata"]["name"] for each in policies(installed)}
    assert names >= POLICIES and bound == names
    for each in policies(installed):
        assert each["spec"]["failurePolicy"] == "Fail"
        assert not each["status"]["typeChecking"].get("expressionWarnings"), each


def test_the_default_deny_and_the_namespaces_labels_are_there(installed):
    installed.kubectl("get", "networkpolicy", "kars-system-default-deny", "-n", NAMESPACE)
    labels = installed.api.get(f"/api/v1/namespaces/{NAMESPACE}")["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "system"
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_releases_own_pods_meet_the_restricted_standard(installed):
    deployments = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
    for name in ("kars-controller", "entra-auth-sidecar"):
        template = installed.api.get(f"{deployments}/{name}")["spec"]["template"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": template["spec"],
        }
        said = installed.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
        assert "Warning" not in said.stderr
    test = next(
        each
        for each in yaml.safe_load_all(installed.helm("get", "hooks", "kars", "-n", NAMESPACE).stdout)
        if each and each["kind"] == "Pod"
    )
    installed.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(test))


def test_the_api_server_takes_the_auth_sidecars_autoscaler(installed):
    objects = render({"entraSidecar.enabled": True, "entraSidecar.autoscaling.maxReplicas": 4})
    scaler = one(objects, "HorizontalPodAutoscaler", "entra-auth-sidecar")
    installed.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(scaler))


def test_a_second_upgrade_writes_nothing(installed):
    upgrade = ("upgrade", "kars", str(CHART), "-n", NAMESPACE, *EVERYTHING)
    # The first may put who owns which field in another order, where somebody wrote a status in the very second of the
    # installation.
    installed.helm(*upgrade)
    before = manifest(installed)
    installed.helm(*upgrade)
    assert manifest(installed) == before


# Rights

CONTROLLER = f"{NAMESPACE}:kars-controller"
RBAC = "rbac.authorization.k8s.io"


@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("watch", "kars.azure.com:karssandboxes"),
        ("patch", "kars.azure.com:karssandboxes/status"),
        ("update", "kars.azure.com:karsevals/finalizers"),
        ("create", "namespaces"),
        ("delete", "namespaces"),
        ("patch", "secrets"),
        ("create", "serviceaccounts"),
        ("create", "apps:deployments"),
        ("create", "networking.k8s.io:networkpolicies"),
        ("create", f"{RBAC}:roles"),
        ("create", "batch:cronjobs"),
        ("create", "policy:poddisruptionbudgets"),
        ("create", "persistentvolumeclaims"),
        ("patch", "persistentvolumes"),
        ("create", "serviceaccounts/token=sre-writer"),
        ("bind", f"{RBAC}:clusterroles=kars-sre-writer-quotas"),
        ("get", "pods/log"),
        ("create", "events.k8s.io:events"),
    ],
)
def test_the_controller_may_everywhere(installed, verb, what):
    assert may(installed, CONTROLLER, verb, what)


def test_the_controller_may_lead(installed):
    lease = "coordination.k8s.io:leases=kars-controller-leader"
    assert may(installed, CONTROLLER, "update", lease, NAMESPACE)
    assert not may(installed, CONTROLLER, "update", "coordination.k8s.io:leases=other", NAMESPACE)
    assert not may(installed, CONTROLLER, "update", lease, "kube-system")


@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("create", "pods"),
        ("create", "pods/exec"),
        ("delete", "pods"),
        ("get", "nodes"),
        ("escalate", f"{RBAC}:roles"),
        ("bind", f"{RBAC}:clusterroles=cluster-admin"),
        ("create", f"{RBAC}:clusterroles"),
        ("impersonate", "users"),
        ("impersonate", "serviceaccounts=default"),
        ("create", "serviceaccounts/token"),
        ("update", "admissionregistration.k8s.io:validatingadmissionpolicies"),
        ("patch", "apiextensions.k8s.io:customresourcedefinitions"),
        ("assign-sre", "kars.azure.com:karssandboxes=sre"),
        ("relabel", "kars.azure.com:sandboxnamespaces"),
        ("update", "secrets"),
    ],
)
def test_the_controller_may_not(installed, verb, what):
    assert not may(installed, CONTROLLER, verb, what, NAMESPACE)


def test_the_controller_gives_a_sandbox_what_it_has_and_no_more(installed):
    config = installed.service_account_kubeconfig(NAMESPACE, "kars-controller")
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "kars-spawner-demo", "namespace": NAMESPACE},
        "rules": [
            {
                "apiGroups": ["kars.azure.com"],
                "resources": ["karssandboxes"],
                "verbs": ["get", "list", "create", "delete"],
            }
        ],
    }
    apply = ("apply", "--server-side", "-f", "-")
    installed.kubectl(*apply, stdin=json.dumps(role), config=config)
    role["rules"].append({"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]})
    said = installed.kubectl(*apply, stdin=json.dumps(role), config=config, check=False)
    assert "attempting to grant RBAC permissions not currently held" in said.stderr
    installed.kubectl("delete", "role", "kars-spawner-demo", "-n", NAMESPACE)


def test_editors_of_a_namespace_cannot_widen_egress_and_approvers_cannot_change_sandboxes(installed):
    namespace = installed.make_namespace()
    for name, role in (("eve", "edit"), ("ann", "kars:egress-approver"), ("sam", "kars:sre-approver")):
        installed.kubectl("create", "rolebinding", name, f"--clusterrole={role}", f"--user={name}", "-n", namespace)

    def can(user, verb, resource):
        return allowed(installed, user, verb, "kars.azure.com", resource, namespace=namespace)

    assert not can("eve", "create", "egressapprovals")
    assert can("ann", "create", "egressapprovals") and can("ann", "list", "karssandboxes")
    assert not can("ann", "patch", "egressapprovals") and not can("ann", "patch", "karssandboxes")
    assert can("sam", "patch", "karssreactions") and not can("sam", "create", "karssreactions")


def test_the_sre_agent_looks_and_proposes(installed):
    agent = "kars-sre:sandbox"
    assert may(installed, agent, "list", "pods") and may(installed, agent, "list", "kars.azure.com:karssandboxes")
    assert may(installed, agent, "create", "kars.azure.com:karssreactions", "kars-sre")
    for verb, what in (
        ("patch", "apps:deployments"),
        ("delete", "pods"),
        ("get", "secrets"),
        ("patch", "kars.azure.com:karssreactions"),
    ):
        assert not may(installed, agent, verb, what), what


# The end


def test_uninstalling_leaves_what_is_kept_and_nothing_else(make_plane):
    plane = make_plane()
    plane.helm("install", "kars-crds", str(DEFINITIONS), "-n", NAMESPACE, "--create-namespace")
    kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
    spaced = "configmaps,deployments,daemonsets,services,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets,secrets"

    def everything():
        whole = plane.kubectl("get", kinds, "-o", "name").stdout.split()
        parts = json.loads(plane.kubectl("get", spaced, "-A", "-o", "json").stdout)["items"]
        return set(whole) | {
            f"{each['kind']}/{each['metadata']['namespace']}/{each['metadata']['name']}"
            for each in parts
            if each["metadata"]["name"] != "kube-root-ca.crt" and not each["metadata"]["name"].startswith("sh.helm")
        }

    before = everything()
    plane.helm("install", "kars", str(CHART), "-n", NAMESPACE, "--take-ownership", "--set", "namespace.manage=true")
    assert everything() > before
    plane.helm("uninstall", "kars", "-n", NAMESPACE, "--wait")
    assert everything() == before
    kept = plane.kubectl("get", "toolpolicies", "-A", "-o", "name").stdout.split()
    assert kept == ["toolpolicy.kars.azure.com/kars-default"]
    plane.api.get(f"/api/v1/namespaces/{NAMESPACE}")
    # And it comes back to what was kept.
    plane.helm("install", "kars", str(CHART), "-n", NAMESPACE, "--set", "namespace.manage=true")


def test_without_the_definitions_helm_says_that_they_come_first(make_plane):
    plane = make_plane()
    said = plane.helm("install", "kars", str(CHART), "-n", NAMESPACE, "--create-namespace", check=False)
    assert "ensure CRDs are installed first" in said.stderr
