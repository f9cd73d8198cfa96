"""The chart's values: closed, described, and each with an effect."""

import importlib.util
import json
import re
import tomllib

import pytest
import yaml

from kars.router import tools
from tests.chart.rendered import CHART, ROOT, helm, one, refused, render, template, value

SPEC = importlib.util.spec_from_file_location("chart_schema", ROOT / "charts" / "schema.py")
schema = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(schema)

VALUES = (CHART / "values.yaml").read_text()
DEFAULTS = yaml.safe_load(VALUES)
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def walk(part, path="", told=False):
    """Every value of the schema: path, schema, and whether it or what it is part of is described."""
    for name, member in part.get("properties", {}).items():
        yield f"{path}{name}", member, told or "description" in member
        yield from walk(member, f"{path}{name}.", told)


def test_schema_and_page_are_what_the_values_and_the_routers_own_table_say():
    made = schema.schema(VALUES)
    assert made == SCHEMA, "run `make chart`"
    assert (ROOT / "docs" / "values.md").read_text() == schema.table(made, DEFAULTS), "run `make chart`"


def test_every_value_is_described_and_every_section_closed():
    for path, part, told in walk(SCHEMA):
        section = "properties" in part
        assert told or section, f"{path} is not described"
        if section and path != "global":
            assert part["additionalProperties"] is False, f"{path} is open"
    assert SCHEMA["additionalProperties"] is False


def test_every_value_is_used_by_a_template():
    sources = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    for path, part, _ in walk(SCHEMA):
        if "properties" in part or "const" in part:
            continue
        name = path.rsplit(".", 1)[-1]
        assert re.search(rf"\.{re.escape(name)}\b", sources), f"nothing uses {path}"


@pytest.mark.parametrize(
    "path",
    [
        "controler.replicas",
        "controller.replica",
        "controller.image.tags",
        "controller.resources.request",
        "router.settings.ROUTER_WORKER",
        "admission.podExecBan.enable",
        "sre.tokenbudget",
        "monitoring.dashboards.label",
    ],
)
def test_a_misspelt_value_is_refused_by_name(path):
    said = refused({path: 3})
    wrong = "controler" if path.startswith("controler") else path.rpartition(".")[2]
    assert f"'{wrong}' not allowed" in said


@pytest.mark.parametrize("path", sorted(schema.REFUSED))
def test_a_value_that_never_did_anything_is_refused_with_the_reason(path):
    assert f"remove {path}: {schema.REFUSED[path]}" in refused({path: True})


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("controller.replicas", -1),
        ("controller.replicas", "two"),
        ("controller.image.digest", "sha256:abc"),
        ("controller.image.pullPolicy", "Sometimes"),
        ("admission.contentSafetyFloor.minimum", "Extreme"),
        ("egressApproval.maxTtlSeconds", 604801),
        ("sandbox.seccompProfile", "../etc/passwd"),
        ("sandbox.network.privateNetworks", ["everywhere"]),
        ("signerPolicy.fulcioIssuers", ["token.example.com"]),
        ("router.settings", {"SANDBOX_NAME": "one-for-all"}),
        ("router.settings", {"RUST_LOG": "info\nADMIN_TOKEN=x"}),
        ("controller.env", {"A-B": "c"}),
        ("controller.env", {"A": 1}),
        ("imageSignatures.enabled", "yes"),
        ("signerPolicy.publicKeys", [{"id": "a", "publicKeyPem": "MCowBQYDK2VwAyEA"}]),
        ("signerPolicy.publicKeys", [{"id": "A", "publicKeyPem": "-----BEGIN PUBLIC KEY-----"}]),
        ("signerPolicy.trustedRoot.configMap", "Root"),
        ("registry.insecure", ["http://r.test"]),
    ],
)
def test_a_value_that_cannot_be_right_is_refused(path, wrong):
    assert path.split(".", maxsplit=1)[0] in refused({path: wrong})


def test_two_controllers_without_election_are_refused():
    assert "replicas=1" in refused({"controller.leaderElection.enabled": False})
    render({"controller.leaderElection.enabled": False, "controller.replicas": 1})


