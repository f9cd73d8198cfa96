"""The chart's admission policies on a real API server: what they refuse, and what they let pass.

One line of a table is one request and what is said of it. Pods are tried on their way in only: nothing runs them.
"""

import copy
import json
import re

import pytest

from tests.chart.rendered import CHART, ROOT
from tests.cluster.plane import ControlPlane

NAMESPACE = "kars-system"
STRICT = {"kars.azure.com/isolated": "strict", "kars.azure.com/role": "sandbox", "kars.azure.com/sandbox": "demo"}
CONTROLLER = f"system:serviceaccount:{NAMESPACE}:kars-controller"
DEV_ONLY = {"kars.azure.com/dev-only": "true"}
DIGEST = "1" * 64
OTHER = "2" * 64


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    """A control plane of its own with the chart and a sandbox's namespace, `kars-demo`."""
    running = ControlPlane(tmp_path_factory.mktemp("admission")).start()
    try:
        install(running)
        yield running
    finally:
        running.stop()


def install(plane):
    plane.helm("install", "kars-crds", str(ROOT / "charts" / "kars-crds"), "-n", NAMESPACE, "--create-namespace")
    for document in older():
        plane.wait(lambda document=document: not refusal(plane, document), what="the definitions")
        ask(plane, document, save=True)
    plane.helm("install", "kars", str(CHART), "-n", NAMESPACE, "--set", "imageSignatures.enabled=true")
    plane.make_namespace("kars-demo", STRICT)
    plane.make_namespace("elsewhere")
    # A policy is in force some moments after it is there.
    plane.wait(lambda: "exec-ban" in get_into(plane, "exec", "command=id"), what="the policies")
    # The controller only patches; `replace` says here what a patch would come to.
    for resource in ("apps:deployments", "configmaps", "namespaces"):
        grant(plane, CONTROLLER, ["update"], resource)
    ask(plane, verified(DIGEST), user=CONTROLLER, save=True)
    plane.wait(lambda: not refusal(plane, pod()), what="the verified images")


def verified(*digests, name="kars-verified-images", namespace=NAMESPACE):
    """The list of images whose signatures hold."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {f"sha256-{digest}": "https://example.com/release" for digest in digests},
    }


def ask(plane, document, *, user="", verb="create", save=False):
    """Make a request, for real or on trial; what kubectl says."""
    who = ["--as", user] if user else []
    trial = [] if save else ["--dry-run=server"]
    return plane.kubectl(verb, *trial, *who, "-f", "-", stdin=json.dumps(document), check=save)


def refusal(plane, document, **more):
    """Why a request is refused; empty when it is not."""
    done = ask(plane, document, **more)
    return "" if done.returncode == 0 else done.stderr


def get_into(plane, how, query, namespace="kars-demo"):
    """What is said of exec or attach into a pod."""
    path = f"/api/v1/namespaces/{namespace}/pods/gone/{how}?{query}&stdout=true"
    return plane.kubectl("create", "--raw", path, "-f", "/dev/null", check=False).stderr


def grant(plane, user, verbs, resources):
    """Let a user do something (everywhere), as an installation's own roles would."""
    group, _, resource = resources.rpartition(":")
    role = f"{user}-{verbs[0]}-{resource}".replace(":", "-")
    rule = {"apiGroups": [group], "resources": [resource], "verbs": verbs}
    api = "rbac.authorization.k8s.io/v1"
    plane.apply(
        [
            {"apiVersion": api, "kind": "ClusterRole", "metadata": {"name": role}, "rules": [rule]},
            {
                "apiVersion": api,
                "kind": "ClusterRoleBinding",
                "metadata": {"name": role},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
            },
        ]
    )


