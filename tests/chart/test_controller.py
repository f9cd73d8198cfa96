"""What the chart tells the controller, the controller understands; and what it tells routers reaches them."""

import pytest

from kars.desired.facts import Facts, ModelFacts, Source
from kars.desired.plan import plan
from kars.model.decode import decode
from kars.settings import variables
from kars.settings.controller import from_environment
from tests.chart.rendered import CHART, EVERYTHING, environment, render
from tests.chart.test_values import SCHEMA, schema

TABLE = {row.name for rows in variables.GROUPS.values() for row in rows}
# What the kubelet and workload identity's webhook set, older names, and what only makes sense outside of a pod or in `controller.env`.
NOT_THE_CHARTS = {
    "AZURE_AUTHORITY_HOST",
    "AZURE_CLIENT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_TENANT_ID",
    "CONTROLLER_METRICS_ADDR",
    "HOSTNAME",
    "KARS_HERMES_IMAGE",
    "KARS_SIGNER_FULCIO_ISSUERS",
    "KARS_SIGNER_SAN_PATTERNS",
    "KARS_STATE_DIR",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "KUBERNETES_SERVICE_PORT_HTTPS",
    "LOG_LEVEL",
    "KARS_MESH_PROVIDER",
}
FIELDS = {"metadata.namespace": "kars-system", "metadata.name": "kars-controller-0"}


def told(values):
    """The variables of a pod of the controller."""
    return {
        name: each["value"] if "value" in each else FIELDS[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for name, each in environment(render(values)).items()
    }


def settable():
    return set(SCHEMA["definitions"]["routerSettings"]["properties"])


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["plain", "everything"])
def test_the_controller_reads_every_variable_that_the_chart_sets_and_takes_its_value(values):
    env = told(values)
    assert env.keys() <= TABLE
    settings = from_environment(env)
    assert settings.namespace == settings.platform.namespace == "kars-system"
    assert settings.identity == "kars-controller-0"


def test_every_variable_of_the_controller_has_a_value():
    helpers = (CHART / "templates" / "_helpers.tpl").read_text()
    missing = {name for name in TABLE - NOT_THE_CHARTS if f'"{name}"' not in helpers}
    assert not missing, "give them values, or say here why not"


def test_the_charts_defaults_are_the_controllers_own():
    alone, charted = from_environment({"HOSTNAME": "a"}), from_environment(told({}))
    differs = {
        name
        for name in charted.platform.__struct_fields__
        if getattr(charted.platform, name) != getattr(alone.platform, name)
    }
    # Images of this version instead of the latest.
    assert differs <= {"router_image", "sandbox_image", "runtime_images"}
    same = ("leader_election", "lease_name", "watch_timeout", "metrics_address", "approval_ceiling", "log_level")
    same += ("content_safety_floor",)
    assert all(getattr(alone, name) == getattr(charted, name) for name in same)


def planned(router_env):
    """The variables of a router, as the controller plans them under these settings."""
    sandbox = decode(
        {
            "apiVersion": "kars.azure.com/v1alpha1",
            "kind": "KarsSandbox",
            "metadata": {"name": "demo", "namespace": "kars-system"},
            "spec": {"runtime": {"kind": "Hermes"}, "sandbox": {}, "inferenceRef": {"name": "p"}},
        }
    )
    platform = from_environment(told({"router.settings": router_env} if router_env else {})).platform
    facts = Facts(
        sandbox=sandbox,
        platform=platform,
        model=ModelFacts(deployment="m"),
        inference=Source(kind="ConfigMap", name="inferencepolicy-p-profile", namespace="kars-system", data={}),
    )
    deployment = next(each for each in plan(facts) if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    router = next(each for each in [*pod["initContainers"], *pod["containers"]] if each["name"] == "inference-router")
    return {each["name"]: each.get("value") for each in router["env"]}


def test_every_setting_that_can_be_set_is_in_force_in_the_router():
    chosen = dict.fromkeys(settable(), "7")
    env = planned(chosen)
    lost = {name for name in chosen if env.get(name) != "7"}
    assert not lost, f"the controller sets these by itself; leave them out of the schema: {lost}"


def test_settings_that_cannot_be_set_are_the_controllers_secret_or_fixed():
    fixed = {"ROUTER_PORT", "ROUTER_METRICS_PORT", "FORWARD_PROXY_PORT", "INFERENCE_POLICY_MISSING", "OPENCLAW_MODEL"}
    fixed |= {"TERMINATION_GRACE_PERIOD_SECS"}
    own = schema.OWN_SETTINGS & planned({}).keys()
    secret = {name for name in schema.OWN_SETTINGS if variables.SECRET.search(name)}
    assert own | secret | fixed == schema.OWN_SETTINGS
