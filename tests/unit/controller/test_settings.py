"""The controller's variables: what each means, what is refused, and that the reference says so."""

from pathlib import Path

import pytest

from kars.controller import reference
from kars.errors import SettingsError
from kars.settings.controller import RUNTIME_IMAGES, Controller, Platform, from_environment
from kars.settings.variables import GROUPS

ROOT = Path(__file__).parents[3]


def refusal(**env):
    with pytest.raises(SettingsError) as caught:
        from_environment(env)
    return str(caught.value)


def test_no_variable_at_all_means_the_defaults_of_the_structs():
    found = from_environment({})
    assert found == Controller(platform=Platform(), identity=found.identity)


def test_an_empty_variable_counts_as_unset():
    empty = {row.name: "  " for rows in GROUPS.values() for row in rows if row.name != "CONTROLLER_METRICS_ADDR"}
    found = from_environment(empty)
    assert found == Controller(platform=Platform(), identity=found.identity)


@pytest.mark.parametrize("value", ["", "off", "disabled", "OFF"])
def test_an_empty_metrics_address_turns_the_server_off(value):
    assert from_environment({"CONTROLLER_METRICS_ADDR": value}).metrics_address == ""


def test_each_runtime_has_a_variable_for_its_image():
    found = from_environment({name: f"img/{runtime.lower()}:1" for runtime, (name, _) in RUNTIME_IMAGES.items()})
    assert found.platform.runtime_images == {runtime: f"img/{runtime.lower()}:1" for runtime in RUNTIME_IMAGES}
    assert found.platform.sandbox_image == "img/openclaw:1"


def test_the_older_name_of_the_hermes_image_counts_when_the_newer_is_unset():
    assert from_environment({"KARS_HERMES_IMAGE": "a:1"}).platform.runtime_images["Hermes"] == "a:1"
    both = {"KARS_HERMES_IMAGE": "a:1", "HERMES_RUNTIME_IMAGE": "b:1"}
    assert from_environment(both).platform.runtime_images["Hermes"] == "b:1"


def test_content_safety_falls_back_to_the_foundry_endpoint():
    given = {"FOUNDRY_ENDPOINT": "https://f.example"}
    assert from_environment(given).platform.content_safety_endpoint == "https://f.example"
    given["CONTENT_SAFETY_ENDPOINT"] = "https://c.example"
    assert from_environment(given).platform.content_safety_endpoint == "https://c.example"


def test_the_platform_and_the_process_are_of_one_namespace():
    found = from_environment({"KARS_NAMESPACE": "here"})
    assert (found.namespace, found.platform.namespace) == ("here", "here")


