"""Defects of earlier systems (and some that nobody had yet), each with the plan that does not have it."""

import re
from pathlib import Path

import msgspec
import pytest

from kars.desired import names, router
from kars.desired.facts import IdentityFacts, ModelFacts, Unplannable
from kars.desired.plan import plan
from tests.unit.desired.cases import CODE, everything, facts, keys, least, mcp, platform, sandbox, source
from tests.unit.desired.looking import agent, container, env, kinds, mounts, of_kind, pod, volume
from tests.unit.desired.looking import router as router_of

ROOT = Path(__file__).parents[3]


def refused(given, text):
    with pytest.raises(Unplannable, match=re.escape(text)) as caught:
        plan(given)
    return caught.value.reason


# Schema against code (§13.1)


def test_governance_is_on_without_its_block_and_off_only_by_name():
    assert env(router_of(facts()))["AGT_GOVERNANCE_ENABLED"] == "true"
    assert env(router_of(facts(sandbox(governance={}))))["AGT_GOVERNANCE_ENABLED"] == "true"
    off = facts(sandbox(governance={"enabled": False}), tools=None)
    assert "AGT_GOVERNANCE_ENABLED" not in env(router_of(off)) and "AGT_GOVERNANCE_ENABLED" not in env(agent(off))


def test_the_junk_of_an_older_schema_is_no_selinux_type():
    assert "seLinuxOptions" not in pod(facts(sandbox(sandbox={"selinuxContext": '\\"\\"'})))["securityContext"]
    labelled = facts(sandbox(sandbox={"selinuxContext": "container_t"}))
    assert pod(labelled)["securityContext"]["seLinuxOptions"] == {"type": "container_t"}


def test_fields_that_nothing_read_have_their_consumers():
    given = everything()
    variables, places = env(agent(given)), mounts(agent(given))
    assert variables["KARS_AGENT_INSTRUCTIONS"] == "Be brief.\nName sources."
    assert variables["KARS_AGENT_FILE_IDS"] == "f-1"
    assert variables["OPENCLAW_VERSION"] == "2026.5.27"
    assert "/var/cache/agent" in places
    assert places["/etc/kars/openclaw"] == "openclaw-config"
    assert "/sandbox/agent" in mounts(
        agent(facts(sandbox(kind="Anthropic", runtime={"anthropic": {"agentCode": CODE}})))
    )


# Behaviour (§13.2)


def test_there_is_a_service_without_governance_too():
    assert "Service" in kinds(facts(sandbox(governance={"enabled": False}), tools=None))


def test_a_sandbox_cannot_take_the_namespace_of_the_charts_sre():
    assert refused(facts(sandbox("sre")), "reserved") == "SpecInvalid"
    assert plan(facts(sandbox("sre"), sre=True))


def test_a_sandbox_cannot_take_the_controllers_namespace_however_that_is_called():
    assert refused(facts(sandbox("ops"), platform=platform(namespace="kars-ops")), "reserved") == "SpecInvalid"


def test_there_is_no_blocklist_for_each_sandbox_and_nothing_that_refreshes_it():
    found = plan(facts())
    assert not [one for one in found if "blocklist" in one["metadata"]["name"] or one["kind"] == "CronJob"]
    assert of_kind(everything(), "ConfigMap", "everything-blocklist")["data"] == {"domains.txt": "bad.example\n"}


def test_azure_services_are_annotated_on_the_account_that_the_pod_has():
    account = of_kind(everything(), "ServiceAccount")
    assert account["metadata"]["name"] == pod(everything())["serviceAccountName"] == "sandbox"
    assert account["metadata"]["annotations"]["kars.azure.com/service-0-permissions"] == "inference,evaluate"


def test_the_burst_threshold_is_for_offloads_of_the_controller_and_nobody_who_says_so():
    label = {"labels": {"kars.azure.com/spawned-by": "offload"}}
    own = facts(sandbox(metadata={**label, "namespace": "kars-system"}))
    assert env(router_of(own))["AGT_BEHAVIOR_BURST_THRESHOLD"] == "1000"
    assert "AGT_BEHAVIOR_BURST_THRESHOLD" not in env(router_of(facts(sandbox(metadata=label))))