def test_the_auth_sidecar_is_scaled_between_two_numbers_or_stands_at_one():
    name, values = "entra-auth-sidecar", {"entraSidecar.enabled": True, "entraSidecar.replicas": 3}
    fixed = render(values)
    assert one(fixed, "Deployment", name)["spec"]["replicas"] == 3
    assert one(fixed, "PodDisruptionBudget", name)["spec"]["maxUnavailable"] == 1
    assert not [each for each in fixed if each["kind"] == "HorizontalPodAutoscaler"]
    scaled = render({**values, "entraSidecar.autoscaling.maxReplicas": 9})
    # An upgrade that stated the number would undo what the autoscaler did.
    assert "replicas" not in one(scaled, "Deployment", name)["spec"]
    wanted = one(scaled, "HorizontalPodAutoscaler", name)["spec"]
    assert (wanted["minReplicas"], wanted["maxReplicas"], wanted["scaleTargetRef"]["name"]) == (3, 9, name)
    for replicas in (0, 10):
        wrong = {**values, "entraSidecar.replicas": replicas, "entraSidecar.autoscaling.maxReplicas": 9}
        assert f"between 1 and that, not {replicas}" in refused(wrong)


def test_every_setting_of_the_router_can_be_set_or_is_the_controllers_own():
    table = {row.name for rows in tools.variables().values() for row in rows}
    settable = set(SCHEMA["definitions"]["routerSettings"]["properties"])
    assert settable | schema.OWN_SETTINGS == table
    assert not settable & schema.OWN_SETTINGS


def test_settings_of_the_router_reach_it_as_they_were_written(tmp_path):
    # From a file numbers are floats, from --set they are not; both must come out whole.
    settings = {"ROUTER_BODY_LIMIT_BYTES": 335544320, "EGRESS_FRONTING": "refuse", "RUST_LOG": "kars=debug,info"}
    wanted = "EGRESS_FRONTING=refuse\nROUTER_BODY_LIMIT_BYTES=335544320\nRUST_LOG=kars=debug,info"
    assert value(render({"router.settings": settings}), "ROUTER_ENV") == wanted
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"router": {"settings": settings}}))
    assert value(render({}, "-f", str(file)), "ROUTER_ENV") == wanted


