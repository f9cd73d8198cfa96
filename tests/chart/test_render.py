"""What the chart renders: hardened, least in rights, the same every time."""

import itertools
import json
import re

import pytest

from tests.chart.rendered import CHART, EVERYTHING, MONITORING, NAMESPACE, helm, one, pods, render, template, text

LOCAL = ("-f", str(CHART / "values-local-dev.yaml"))
# Values that change which objects there are, each way.
SWITCHES = [
    {},
    EVERYTHING,
    {"controller.replicas": 1},
    {"controller.networkPolicy.enabled": False, "governance.enabled": False, "tests.enabled": False},
    {
        "sandbox.seccompProfile": "",
        "monitoring.dashboards.enabled": False,
        "controller.podDisruptionBudget.enabled": False,
    },
    {f"admission.{name}.enabled": False for name in ("nullProviderBlock", "podExecBan", "sandboxPostureLock")},
    {
        "signerPolicy.sanPatterns": ["https://example.com/*"],
        "signerPolicy.ed25519Keys": [{"id": "a", "publicKeyBase64": "A" * 44}],
    },
    {"commonLabels": {"team": "a"}, "global.imagePullSecrets": [{"name": "s"}], "monitoring.namespace": "monitoring"},
]


@pytest.mark.parametrize("values", SWITCHES, ids=range(len(SWITCHES)))
def test_lints_and_renders_the_same_twice(values):
    helm(
        "lint",
        "--strict",
        str(CHART),
        *itertools.chain(*(("--set-json", f"{k}={json.dumps(v)}") for k, v in values.items())),
    )
    assert template(values).stdout == text(json.dumps(values), ())


@pytest.mark.parametrize("values", SWITCHES, ids=range(len(SWITCHES)))
def test_objects_are_labelled_named_and_placed(values):
    objects = render(values)
    seen = set()
    for each in objects:
        key = (each["kind"], each["metadata"]["name"], each["metadata"].get("namespace"))
        assert key not in seen, f"{key} twice"
        seen.add(key)
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "kars", key
        assert labels["app.kubernetes.io/managed-by"] == "Helm" and labels["helm.sh/chart"] == "kars-0.1.0", key
        assert {f"app.kubernetes.io/{name}" for name in ("instance", "component", "part-of", "version")} <= set(
            labels
        ), key
        assert set(values.get("commonLabels", {})) <= set(labels), key
        assert all(isinstance(text, str) for text in labels.values()), key


def test_monitoring_comes_by_itself_where_the_operator_is_served():
    assert not [each for each in render() if each["apiVersion"].startswith("monitoring.coreos.com")]
    served = render({}, *itertools.chain(*(("--api-versions", api) for api in MONITORING)))
    kinds = {each["kind"] for each in served if each["apiVersion"].startswith("monitoring.coreos.com")}
    assert kinds == {"PodMonitor", "PrometheusRule"}


# What every conformant installation has: probes, users, images, a default deny.


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("more", [(), LOCAL], ids=["", "local"])
def test_deployments_are_probed(values, more):
    for name, pod in pods(render(values, *more)):
        for container in pod["containers"]:
            if not name.startswith("Pod/"):
                assert {"livenessProbe", "readinessProbe"} <= set(container), f"{name}/{container['name']}"


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["plain", "everything"])
def test_containers_are_confined(values):
    for name, pod in pods(render(values)):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False and security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name
        for container in pod["containers"]:
            assert container["securityContext"]["runAsNonRoot"] is True, name


def test_only_the_controller_has_a_token():
    mounted = {name for name, pod in pods(render(EVERYTHING)) if pod["automountServiceAccountToken"]}
    assert mounted == {"Deployment/kars-controller"}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["plain", "everything"])
def test_every_image_has_a_tag_or_a_digest_and_ours_is_the_charts_version(values):
    objects = render(values)
    images = {
        container["image"]
        for _, pod in pods(objects)
        for container in [*pod["containers"], *pod.get("initContainers", [])]
    }
    assert all(re.search(r"(:[\w][\w.-]*|@sha256:[0-9a-f]{64})$", image) for image in images), images
    assert not [image for image in images if image.endswith(":latest")]


def test_any_image_can_be_pinned_by_digest():
    digest = f"sha256:{'0' * 63}1"
    paths = ("controller.image", "inferenceRouter.image", "sandbox.image", "seccompInstaller.image")
    whole = text(json.dumps({f"{path}.digest": digest for path in paths}), ())
    assert whole.count(f"@{digest}") >= len(paths)


def test_the_releases_namespace_denies_by_default():
    policy = one(render(), "NetworkPolicy", "kars-system-default-deny")["spec"]
    assert policy["podSelector"] == {} and policy["policyTypes"] == ["Ingress", "Egress"]
    assert [[port["port"] for port in rule["ports"]] for rule in policy["ingress"]] == [[9091]]
    assert all(rule["ports"] for rule in policy["egress"]), "a rule lets everything out"
    everywhere = [rule for rule in policy["egress"] if not rule.get("to")]
    assert [port["port"] for rule in everywhere for port in rule["ports"]] == [443, 6443]