def test_ipv6_is_guarded_like_ipv4():
    (text,) = container(facts(), "egress-guard")["command"][2:]
    assert "guard iptables 127.0.0.0/8" in text and "guard ip6tables ::1/128" in text


def test_the_privileged_standard_is_for_the_guards_container_alone():
    inside = of_kind(facts(), "Namespace")["metadata"]["labels"]
    assert inside["pod-security.kubernetes.io/enforce"] == "privileged"
    outside = facts(platform=platform(guard="node"))
    labels = of_kind(outside, "Namespace")["metadata"]["labels"]
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")} == {"restricted"}
    assert "egress-guard" not in [one["name"] for one in pod(outside)["initContainers"]]


def test_no_right_reaches_over_the_cluster_and_without_children_none_over_a_sandbox():
    assert not {"ClusterRole", "ClusterRoleBinding"} & set(kinds(everything()))
    (create,) = of_kind(facts(), "Role")["rules"]
    assert create["verbs"] == ["create"]
    for rule in of_kind(everything(), "Role")["rules"][1:]:
        assert rule["resourceNames"] and rule["verbs"] == ["get", "delete"]


def test_the_label_that_anybody_can_set_opens_nothing():
    labelled = facts(sandbox(kind="Hermes", metadata={"labels": {"kars.azure.com/role": "sre"}}))
    assert "KUBERNETES_SERVICE_HOST" not in container(labelled, "egress-guard")["command"][2]
    assert "api-token" not in mounts(agent(labelled)).values()


def test_development_keys_are_files_of_the_router_and_nowhere_in_the_deployment():
    given = facts(credentials=keys(AZURE_OPENAI_API_KEY="very-secret", COPILOT_GITHUB_TOKEN="also-secret"))
    text = str(of_kind(given, "Deployment"))
    assert "very-secret" not in text and "also-secret" not in text
    assert "dmVyeS1zZWNyZXQ" not in text and "YWxzby1zZWNyZXQ" not in text
    assert env(router_of(given))["AZURE_OPENAI_API_KEY_FILE"] == "/etc/kars/keys/azure-openai-key"
    assert env(router_of(given))["COPILOT_GITHUB_TOKEN"] == {
        "secretKeyRef": {"name": "router-model-keys", "key": "COPILOT_GITHUB_TOKEN"}
    }
    assert "model-keys" not in mounts(agent(given)).values()


def test_only_the_keys_that_a_router_reads_are_copied():
    copied = of_kind(everything(), "Secret", "router-model-keys")
    assert set(copied["data"]) == {"AZURE_OPENAI_API_KEY", "COPILOT_GITHUB_TOKEN"}


def test_a_sandbox_cannot_preset_a_variable_that_the_controller_adds_later():
    given = facts(
        sandbox(
            runtime={
                "openclaw": {
                    "extraEnv": {"PINNED_AGENT_IDENTITY_APP_ID": "mine", "HTTPS_PROXY": "http://x", "MINE": "1"}
                }
            }
        ),
        identity=IdentityFacts(app_id="app", tenant_id="tenant"),
    )
    found = env(agent(given))
    assert found["PINNED_AGENT_IDENTITY_APP_ID"] == "app"
    assert found["HTTPS_PROXY"] == "http://127.0.0.1:8444"
    assert found["MINE"] == "1"


def test_a_name_with_dots_or_too_long_still_makes_a_volume():
    given = facts(mcp=(mcp("a.b"), mcp("a-b"), mcp("x" * 200)))
    found = [one["name"] for one in pod(given)["volumes"] if one["name"].startswith("mcp-")]
    assert len(set(found)) == 6
    assert all(len(name) <= 63 and "." not in name for name in found)


# The agent holds nothing that would let it out of the box


@pytest.mark.parametrize("kind", ["OpenClaw", "Hermes", "OpenAIAgents", "BYO"])
def test_the_agent_never_holds_the_routers_admin_token(kind):
    given = least(kind)
    assert "admin-token" in mounts(router_of(given)).values()
    assert "admin-token" not in mounts(agent(given)).values()
    assert "router-admin-token" not in str(agent(given))