@pytest.mark.parametrize(
    ("path", "set_to", "variable", "text"),
    [
        ("controller.byoStrict", True, "BYO_STRICT_MODE", "1"),
        ("inferenceRouter.image.tag", "9", "INFERENCE_ROUTER_IMAGE", "karsacr.azurecr.io/kars-inference-router:9"),
        (
            "inferenceRouter.azure.openai.endpoint",
            "https://a.example.com",
            "AZURE_OPENAI_ENDPOINT",
            "https://a.example.com",
        ),
        ("sandbox.image.repository", "r.example.com/s", "SANDBOX_IMAGE", "r.example.com/s:latest"),
        ("runtimes.openaiAgents.image", "a:1", "OPENAI_AGENTS_RUNTIME_IMAGE", "a:1"),
        ("runtimes.mafPython.image", "a:1", "MAF_RUNTIME_IMAGE", "a:1"),
        ("runtimes.anthropic.image", "a:1", "ANTHROPIC_RUNTIME_IMAGE", "a:1"),
        ("runtimes.langgraph.image", "a:1", "LANGGRAPH_RUNTIME_IMAGE", "a:1"),
        ("runtimes.langgraphTs.image", "a:1", "LANGGRAPH_TS_RUNTIME_IMAGE", "a:1"),
        ("runtimes.pydanticAi.image", "a:1", "PYDANTIC_AI_RUNTIME_IMAGE", "a:1"),
        ("runtimes.hermes.image", "a:1", "HERMES_RUNTIME_IMAGE", "a:1"),
        ("meshPeer.clusterName", "prod", "CLUSTER_NAME", "prod"),
        ("strictTools.enabled", True, "KARS_STRICT_TOOLS", "1"),
        ("foundry.endpoint", "https://f.example.com", "FOUNDRY_ENDPOINT", "https://f.example.com"),
        ("foundry.endpoint", "https://f.example.com", "CONTENT_SAFETY_ENDPOINT", "https://f.example.com"),
        ("foundry.projectEndpoint", "https://f.example.com", "FOUNDRY_PROJECT_ENDPOINT", "https://f.example.com"),
        ("foundry.deployments", "a,b", "FOUNDRY_DEPLOYMENTS", "a,b"),
        ("foundry.imdsClientId", "c", "IMDS_CLIENT_ID", "c"),
        ("contentSafety.endpoint", "https://c.example.com", "CONTENT_SAFETY_ENDPOINT", "https://c.example.com"),
        ("azure.workloadIdentity.clientId", "c", "AZURE_WI_CLIENT_ID", "c"),
        ("azure.entraAuth.enabled", True, "KARS_DISABLE_ENTRA_AUTH", "0"),
        ("egress.requireSigned", True, "REQUIRE_SIGNED_ALLOWLIST", "true"),
        ("egressApproval.maxTtlSeconds", 3600, "EGRESS_APPROVAL_MAX_TTL_SECONDS", "3600"),
        ("imageSignatures.enabled", True, "REQUIRE_SIGNED_IMAGES", "true"),
        (
            "signerPolicy.trustedRoot.configMap",
            "r",
            "KARS_SIGSTORE_TRUSTED_ROOT",
            "/etc/kars/sigstore/trusted_root.json",
        ),
        ("signerPolicy.trustedRoot.secret", "r", "KARS_SIGSTORE_TRUSTED_ROOT", "/etc/kars/sigstore/trusted_root.json"),
        ("registry.credentialsSecret", "r", "KARS_REGISTRY_CONFIG", "/etc/kars/registry/config.json"),
        ("registry.insecure", ["127.0.0.1:5000", "r.test"], "KARS_INSECURE_REGISTRIES", "127.0.0.1:5000,r.test"),
        ("controller.devProfile", True, "KARS_DEV_PROFILE", "true"),
        ("controller.watchTimeoutSeconds", 60, "KARS_WATCH_TIMEOUT_SECS", "60"),
        ("credentials.secretName", "dev", "KARS_CREDENTIALS_SECRET", "dev"),
        ("mcp.issuerNetworks", ["10.0.0.0/8", "fd00::/8"], "ISSUER_NETWORKS", "10.0.0.0/8,fd00::/8"),
        ("conformance.image", "a:1", "KARS_CONFORMANCE_RUNNER_IMAGE", "a:1"),
        ("inferenceRouter.storage", "1Gi", "ROUTER_STORAGE", "1Gi"),
        ("inferenceRouter.resources", {"requests": {"cpu": 1}}, "ROUTER_REQUESTS", "cpu=1,memory=64Mi"),
        ("sandbox.maxChildren", 0, "KARS_MAX_CHILDREN", "0"),
        ("sandbox.maxGenerations", 1, "KARS_MAX_GENERATIONS", "1"),
        ("admission.contentSafetyFloor.minimum", "Low", "KARS_CONTENT_SAFETY_FLOOR", "Low"),
        ("admission.contentSafetyFloor.enabled", False, "KARS_CONTENT_SAFETY_FLOOR", "High"),
        ("sandbox.network.privateNetworks", ["10.0.0.0/8"], "KARS_PRIVATE_NETWORKS", "10.0.0.0/8"),
    ],
)
def test_a_value_becomes_the_controllers_variable(path, set_to, variable, text):
    assert value(render({path: set_to}), variable) == text


def test_variables_that_nothing_sets_are_left_out():
    for name, entry in {each["name"]: each for each in controller(render())["env"]}.items():
        assert entry.get("value") != "", f"{name} is empty"


def controller(objects):
    (container,) = one(objects, "Deployment", "kars-controller")["spec"]["template"]["spec"]["containers"]
    return container


def test_the_pod_knows_its_own_names():
    env = {each["name"]: each for each in controller(render())["env"]}
    fields = {
        name: env[name]["valueFrom"]["fieldRef"]["fieldPath"]
        for name in ("POD_NAMESPACE", "POD_NAME", "CONTROLLER_POD_NAME")
    }
    assert fields == {
        "POD_NAMESPACE": "metadata.namespace",
        "POD_NAME": "metadata.name",
        "CONTROLLER_POD_NAME": "metadata.name",
    }


def test_ones_own_variables_win_and_none_comes_twice():
    objects = render(
        {
            "controller.env": {"RUST_LOG": "debug", "KEY": {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}},
            "controller.extraEnv": [{"name": "CLUSTER_NAME", "value": "listed"}],
        }
    )
    assert value(objects, "RUST_LOG") == "debug"
    assert value(objects, "CLUSTER_NAME") == "listed"
    assert {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}} in controller(objects)["env"]