def kars(kind, name, spec, *, namespace=NAMESPACE, labels=None, annotations=None):
    meta = {"name": name, "namespace": namespace, "labels": labels or {}, "annotations": annotations or {}}
    return {"apiVersion": "kars.azure.com/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}


def sandbox(name="demo", *, labels=None, namespace=NAMESPACE, annotations=None, **spec):
    whole = {"runtime": {"kind": "Hermes"}, "sandbox": {}, "inferenceRef": {"name": "demo-inference"}, **spec}
    return kars("KarsSandbox", name, whole, labels=labels, namespace=namespace, annotations=annotations)


def inference(labels=None, provider="azure-openai", fallback=(), **safety):
    models = {
        "primary": {"provider": provider, "deployment": "m"},
        "fallback": [{"provider": each, "deployment": "m"} for each in fallback],
    }
    return kars(
        "InferencePolicy", "p", {"appliesTo": {}, "modelPreference": models, "contentSafety": safety}, labels=labels
    )


def older():
    """Resources that break a policy which came after them, and that a finalizer holds."""
    lax = inference(violence="High")
    lax["metadata"]["name"] = "lax"
    bare = sandbox("bare", agt={"providers": {"audit": "null"}})
    misnamed = sandbox("misnamed", labels={"kars.azure.com/role": "sre"})
    for document in (lax, bare, misnamed):
        document["metadata"] |= {"finalizers": ["example.com/held"]}
        yield document


# What was there before its policy


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        ("inferencepolicy/lax", "Medium at most"),
        ("karssandbox/bare", "switches a safeguard off"),
        ("karssandbox/misnamed", "only for the KarsSandbox sre"),
    ],
)
def test_what_is_older_than_a_policy_that_it_breaks_is_not_changed_and_may_go(plane, resource, words):
    said = plane.kubectl("label", "-n", NAMESPACE, resource, "example.com/mood=new", check=False)
    assert words in said.stderr
    plane.kubectl("delete", "-n", NAMESPACE, resource, "--wait=false")
    plane.kubectl("patch", "-n", NAMESPACE, resource, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert "NotFound" in plane.kubectl("get", "-n", NAMESPACE, resource, check=False).stderr


# null-provider-block


@pytest.mark.parametrize("seam", ["mesh", "policy", "audit", "signing"])
@pytest.mark.parametrize("provider", ["null", "noop", "disabled", "none"])
def test_a_sandbox_without_a_safeguard_is_for_development_only(plane, seam, provider):
    spec = {"agt": {"providers": {seam: provider}}}
    assert "switches a safeguard off" in refusal(plane, sandbox(**spec))
    assert not refusal(plane, sandbox(labels=DEV_ONLY, **spec))
    assert not refusal(plane, sandbox(agt={"providers": {seam: "agt"}}))


def test_a_model_without_a_provider_is_for_development_only(plane):
    assert "switches a safeguard off" in refusal(plane, inference(provider="noop"))
    assert "switches a safeguard off" in refusal(plane, inference(fallback=["anthropic", "None"]))
    assert not refusal(plane, inference(labels=DEV_ONLY, provider="noop"))
    assert not refusal(plane, inference(fallback=["anthropic"]))


def test_resources_without_any_provider_pass(plane):
    assert not refusal(plane, kars("McpServer", "m", {"url": "https://mcp.example.com"}))
    assert not refusal(plane, kars("ToolPolicy", "t", {"appliesTo": {"sandboxMatchLabels": {"a": "b"}}}))
    assert not refusal(plane, sandbox())


# content-safety-floor


@pytest.mark.parametrize("category", ["hate", "selfHarm", "sexual", "violence"])
def test_content_more_severe_than_the_floor_does_not_pass(plane, category):
    assert f"contentSafety.{category} may be Medium at most" in refusal(plane, inference(**{category: "High"}))
    assert not refusal(plane, inference(labels=DEV_ONLY, **{category: "High"}))
    for level in ("Safe", "Low", "Medium"):
        assert not refusal(plane, inference(**{category: level}))


# dev-only-label-immutable


def test_a_dev_only_label_stays_unless_a_reason_is_given(plane):
    ask(plane, sandbox("dev", labels=DEV_ONLY), save=True)
    for labels in ({}, {"kars.azure.com/dev-only": "false"}):
        for reason in ("", "  "):
            bare = sandbox("dev", labels=labels, annotations={"kars.azure.com/dev-only-removal-reason": reason})
            said = refusal(plane, bare, verb="replace")
            assert "immutable" in said and "removal-reason" in said
        given = sandbox("dev", labels=labels, annotations={"kars.azure.com/dev-only-removal-reason": "goes live"})
        assert not refusal(plane, given, verb="replace")
    assert not refusal(plane, sandbox("dev", labels=DEV_ONLY | {"a": "b"}), verb="replace")


# no-public-router-exposure


def service(namespace="kars-demo", **spec):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": namespace},
        "spec": {"ports": [{"port": 8443}], "selector": {"a": "b"}, **spec},
    }


def network(*rules, namespace="kars-demo"):
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "n", "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": list(rules)},
    }


def peers(*ranges):
    return {"from": [{"ipBlock": {"cidr": each}} for each in ranges]}


def test_a_sandbox_is_not_exposed_by_a_service_or_an_ingress(plane):
    for each in (
        service(type="LoadBalancer"),
        service(type="NodePort"),
        service(externalIPs=["203.0.113.1"]),
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "i", "namespace": "kars-demo"},
            "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 1}}}},
        },
    ):
        said = refusal(plane, each)
        assert "kars-no-public-router-exposure" in said and "forbid" in said
    assert not refusal(plane, service())
    assert not refusal(plane, service("elsewhere", type="LoadBalancer"))