def test_the_agent_has_no_token_of_the_api_server():
    assert pod(facts())["automountServiceAccountToken"] is False
    assert of_kind(facts(), "ServiceAccount")["automountServiceAccountToken"] is False
    assert "api-token" not in mounts(agent(facts())).values()


def test_the_router_has_one_only_where_it_may_spawn():
    assert mounts(router_of(facts()))[router.TOKEN_PATH] == "api-token"
    for without in (
        facts(platform=platform(spawn=False)),
        facts(sandbox(governance={"enabled": False}), tools=None),
    ):
        assert "api-token" not in mounts(router_of(without)).values()
        assert "Role" not in kinds(without)


def test_workload_identitys_webhook_gives_its_token_to_the_router_alone():
    given = facts(sandbox(kind="PydanticAi", runtime={"pydanticAi": {"agentCode": CODE}}))
    notes = of_kind(given, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    names_of = {one["name"] for one in [*pod(given)["initContainers"], *pod(given)["containers"]]}
    assert set(notes["azure.workload.identity/skip-containers"].split(";")) == names_of - {"inference-router"}


@pytest.mark.parametrize("secret", ["router-admin-token", "router-model-keys", "mcp-search-signing"])
def test_an_image_of_ones_own_cannot_name_the_routers_secrets(secret):
    byo = {
        "image": "x:1",
        "contractVersion": "v1",
        "env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": secret, "key": "token"}}}],
    }
    given = facts(sandbox(kind="BYO", runtime={"byo": byo}), mcp=(mcp("search"),))
    assert refused(given, secret) == "SpecInvalid"


def test_the_platforms_keys_never_go_to_an_endpoint_that_a_policy_names():
    given = facts(
        model=ModelFacts(deployment="m", endpoint="https://collector.example.com/v1"),
        credentials=keys(AZURE_OPENAI_API_KEY="k", OPENAI_API_KEY="o", COPILOT_GITHUB_TOKEN="c"),
    )
    found = env(router_of(given))
    assert found["OPENAI_BASE_URL"] == "https://collector.example.com/v1"
    assert found["OPENAI_API_KEY"]["secretKeyRef"]["name"] == "demo-credentials"
    assert found["AZURE_OPENAI_ENDPOINT"] == found["FOUNDRY_ENDPOINT"] == ""
    assert not [name for name in found if name.endswith("_FILE")]
    assert "COPILOT_GITHUB_TOKEN" not in found
    assert "router-model-keys" not in str(plan(given))


def test_no_sandboxes_own_credentials_are_called_like_the_platforms_keys():
    assert not names.MODEL_KEYS.endswith("-credentials")


ROUTERS_OWN = re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", [*ROUTERS_OWN, "INFERENCE_POLICY_MISSING", "LD_PRELOAD", "PYTHONPATH", "HTTPS_PROXY"])
def test_an_mcp_server_cannot_have_a_setting_of_the_router_taken_from_the_sandboxes_own_secret(name):
    found = env(router_of(facts(mcp=(mcp("evil", bearer=name),)))).get(name)
    assert found is None or isinstance(found, str)


def test_an_mcp_server_may_have_a_bearer_from_the_sandboxes_own_secret():
    found = env(router_of(facts(mcp=(mcp("search", bearer="SEARCH_API_KEY"),))))
    assert found["SEARCH_API_KEY"] == {
        "secretKeyRef": {"name": "demo-credentials", "key": "SEARCH_API_KEY", "optional": True}
    }


def test_a_copy_cannot_replace_the_sandboxes_own_secrets():
    given = facts(
        mcp=(msgspec.structs.replace(mcp("x"), signing=source("router-admin-token", kind="Secret", token="t")),)
    )
    assert refused(given, "router-admin-token") == "SpecInvalid"


# Kubernetes' own traps


def test_a_sandbox_called_router_does_not_set_the_routers_port():
    # A Service `router` would put ROUTER_PORT=tcp://... into every container.
    assert pod(facts(sandbox("router")))["enableServiceLinks"] is False


def test_a_service_has_a_name_that_one_can_have():
    assert of_kind(facts(sandbox("4ever")), "Service")["metadata"]["name"] == "s-4ever"