@pytest.mark.parametrize(
    ("image", "registry", "wanted"),
    [
        ({}, "", "karsacr.azurecr.io/kars-controller:0.1.0"),
        ({"tag": "2"}, "", "karsacr.azurecr.io/kars-controller:2"),
        ({"tag": "2", "digest": f"sha256:{'a' * 64}"}, "", f"karsacr.azurecr.io/kars-controller@sha256:{'a' * 64}"),
        ({}, "mirror.example.com:5000", "mirror.example.com:5000/kars-controller:0.1.0"),
        ({"registry": "own.example.com"}, "mirror.example.com", "own.example.com/kars-controller:0.1.0"),
        ({"repository": "kars-controller"}, "mirror.example.com", "mirror.example.com/kars-controller:0.1.0"),
        ({"repository": "team/kars-controller"}, "", "team/kars-controller:0.1.0"),
    ],
)
def test_images_come_from_where_the_values_say(image, registry, wanted):
    values = {f"controller.image.{name}": each for name, each in image.items()} | {"global.imageRegistry": registry}
    assert controller(render(values))["image"] == wanted


def test_the_chart_has_the_projects_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    definitions = yaml.safe_load((CHART.parent / "kars-crds" / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == version == definitions["version"]


def test_a_cluster_that_is_too_old_is_refused():
    assert "kubeVersion" in refused({}, "--kube-version", "1.29.9")
    template({}, "--kube-version", "1.30.0")


# The local overlay


def flat(part, path=""):
    if isinstance(part, dict):
        for name, member in part.items():
            yield from flat(member, f"{path}{name}.")
    else:
        yield path.removesuffix("."), part


def test_the_local_overlay_has_no_lists_so_that_it_cannot_drop_what_others_set():
    overlay = yaml.safe_load((CHART / "values-local-dev.yaml").read_text())
    assert not [path for path, member in flat(overlay) if isinstance(member, list)]


def test_the_local_overlay_keeps_every_setting_that_it_does_not_name(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text(
        yaml.safe_dump(
            {
                "controller": {
                    "env": {"MINE": "kept", "OTHER": {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}},
                    "extraEnv": [{"name": "LISTED", "value": "kept"}],
                    "podAnnotations": {"a": "b"},
                    "tolerations": [{"key": "k", "operator": "Exists"}],
                },
                "router": {"settings": {"ROUTER_WORKERS": 2}},
                "inferenceRouter": {"azure": {"openai": {"endpoint": "https://a.example.com"}}},
                "credentials": {"secretName": "kars-dev-creds"},
                "egress": {"requireSigned": True},
                "signerPolicy": {"sanPatterns": ["https://example.com/*"]},
                "admission": {"podExecBan": {"enabled": False}},
            }
        )
    )
    overlay = CHART / "values-local-dev.yaml"
    alone, both = render({}, "-f", str(base)), render({}, "-f", str(base), "-f", str(overlay))
    named = {"INFERENCE_ROUTER_IMAGE", "SANDBOX_IMAGE", "KARS_GUARD_IMAGE", "KARS_GIT_IMAGE"}
    named |= {"KARS_DEV_PROFILE", "LEADER_ELECTION_ENABLED"}
    before = {each["name"]: each for each in controller(alone)["env"]}
    after = {each["name"]: each for each in controller(both)["env"]}
    assert {name: each for name, each in before.items() if name not in named} == {
        name: each for name, each in after.items() if name not in named
    }
    assert after["KARS_DEV_PROFILE"]["value"] == "true" and controller(both)["image"] == "kars-controller:dev"
    # Everything else is as before, but for what one replica needs.
    keep = lambda objects: {  # noqa: E731
        (each["kind"], each["metadata"]["name"], each["metadata"].get("namespace")): each
        for each in objects
        if each["metadata"]["name"] not in {"kars-controller", "kars-test-ready"}
    }
    assert keep(alone) == keep(both)
    pod = one(both, "Deployment", "kars-controller")["spec"]["template"]
    assert pod["metadata"]["annotations"] == {"a": "b"}
    assert pod["spec"]["tolerations"] == [{"key": "k", "operator": "Exists"}]


def test_helm_lints_the_chart_with_the_overlay():
    helm("lint", "--strict", str(CHART), "-f", str(CHART / "values-local-dev.yaml"))