@pytest.mark.parametrize(
    "rule",
    [
        peers("0.0.0.0/0"),
        peers("::/0"),
        peers("0.0.0.0/1", "128.0.0.0/1"),
        peers("8000::/1"),
        peers("64.0.0.0/2"),
        peers("203.0.113.7/32"),
        peers("10.0.0.0/8", "10.0.0.0/7"),
        {"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]},
        {},
        {"ports": [{"port": 8443}]},
        {"from": []},
    ],
)
def test_a_network_policy_does_not_let_the_internet_in_at_once_or_by_halves(plane, rule):
    assert "kars-no-public-router-exposure" in refusal(plane, network({"from": [{"podSelector": {}}]}, rule))


@pytest.mark.parametrize(
    "rule",
    [
        peers("10.0.0.0/8"),
        peers("192.168.7.0/24", "fd00::/8", "100.64.0.0/10"),
        {"from": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}], "ports": [{"port": 8443}]},
    ],
)
def test_a_network_policy_may_let_neighbours_in(plane, rule):
    assert not refusal(plane, network(rule))


def test_a_network_policy_without_ingress_or_elsewhere_passes(plane):
    assert not refusal(plane, network())
    assert not refusal(plane, network(peers("0.0.0.0/0"), namespace="elsewhere"))


# exec-ban


@pytest.mark.parametrize("container", ["", "openclaw", "agent", "inference-router", "egress-guard", "debugger-x1"])
@pytest.mark.parametrize("how", ["exec", "attach"])
def test_nobody_gets_into_a_sandboxes_pod(plane, how, container):
    said = get_into(plane, how, f"container={container}&command=sh")
    assert "kars-sandbox-exec-ban" in said and "denied" in said, said


@pytest.mark.parametrize(
    ("query", "passes"),
    [
        ("container=inference-router&command=kars-inference-router&command=probe&command=/healthz", True),
        ("container=inference-router&command=/usr/local/bin/kars-inference-router&command=probe", True),
        ("container=inference-router&command=kars&command=probe&command=/readyz", True),
        ("container=inference-router&command=kars&command=router", False),
        ("container=inference-router&command=kars", False),
        ("container=inference-router&command=sh&command=probe", False),
        ("container=agent&command=kars&command=probe&command=/healthz", False),
        ("command=kars&command=probe&command=/healthz", False),
    ],
)
def test_the_router_may_be_asked_by_its_own_command(plane, query, passes):
    said = get_into(plane, "exec", query)
    # What passes finds no pod.
    assert ("not found" in said) is passes, said
    assert ("kars-sandbox-exec-ban" in said) is not passes, said


def test_kubectl_exec_says_who_denied_it(plane):
    ask(plane, pod("entered"), save=True)
    said = plane.kubectl("exec", "-n", "kars-demo", "entered", "-c", "agent", "--", "sh", check=False).stderr
    assert "kars-sandbox-exec-ban" in said and "forbidden" in said


def test_the_glass_can_be_broken_and_other_namespaces_are_let_alone(plane):
    plane.make_namespace("kars-glass", STRICT | {"kars.azure.com/break-glass": "true"})
    for namespace in ("kars-glass", "elsewhere"):
        assert "not found" in get_into(plane, "exec", "container=agent&command=sh", namespace)


# posture-lock and signed images


def pod(name="demo", *, image=f"r.example.com/agent@sha256:{DIGEST}", namespace="kars-demo", **spec):
    """A sandbox's pod, as the controller makes it."""
    confined = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    guard = {
        "runAsUser": 0,
        "runAsNonRoot": False,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
        "seccompProfile": {"type": "Unconfined"},
    }
    whole = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/kars-strict.json"},
        },
        "initContainers": [
            {"name": "egress-guard", "image": image, "securityContext": guard},
            {
                "name": "inference-router",
                "image": image,
                "restartPolicy": "Always",
                "securityContext": confined | {"runAsUser": 1001},
            },
        ],
        "containers": [{"name": "agent", "image": image, "securityContext": confined}],
        **spec,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": whole}


def changed(document, path, value):
    """A copy with one member set; a number in the path is a place in a list."""
    made = copy.deepcopy(document)
    *parents, last = path
    part = made
    for each in parents:
        part = part[each] if isinstance(each, int) else part.setdefault(each, {})
    if value is None:
        part.pop(last, None)
    else:
        part[last] = value
    return made