def test_the_namespace_is_made_restricted_and_kept_when_asked_for():
    assert not [each for each in render() if each["kind"] == "Namespace"]
    made = one(render({"namespace.manage": True}), "Namespace", NAMESPACE)["metadata"]
    assert made["labels"]["app.kubernetes.io/component"] == "system"
    assert {made["labels"][f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {
        "restricted"
    }
    assert made["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_profile_on_nodes_is_where_sandboxes_look_for_it_and_a_change_rolls_it_out():
    for name in ("kars-strict", "other"):
        objects = render({"sandbox.seccompProfile": name})
        installer = one(objects, "DaemonSet", "kars-seccomp-installer")
        pod = installer["spec"]["template"]
        assert f"/host/profiles/{name}.json" in pod["spec"]["initContainers"][0]["command"][-1]
        assert {volume["hostPath"]["path"] for volume in pod["spec"]["volumes"] if "hostPath" in volume} == {
            "/var/lib/kubelet/seccomp"
        }
        assert f"{name}.json" in one(objects, "ConfigMap", "kars-seccomp-profile")["data"]
        assert len(pod["metadata"]["annotations"]["checksum/profile"]) == 64


def test_the_default_tool_policy_is_a_plain_object_with_a_profile():
    objects = render({"governance.namespaces": ["team-a", NAMESPACE]})
    policies = [each for each in objects if each["kind"] == "ToolPolicy"]
    assert [each["metadata"]["namespace"] for each in policies] == [NAMESPACE, "team-a"]
    for each in policies:
        assert each["metadata"]["name"] == "kars-default"
        assert "helm.sh/hook" not in each["metadata"]["annotations"], (
            "a hook is deleted and made again by every upgrade"
        )
        assert each["spec"]["agtProfile"]["inline"] == (CHART / "files" / "kars-default.yaml").read_text()


def test_signers_are_written_only_when_somebody_may_sign():
    name = ("ConfigMap", "kars-signer-policy")
    assert name not in {(each["kind"], each["metadata"]["name"]) for each in render()}
    made = one(render({"signerPolicy.sanPatterns": ["https://a.example.com/*", "re:.*@example.com"]}), *name)["data"]
    assert made["sanPatterns"] == "https://a.example.com/*\nre:.*@example.com\n"
    assert made["fulcioIssuers"] == "https://token.actions.githubusercontent.com\n"


# Rights


def rules(objects, *names):
    """(group, resource, verb, names) of what the controller may, by role."""
    for each in objects:
        if each["kind"] in {"ClusterRole", "Role"} and each["metadata"]["name"] in names:
            for rule in each["rules"]:
                for group, resource, verb in itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"]):
                    yield each["kind"], group, resource, verb, tuple(rule.get("resourceNames", ()))


def test_the_controller_may_nothing_with_a_star_and_neither_bind_escalate_nor_impersonate():
    for _, group, resource, verb, _ in rules(render(), "kars-controller"):
        assert "*" not in (group, resource, verb)
        assert verb not in {"bind", "escalate", "impersonate", "deletecollection", "update"} or resource.endswith(
            ("/finalizers", "leases")
        ), (resource, verb)


def test_with_the_sre_agent_the_controller_may_give_away_its_two_roles_and_no_others():
    given = [
        row for row in rules(render(EVERYTHING), "kars-controller-sre") if row[3] in {"bind", "escalate", "impersonate"}
    ]
    assert {(resource, verb, names) for _, _, resource, verb, names in given} == {
        ("clusterroles", "bind", ("kars-sre-writer-quotas", "kars-sre-writer-workloads")),
    }
    tokens = {
        row[4]
        for row in rules(render(EVERYTHING), "kars-controller", "kars-controller-sre")
        if row[2].endswith("/token")
    }
    assert tokens == {("sre-writer",)}


def test_leases_are_only_the_releases_own():
    rows = [row for row in rules(render(), "kars-controller") if row[2] == "leases"]
    assert {kind for kind, *_ in rows} == {"Role"}
    assert {verb for _, _, _, verb, names in rows if not names} == {"create"}


def test_approvers_are_bound_to_nobody_and_aggregated_to_nothing():
    objects = render(EVERYTHING)
    names = {"kars:egress-approver", "kars:sre-approver"}
    for each in objects:
        if each["kind"] == "ClusterRole":
            assert not [label for label in each["metadata"]["labels"] if "aggregate-to" in label]
        if "roleRef" in each:
            assert each["roleRef"]["name"] not in names
    assert names <= {each["metadata"]["name"] for each in objects}


def test_the_sre_agent_reads_secrets_only_when_told_to():
    def reads(values):
        return "secrets" in {row[2] for row in rules(render(values), "kars-sre-reader")}

    assert not reads({"sre.enabled": True})
    assert reads({"sre.enabled": True, "sre.readSecrets": True})