def test_what_shell_texts_are_given_is_no_part_of_them_and_no_variable():
    code = {"git": {"url": "https://git.example.com/$(OPENCLAW_GATEWAY_TOKEN);reboot", "ref": "v1"}}
    found = container(facts(sandbox(kind="PydanticAi", runtime={"pydanticAi": {"agentCode": code}})), "agent-code")
    assert "reboot" not in found["command"][2]
    assert found["args"] == ["https://git.example.com/$$(OPENCLAW_GATEWAY_TOKEN);reboot", "v1", "."]


def test_absence_is_taken_only_for_what_the_router_then_refuses():
    optional = {
        one["name"]
        for one in pod(everything())["volumes"]
        if one.get("configMap", one.get("secret", {})).get("optional")
    }
    assert optional == {"egress-allowlist", "egress-approvals", "inference-policy"}


def test_no_policy_is_mounted_as_a_file_that_would_not_follow_changes():
    given = everything()
    for one in (agent(given), router_of(given)):
        for mount in one["volumeMounts"]:
            assert "subPath" not in mount or mount["name"] in {"router-records", "agent-code"}


def test_a_token_that_stands_is_left_alone():
    assert [one["metadata"]["name"] for one in plan(facts()) if one["kind"] == "Secret"] == [
        "gateway-token",
        "router-admin-token",
    ]
    assert not [one for one in plan(facts(new_tokens={})) if one["kind"] == "Secret"]


def test_request_bodies_fit_in_the_routers_memory():
    assert env(router_of(facts()))["ROUTER_BODY_MEMORY_BYTES"] == str(128 * 2**20)


def test_audit_and_budgets_have_a_place_of_their_own_that_the_agent_cannot_fill():
    given = facts(sandbox(sandbox={"persistence": {"size": "1Gi"}}))
    assert mounts(agent(given))["/sandbox"] == "sandbox-data"
    assert {mounts(router_of(given))[path] for path in ("/var/lib/kars", "/var/log/kars/audit")} == {"router-records"}
    assert volume(given, "router-records") == {"name": "router-records", "emptyDir": {"sizeLimit": "2Gi"}}


def test_what_lies_in_the_sandboxes_own_namespace_is_not_copied_onto_itself():
    given = facts(sandbox("sre", kind="Hermes", metadata={"namespace": "kars-sre"}), sre=True)
    here = msgspec.structs.replace(given.inference, namespace="kars-sre")
    found = plan(msgspec.structs.replace(given, inference=here))
    assert "inferencepolicy-sre-inference-profile" not in [one["metadata"]["name"] for one in found]


def test_facts_show_no_secret_when_they_are_printed():
    given = facts(
        credentials=keys(OPENAI_API_KEY="very-secret"), new_tokens={"gateway-token": "also-secret"}, mcp=(mcp("a"),)
    )
    assert "secret" not in repr(given) and "dmVyeS1" not in repr(given)
    assert "dmVyeS1" not in repr(given.credentials) and "c2VlZA" not in repr(given.mcp)


@pytest.mark.parametrize(
    "given",
    [
        {"fileKeyRef": {"volumeName": "router-records", "path": "state/token-budgets.json", "key": "k"}},
        {"secretKeyRef": {"name": "mine", "key": "k"}, "fileKeyRef": {"volumeName": "router-tmp"}},
        {"secretKeyRef": "router-admin-token"},
        {"secretKeyRef": {"name": ["router-admin-token"], "key": "token"}},
        {},
    ],
)
def test_a_variable_of_an_own_image_comes_from_nothing_of_the_routers(given):
    byo = {"image": "x:1", "contractVersion": "v1", "env": [{"name": "T", "valueFrom": given}]}
    assert refused(facts(sandbox(kind="BYO", runtime={"byo": byo})), "runtime.byo.env T: valueFrom") == "SpecInvalid"


@pytest.mark.parametrize("inner", [{}, []])
def test_a_configuration_that_no_writer_of_json_could_write_is_refused(inner):
    config = inner
    for _ in range(800):
        config = {"a": config, "b": [config]} if config is inner else {"a": config}
    given = facts(sandbox(runtime={"openclaw": {"config": {"gateway": config}}}))
    assert refused(given, "nested deeper than 64 levels") == "SpecInvalid"