AGENT = ("spec", "containers", 0, "securityContext")
ROUTER = ("spec", "initContainers", 1, "securityContext")
GUARD = ("spec", "initContainers", 0)


def test_the_pods_that_the_controller_makes_pass(plane):
    assert not refusal(plane, pod())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "hostNetwork"), True),
        (("spec", "hostPID"), True),
        (("spec", "hostIPC"), True),
        (("spec", "volumes"), [{"name": "h", "hostPath": {"path": "/"}}]),
        ((*AGENT, "privileged"), True),
        ((*ROUTER, "privileged"), True),
        ((*AGENT, "capabilities", "add"), ["NET_ADMIN"]),
        ((*AGENT, "capabilities", "add"), ["SYS_ADMIN"]),
        ((*ROUTER, "capabilities", "add"), ["NET_RAW"]),
        ((*GUARD, "securityContext", "capabilities", "add"), ["NET_ADMIN", "SYS_ADMIN"]),
        ((*GUARD, "name"), "other-guard"),
        ((*AGENT, "runAsUser"), 0),
        ((*ROUTER, "runAsUser"), 0),
        ((*AGENT, "seccompProfile"), {"type": "Unconfined"}),
        ((*AGENT, "procMount"), "Unmasked"),
        (("spec", "securityContext", "seccompProfile"), {"type": "Unconfined"}),
        (("spec", "securityContext", "runAsUser"), 0),
    ],
)
def test_a_pod_that_is_less_confined_is_refused(plane, path, value):
    worse = changed(pod(), path, value)
    if path[-1] == "privileged":
        worse = changed(worse, (*path[:-1], "allowPrivilegeEscalation"), True)
    if path[-1] == "procMount":
        worse = changed(worse, ("spec", "hostUsers"), False)
    said = refusal(plane, worse)
    assert "kars-sandbox-posture-lock" in said, said
    elsewhere = changed(worse, ("metadata", "namespace"), "elsewhere")
    assert not refusal(plane, elsewhere)


def test_a_container_that_only_calls_itself_the_guard_is_no_guard(plane):
    fake = changed(pod(), ("spec", "initContainers"), [])
    fake = changed(fake, ("spec", "containers", 0), dict(pod()["spec"]["initContainers"][0]))
    assert "only egress-guard" in refusal(plane, fake)


@pytest.fixture(scope="module")
def running(plane):
    """A pod and a Deployment of a sandbox that are there."""
    ask(plane, pod("standing"), save=True)
    spec = pod()["spec"]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "demo", "namespace": "kars-demo"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec},
        },
    }
    ask(plane, deployment, save=True)
    return deployment


def test_no_ephemeral_container_joins_a_sandboxes_pod(plane, running):
    path = "/api/v1/namespaces/kars-demo/pods/standing/ephemeralcontainers"
    added = {"spec": {"ephemeralContainers": [{"name": "debugger", "image": f"a@sha256:{DIGEST}"}]}}
    said = plane.kubectl(
        "patch",
        "pod",
        "standing",
        "-n",
        "kars-demo",
        "--subresource=ephemeralcontainers",
        "--type=strategic",
        "-p",
        json.dumps(added),
        check=False,
    ).stderr
    assert "ephemeral containers are denied" in said, path


def test_the_image_of_a_running_pod_does_not_change(plane, running):
    said = plane.kubectl(
        "set", "image", "pod/standing", f"inference-router=evil@sha256:{DIGEST}", "-n", "kars-demo", check=False
    ).stderr
    assert "does not change in a running pod" in said
    plane.kubectl("label", "pod", "standing", "a=b", "-n", "kars-demo")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True),
        (("containers", 0, "securityContext", "readOnlyRootFilesystem"), False),
        (("containers", 0, "securityContext", "runAsNonRoot"), None),
        (("containers", 0, "securityContext"), None),
        (("initContainers", 1, "securityContext", "readOnlyRootFilesystem"), None),
        (("containers", 0, "image"), f"evil@sha256:{DIGEST}"),
        (("containers", 0, "name"), "other"),
        (("securityContext", "runAsNonRoot"), False),
        (("securityContext", "seccompProfile"), None),
        (("securityContext", "seccompProfile"), {"type": "RuntimeDefault"}),
        (("securityContext",), None),
    ],
)
def test_a_sandboxes_deployment_becomes_less_confined_by_the_controller_only(plane, running, path, value):
    worse = changed(running, ("spec", "template", "spec", *path), value)
    assert "kars-sandbox-posture-lock" in refusal(plane, worse, verb="replace")
    assert not refusal(plane, worse, verb="replace", user=CONTROLLER)