def test_router_variables_are_lines_whose_values_may_have_an_equals_sign():
    found = from_environment({"ROUTER_ENV": "ROUTER_WORKERS=2\n\n OTEL_HEADERS=a=b \n"})
    assert found.platform.router_env == {"ROUTER_WORKERS": "2", "OTEL_HEADERS": "a=b"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("A=1\nA=2", "A twice"),
        ("SANDBOX_NAME=x", "SANDBOX_NAME, which the controller sets"),
        ("OPENAI_API_KEY=x", "looks like a secret"),
        ("no equals", "not NAME=VALUE"),
        ("1A=2", "not NAME=VALUE"),
        ("\n".join(f"A{n}=1" for n in range(300)), "300 variables"),
    ],
)
def test_router_variables_that_cannot_be_meant_are_refused(lines, said):
    text = refusal(ROUTER_ENV=lines)
    assert text.startswith("ROUTER_ENV")
    assert said in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEADER_ELECTION_ENABLED", "maybe"),
        ("KARS_WATCH_TIMEOUT_SECS", "29"),
        ("KARS_WATCH_TIMEOUT_SECS", "1e2"),
        ("KARS_WATCH_TIMEOUT_SECS", "²²²"),
        ("EGRESS_APPROVAL_MAX_TTL_SECONDS", "604801"),
        ("EGRESS_APPROVAL_MAX_TTL_SECONDS", "0"),
        ("CONTROLLER_METRICS_ADDR", "9091"),
        ("CONTROLLER_METRICS_ADDR", "::1:9091"),
        ("CONTROLLER_METRICS_ADDR", "0.0.0.0:70000"),
        ("FOUNDRY_ENDPOINT", "f.example"),
        ("FOUNDRY_ENDPOINT", "ftp://f.example"),
        ("FOUNDRY_ENDPOINT", "https://"),
        ("FOUNDRY_ENDPOINT", "https://[::1"),
        ("FOUNDRY_ENDPOINT", "https://f.example:99999"),
        ("SANDBOX_IMAGE", "two words"),
        ("POD_NAMESPACE", "Not_A_Name"),
        ("KARS_MESH_PROVIDER", "vendored"),
        ("KARS_GUARD", "none"),
        ("KARS_DNS_ADDRESSES", "10.0.0.300"),
        ("KARS_PRIVATE_NETWORKS", "10.0.0.1/8"),
        ("ROUTER_LIMITS", "cpu"),
        ("ROUTER_LIMITS", "cpu=-1"),
        ("ROUTER_STORAGE", "big"),
        ("LOG_LEVEL", "loud"),
        ("RUST_LOG", "info,kars_controller=chatty"),
        ("KARS_SIGNER_FULCIO_ISSUERS", "https://a,https://a"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_name(name, value):
    assert refusal(**{name: value}).startswith(name)


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"POD_NAMESPACE": "a", "KARS_NAMESPACE": "b"}, ["POD_NAMESPACE", "KARS_NAMESPACE"]),
        ({"POD_NAME": "a", "CONTROLLER_POD_NAME": "b"}, ["POD_NAME", "CONTROLLER_POD_NAME"]),
        ({"KARS_SIGNER_FULCIO_ISSUERS": "https://a"}, ["KARS_SIGNER_FULCIO_ISSUERS", "KARS_SIGNER_SAN_PATTERNS"]),
        ({"KARS_SIGNER_SAN_PATTERNS": "a"}, ["KARS_SIGNER_SAN_PATTERNS", "KARS_SIGNER_FULCIO_ISSUERS"]),
    ],
)
def test_variables_that_contradict_each_other_are_refused_by_their_names(env, named):
    text = refusal(**env)
    assert all(name in text for name in named)


def test_a_key_in_a_variable_is_refused_without_being_shown_unless_a_secret_is_named():
    text = refusal(AZURE_OPENAI_API_KEY="s3cret")
    assert "AZURE_OPENAI_API_KEY" in text
    assert "s3cret" not in text
    found = from_environment({"AZURE_OPENAI_API_KEY": "s3cret", "KARS_CREDENTIALS_SECRET": "dev-keys"})
    assert found.platform.credentials_secret == "dev-keys"
    assert "s3cret" not in repr(found)


def test_a_credential_in_an_endpoint_is_refused_without_being_shown():
    assert "s3cret" not in refusal(FOUNDRY_ENDPOINT="https://user:s3cret@f.example")


def test_a_pods_identity_is_its_name_and_another_processs_bears_its_number():
    assert from_environment({"POD_NAME": "kars-1", "HOSTNAME": "x"}).identity == "kars-1"
    assert from_environment({"HOSTNAME": "kars-2", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}).identity == "kars-2"
    outside = from_environment({"HOSTNAME": "laptop"}).identity
    assert outside.startswith("laptop-")
    assert outside != "laptop-"


def test_the_api_servers_port_prefers_the_https_variable():
    both = {"KUBERNETES_SERVICE_PORT": "80", "KUBERNETES_SERVICE_PORT_HTTPS": "6443"}
    assert from_environment(both).api_server_port == 6443
    assert from_environment({"KUBERNETES_SERVICE_PORT": "80"}).api_server_port == 80


def test_every_field_of_the_platform_and_the_process_has_a_variable():
    fields = {
        row.field.split(".")[-1] if "runtime_images" not in row.field else "runtime_images"
        for rows in GROUPS.values()
        for row in rows
    }
    assert set(Platform.__struct_fields__) - fields == {"sandbox_image"}
    assert set(Controller.__struct_fields__) - fields == {"platform"}


def test_the_page_of_the_reference_is_what_the_table_says():
    assert (ROOT / "docs" / "controller.md").read_text() == reference.page(), "run `make docs`"