def test_a_sandboxes_deployment_may_be_scaled_and_become_more_confined(plane, running):
    assert not refusal(plane, changed(running, ("spec", "replicas"), 5), verb="replace")
    tighter = changed(running, ("spec", "template", "spec", "containers", 0, "securityContext", "runAsUser"), 1000)
    assert not refusal(plane, tighter, verb="replace")
    plane.kubectl("scale", "deployment", "demo", "--replicas=0", "-n", "kars-demo")


def test_only_signed_images_pinned_by_digest_run_in_sandboxes(plane):
    for path in (("spec", "containers", 0), ("spec", "initContainers", 0), ("spec", "initContainers", 1)):
        for image, words in (
            ("r.example.com/agent:1", "not pinned by digest: r.example.com/agent:1"),
            ("r.example.com/agent", "not pinned"),
            (f"r.example.com/agent:1@sha256:{OTHER}", "without a signature"),
            (f"r.example.com/agent@sha512:{'a' * 128}", "not pinned"),
        ):
            said = refusal(plane, changed(pod(), (*path, "image"), image))
            assert "kars-signed-images" in said and words in said, said
    mounted = pod()
    mounted["spec"]["volumes"] = [{"name": "files", "image": {"reference": "r.example.com/files:1"}}]
    assert "not pinned by digest: r.example.com/files:1" in refusal(plane, mounted)
    mounted["spec"]["volumes"][0]["image"]["reference"] = f"r.example.com/files@sha256:{DIGEST}"
    assert "kars-signed-images" not in refusal(plane, mounted)
    assert not refusal(plane, pod(image=f"r.example.com/agent:1@sha256:{DIGEST}"))
    assert not refusal(plane, pod(image="agent:1", namespace="elsewhere"))


def test_what_runs_may_be_changed_in_everything_but_its_images_after_its_signer_was_revoked(plane, running):
    ask(plane, verified(OTHER), user=CONTROLLER, save=True, verb="replace")
    try:
        plane.wait(lambda: refusal(plane, pod()), what="pods to be refused")
        plane.kubectl("label", "--overwrite", "pod", "standing", "revoked=yes", "-n", "kars-demo")
        image = f"inference-router=other@sha256:{DIGEST}"
        said = plane.kubectl("set", "image", "pod/standing", image, "-n", "kars-demo", check=False).stderr
        assert "kars-signed-images" in said or "does not change" in said
    finally:
        ask(plane, verified(DIGEST), user=CONTROLLER, save=True, verb="replace")
        plane.wait(lambda: not refusal(plane, pod()), what="pods to pass")


def test_the_list_of_verified_images_is_the_controllers(plane):
    said = refusal(plane, verified(DIGEST, OTHER), verb="apply")
    assert "only the controller says which images are verified" in said
    assert not refusal(plane, verified(DIGEST, OTHER), verb="replace", user=CONTROLLER)
    assert not refusal(plane, verified(OTHER, name="other"))
    assert not refusal(plane, verified(OTHER, namespace="elsewhere"))


def test_a_pod_whose_image_is_not_listed_any_more_may_still_be_labelled_and_go(plane, running):
    ask(plane, verified(OTHER), user=CONTROLLER, verb="replace", save=True)
    try:
        plane.wait(lambda: "without a signature" in refusal(plane, pod()), what="pods to be refused")
        plane.kubectl("label", "pod", "standing", "c=d", "-n", "kars-demo")
    finally:
        ask(plane, verified(DIGEST), user=CONTROLLER, verb="replace", save=True)
        plane.wait(lambda: not refusal(plane, pod()), what="pods to pass")


def test_without_the_list_no_image_is_verified(plane):
    plane.kubectl("delete", "configmap", "kars-verified-images", "-n", NAMESPACE)
    try:
        plane.wait(lambda: refusal(plane, pod()), what="pods to be refused")
        assert "only the controller" in refusal(plane, verified(DIGEST))
    finally:
        ask(plane, verified(DIGEST), user=CONTROLLER, save=True)
        plane.wait(lambda: not refusal(plane, pod()), what="pods to pass")


# sandbox-children


# A name of an image leaves the cluster when it is pulled.
EVIL_CODE = {"oci": {"image": "collector.example/what-i-know:1"}}


@pytest.fixture(scope="module")
def family(plane):
    """Parents of each kind, and accounts that may make and delete any sandbox as far as roles go."""
    strict = {
        "egressMode": "Strict",
        "allowedEndpoints": [{"host": "api.example.com"}, {"host": "db.example.com", "port": 5432}],
    }
    for each in (
        sandbox("parent", labels={"tier": "one"}, governance={"mcpServerRefs": [{"name": "search"}, {"name": "code"}]}),
        sandbox("vault", sandbox={"isolation": "confidential"}, networkPolicy=strict),
        sandbox("own", runtime={"kind": "BYO", "byo": {"image": f"mine@sha256:{DIGEST}", "contractVersion": "v1"}}),
        sandbox("free", governance={"enabled": False}),
        sandbox("stranger", labels={"kars.azure.com/parent": "somebody"}),
        sandbox("theirs", labels={"kars.azure.com/parent": "parent"}),
    ):
        ask(plane, each, save=True)
    for name in ("parent", "vault", "own", "free", "orphan"):
        grant(plane, account(name), ["get", "list", "create", "delete", "update"], "kars.azure.com:karssandboxes")
    plane.wait(lambda: not refusal(plane, child(), user=account("parent")), what="the parents as parameters")
    return plane


def account(name):
    return f"system:serviceaccount:kars-{name}:sandbox"


def child(name="kid", *, of="parent", labels=None, namespace=NAMESPACE, **spec):
    return sandbox(name, labels={"kars.azure.com/parent": of, **(labels or {})}, namespace=namespace, **spec)


def test_a_sandbox_makes_and_deletes_children_of_its_own(family):
    ask(family, child("mine"), user=account("parent"), save=True)
    assert not refusal(family, child("mine"), user=account("parent"), verb="delete")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (child(of="vault"), "only touch its own children"),
        (sandbox("kid"), "only touch its own children"),
        (child(labels={"kars.azure.com/role": "sre"}), "sre"),
        (child("sre", labels={"kars.azure.com/role": "sre"}), "sre"),
        (child("sre"), "sre"),
        (child("parent"), "name of its own"),
        (child(labels=DEV_ONLY, agt={"providers": {"audit": "null"}}), "dev-only|no label that its parent"),
        (child(labels={"kars.azure.com/system-default": "true"}), "system-default|no label that its parent"),
        (child(sandbox={"isolation": "standard"}), "at least as isolated"),
        (child(sandbox={"allowPrivilegeEscalation": True}), "is confined"),
        (child(sandbox={"runAsNonRoot": False}), "is confined"),
        (child(sandbox={"readOnlyRootFilesystem": False}), "is confined"),
        (child(inferenceRef={"name": "unlimited"}), "InferencePolicy"),
        (child(labels={"team": "trusted"}), "no label that its parent does not have"),
        (child(labels={"tier": "other"}), "no label that its parent does not have"),
        (child(governance={"mcpServerRefs": [{"name": "search"}, {"name": "payroll"}]}), "no McpServer"),
        (child(governance={"mcpServerRef": {"name": "payroll"}}), "no McpServer"),
        (child(memoryRef={"name": "everything"}), "no memory of its own"),
        (child(a2a={"enabled": True, "agentRef": {"name": "boss"}}), "no card but its parent's"),
        (child(runtime={"kind": "LangGraph", "langGraph": {"agentCode": EVIL_CODE}}), "an image of the installation"),
        (child(runtime={"kind": "Anthropic", "anthropic": {"agentCode": EVIL_CODE}}), "an image of the installation"),
        (child(governance={"enabled": False}), "governed"),
        (child(governance={"toolPolicyRef": {"name": "anything-goes"}}), "ToolPolicy"),
        (child(runtime={"kind": "OpenClaw", "openclaw": {"image": "evil"}}), "an image of the installation"),
        (
            child(runtime={"kind": "BYO", "byo": {"image": "evil:1", "contractVersion": "v1"}}),
            "an image of the installation",
        ),
    ],
)
def test_a_child_that_is_more_than_its_parent_is_refused(family, document, words):
    said = refusal(family, document, user=account("parent"))
    # Two policies keep reserved labels; either may be the one that says so.
    assert "kars-sandbox-children" in said or "kars-reserved-labels" in said, said
    assert re.search(words, said)


@pytest.mark.parametrize(
    ("document", "passes"),
    [
        (child(of="vault", sandbox={"isolation": "confidential"}, networkPolicy={"egressMode": "Strict"}), True),
        (child(of="vault", sandbox={"isolation": "enhanced"}, networkPolicy={"egressMode": "Strict"}), False),
        (child(of="vault", sandbox={"isolation": "confidential"}), False),
        (child(of="vault", sandbox={"isolation": "confidential"}, networkPolicy={"egressMode": "Learn"}), False),
        (
            child(
                of="vault",
                sandbox={"isolation": "confidential"},
                networkPolicy={"egressMode": "Strict", "allowedEndpoints": [{"host": "api.example.com", "port": 443}]},
            ),
            True,
        ),
        (
            child(
                of="vault",
                sandbox={"isolation": "confidential"},
                networkPolicy={"egressMode": "Strict", "allowedEndpoints": [{"host": "db.example.com"}]},
            ),
            False,
        ),
    ],
)
def test_a_child_of_a_strict_and_confidential_sandbox_is_both(family, document, passes):
    assert (not refusal(family, document, user=account("vault"))) is passes


def test_a_child_may_have_its_parents_labels_and_servers(family):
    labels = {"tier": "one", "kars.azure.com/spawned-by": "agent", "kars.azure.com/role": "reader"}
    assert not refusal(
        family, child(labels=labels, governance={"mcpServerRefs": [{"name": "code"}]}), user=account("parent")
    )
    assert not refusal(family, child(governance={"mcpServerRef": {"name": "search"}}), user=account("parent"))


def test_a_child_may_run_its_parents_image_and_go_ungoverned_where_the_parent_does(family):
    mine = {"kind": "BYO", "byo": {"image": f"mine@sha256:{DIGEST}", "contractVersion": "v1"}}
    assert not refusal(family, child(of="own", runtime=mine), user=account("own"))
    assert not refusal(family, child(of="free", governance={"enabled": False}), user=account("free"))
    named = {
        "inferenceRef": {"name": "parent-inference"},
        "governance": {"toolPolicyRef": {"name": "parent-toolpolicy"}},
    }
    assert not refusal(family, child(**named), user=account("parent"))


def test_a_sandbox_does_not_change_its_children_or_itself_and_deletes_nobody_elses(family):
    assert "not change them" in refusal(family, child("theirs", suspended=True), user=account("parent"), verb="replace")
    assert "only touch its own" in refusal(family, sandbox("parent"), user=account("parent"), verb="delete")
    assert "only touch its own" in refusal(family, sandbox("stranger"), user=account("parent"), verb="delete")
    assert not refusal(family, child("theirs"), user=account("parent"), verb="delete")


def test_the_first_sandbox_of_a_namespace_may_be_anybodys_child(plane):
    assert not refusal(plane, child(namespace="elsewhere"))
    assert not refusal(plane, sandbox(namespace="elsewhere"))


def test_people_are_not_held_to_what_sandboxes_are(family):
    assert not refusal(family, child(of="vault", sandbox={"isolation": "standard"}))


# reserved-labels

SRE = {"kars.azure.com/role": "sre"}


def test_the_role_sre_is_for_the_sandbox_sre_and_for_who_may_assign_it(plane):
    grant(plane, "alice", ["create", "update", "get"], "kars.azure.com:karssandboxes")
    grant(plane, "boss", ["create", "update", "get", "assign-sre"], "kars.azure.com:karssandboxes")
    plane.wait(lambda: not refusal(plane, sandbox(), user="alice"))
    plane.wait(lambda: not refusal(plane, sandbox("sre", labels=SRE), user="boss"))
    assert "assign-sre" in refusal(plane, sandbox("sre", labels=SRE), user="alice")
    assert "only for the KarsSandbox sre" in refusal(plane, sandbox("demo", labels=SRE), user="boss")
    assert "only for the KarsSandbox sre" in refusal(
        plane, sandbox("sre", labels=SRE, namespace="elsewhere"), user="boss"
    )
    assert "the name sre" in refusal(plane, sandbox("sre"), user="boss")
    assert not refusal(plane, sandbox("demo", labels={"kars.azure.com/role": "researcher"}), user="alice")


def test_the_role_sre_is_not_put_on_or_taken_off_later_but_survives_other_changes(plane):
    grant(plane, "alice", ["create", "update", "get"], "kars.azure.com:karssandboxes")
    standing = sandbox("sre", labels=SRE), sandbox("plain")
    for each in standing:
        ask(plane, each, save=True)
    try:
        plane.wait(lambda: not refusal(plane, sandbox("plain", suspended=True), user="alice", verb="replace"))
        assert not refusal(plane, sandbox("sre", labels=SRE, suspended=True), user="alice", verb="replace")
        assert "kars-reserved-labels" in refusal(plane, sandbox("sre"), user="alice", verb="replace")
        assert "kars-reserved-labels" in refusal(plane, sandbox("plain", labels=SRE), user="alice", verb="replace")
    finally:
        for each in standing:
            ask(plane, each, verb="delete", save=True)


# sre-actions


def test_an_agent_proposes_and_does_not_approve(plane):
    grant(plane, account("sre"), ["create", "update", "get"], "kars.azure.com:karssreactions")

    def action(state):
        what = {"type": "DeletePod", "params": {"namespace": "shop", "name": "web-1"}}
        return kars(
            "KarsSREAction",
            "a",
            {
                "action": what,
                "approval": {"state": state},
                "justification": {"reason": "it hangs", "evidence": []},
                "rationale": "x",
            },
        )

    pending = action("Pending")
    said = ask(plane, pending).stderr
    for name in ("justification", "rationale"):
        if f'"spec.{name}"' in said:
            del pending["spec"][name]
    ready = {**pending, "spec": {**pending["spec"], "approval": {"state": "Approved"}}}
    plane.wait(lambda: not refusal(plane, pending, user=account("sre")), what="an agent's proposal")
    assert "a person approves it" in refusal(plane, ready, user=account("sre"))
    ask(plane, pending, save=True)
    assert "a person approves it" in refusal(plane, ready, user=account("sre"), verb="replace")
    assert not refusal(plane, ready, verb="replace")


# sandbox-namespaces


def space(name, labels):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def test_the_labels_of_a_sandboxes_namespace_are_the_controllers(plane):
    for user, verbs in (("mallory", ["create", "update", "get"]), ("officer", ["create", "update", "get"])):
        grant(plane, user, verbs, "namespaces")
    grant(plane, "officer", ["relabel"], "kars.azure.com:sandboxnamespaces")
    plane.wait(lambda: not refusal(plane, space("kars-demo", STRICT | {"team": "a"}), user="mallory", verb="replace"))
    for labels in (
        STRICT | {"kars.azure.com/break-glass": "true"},
        STRICT | {"kars.azure.com/isolated": "no"},
        STRICT | {"kars.azure.com/parent-namespace": "mallorys"},
        STRICT | {"pod-security.kubernetes.io/enforce": "privileged"},
        {},
    ):
        assert "kars-sandbox-namespaces" in refusal(plane, space("kars-demo", labels), user="mallory", verb="replace")
        for user in ("officer", CONTROLLER):
            plane.wait(lambda: not refusal(plane, space("kars-demo", labels), user=user, verb="replace"))  # noqa: B023
    assert "kars-sandbox-namespaces" in refusal(plane, space("kars-fake", STRICT), user="mallory")
    for component in ("system", "sandbox"):
        labels = {"app.kubernetes.io/name": "kars", "app.kubernetes.io/component": component}
        assert "kars-sandbox-namespaces" in refusal(plane, space("plain", labels), user="mallory")
        assert not refusal(plane, space("plain", labels), user="officer")
    assert not refusal(plane, space("plain", {"app.kubernetes.io/component": "system"}), user="mallory")
    assert not refusal(plane, space("plain", {"pod-security.kubernetes.io/enforce": "baseline"}), user="mallory")
    assert not refusal(plane, space("kars-new", STRICT), user=CONTROLLER)


# managed-objects


def compiled(kind="ConfigMap", *, namespace="elsewhere", labels=None, finalizers=(), **data):
    meta = {"name": "inferencepolicy-p-profile", "namespace": namespace, "finalizers": list(finalizers)}
    meta["labels"] = MANAGED if labels is None else labels
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, "data": data}


MANAGED = {"app.kubernetes.io/managed-by": "kars-controller"}


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_what_bears_the_controllers_label_is_the_controllers(plane, kind):
    plural = f"{kind.lower()}s"
    for user in ("mallory", "officer", CONTROLLER):
        grant(plane, user, ["create", "update", "get"], plural)
    grant(plane, "officer", ["change"], "kars.azure.com:managedobjects")
    mine = compiled(kind, labels={"app.kubernetes.io/managed-by": "me"})
    plane.wait(lambda: not refusal(plane, mine, user="mallory"), what="the rights")
    assert "kars-managed-objects" in refusal(plane, compiled(kind), user="mallory")
    assert not refusal(plane, compiled(kind), user="officer")
    ask(plane, compiled(kind, k="YQ=="), user=CONTROLLER, save=True)
    for changed in (compiled(kind, k="Yg=="), compiled(kind, k="YQ==", labels={}), compiled(kind)):
        said = refusal(plane, changed, user="mallory", verb="replace")
        assert "kars-managed-objects" in said and "change the resource" in said
        assert not refusal(plane, changed, user=CONTROLLER, verb="replace")
    assert not refusal(plane, compiled(kind, finalizers=["a.example/b"], k="YQ=="), user="mallory", verb="replace")
    # Nor is the label put on something that is there.
    other = compiled(kind, labels={}, k="YQ==")
    other["metadata"]["name"] = "other"
    ask(plane, other, user="mallory", save=True)
    other["metadata"]["labels"] = MANAGED
    assert "kars-managed-objects" in refusal(plane, other, user="mallory", verb="replace")
