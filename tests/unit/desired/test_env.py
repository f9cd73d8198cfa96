"""The tables of variables: which, in which order, and when."""

import pytest

from kars.desired.facts import IdentityFacts, ModelFacts
from tests.unit.desired.cases import everything, facts, keys, least, mcp, platform, sandbox, source
from tests.unit.desired.looking import agent, env, router

AGENT_LEAST = [
    "OPENCLAW_MODEL", "KARS_MODEL", "KARS_RUNTIME_CONTRACT_VERSION", "KARS_RUNTIME_KIND", "SANDBOX_NAME",
    "AZURE_OPENAI_ENDPOINT", "KARS_AUTH_MODE", "OPENCLAW_GATEWAY_TOKEN", "AGT_SKIP_ENTRA", "KARS_MESH_PROVIDER",
    "AGT_GOVERNANCE_ENABLED", "AGT_TRUST_THRESHOLD", "AGT_REGISTRY_MODE", "AGT_RELAY_URL", "AGT_REGISTRY_URL", "AGT_POLICY_DIR",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "NODE_USE_ENV_PROXY",
]  # fmt: skip
AGENT_ALL = [
    "OPENCLAW_MODEL", "KARS_MODEL", "KARS_RUNTIME_CONTRACT_VERSION", "KARS_RUNTIME_KIND", "SANDBOX_NAME", "CLUSTER_NAME",
    "AZURE_OPENAI_ENDPOINT", "KARS_AUTH_MODE", "OPENCLAW_GATEWAY_TOKEN", "FOUNDRY_PROJECT_ENDPOINT", "FOUNDRY_DEPLOYMENTS",
    "FOUNDRY_AGENT_TOOLS", "KARS_AGENT_INSTRUCTIONS", "KARS_AGENT_FILE_IDS", "AGT_SKIP_ENTRA", "MESH_AUTH_BACKEND",
    "MESH_AUTH_AUDIENCE", "KARS_STRICT_TOOLS", "KARS_MESH_PROVIDER", "AGT_GOVERNANCE_ENABLED", "AGT_TRUST_THRESHOLD",
    "AGT_TRUSTED_PEERS", "PARENT_SANDBOX", "AGT_REGISTRY_MODE", "AGT_RELAY_URL", "AGT_REGISTRY_URL", "OPENCLAW_VERSION",
    "LOG_LEVEL", "KARS_PROVIDER", "KARS_DEV_PROFILE", "PINNED_AGENT_IDENTITY_APP_ID", "AGT_POLICY_DIR", "KARS_MCP_SERVERS",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "NODE_USE_ENV_PROXY",
]  # fmt: skip
ROUTER_LEAST = [
    "AZURE_OPENAI_ENDPOINT", "FOUNDRY_ENDPOINT", "FOUNDRY_PROJECT_ENDPOINT", "IMDS_CLIENT_ID", "CONTENT_SAFETY_ENDPOINT",
    "AZURE_OPENAI_DEPLOYMENT", "KARS_AUTH_MODE", "CONTENT_SAFETY_ENABLED", "SANDBOX_NAME", "SANDBOX_ISOLATION", "KARS_NAMESPACE", "KARS_MESH_PROVIDER",
    "AGT_GOVERNANCE_ENABLED", "AGT_TRUST_THRESHOLD", "AGT_REGISTRY_MODE", "AGT_RELAY_URL", "AGT_REGISTRY_URL",
    "AGT_MESH_NAMESPACE", "BLOCKLIST_ENABLED", "BLOCKLIST_SEED_PATH", "KARS_RUNTIME_CONTRACT_VERSION", "KARS_RUNTIME_KIND",
    "EGRESS_MODE", "AGT_POLICY_DIR", "INFERENCE_POLICY_DIR", "EGRESS_ALLOWLIST_DIR", "EGRESS_APPROVAL_DIR",
    "SHUTDOWN_TIMEOUT_SECS", "ROUTER_BODY_MEMORY_BYTES", "TOKEN_BUDGET_PERSIST_PATH", "EGRESS_LEARNED_PATH", "KARS_AUDIT_DIR",
    "RUST_LOG",
]  # fmt: skip


def test_the_agents_table():
    assert list(env(agent(facts()))) == AGENT_LEAST
    assert list(env(agent(everything()))) == AGENT_ALL


def test_the_routers_table():
    assert list(env(router(facts()))) == ROUTER_LEAST


@pytest.mark.parametrize("kind", ["OpenAIAgents", "Hermes", "BYO"])
def test_what_is_openclaws_own_no_other_agent_has(kind):
    given = facts(
        sandbox(kind=kind),
        platform=platform(provider="github-models", dev_profile=True, strict_tools=True, foundry_deployments="a"),
        identity=IdentityFacts(app_id="a", tenant_id="t"),
    )
    own = {
        "OPENCLAW_MODEL", "OPENCLAW_GATEWAY_TOKEN", "FOUNDRY_DEPLOYMENTS", "FOUNDRY_AGENT_ID", "FOUNDRY_AGENT_TOOLS",
        "KARS_STRICT_TOOLS", "KARS_PROVIDER", "KARS_DEV_PROFILE", "PINNED_AGENT_IDENTITY_APP_ID",
    }  # fmt: skip
    assert not own & set(env(agent(given)))
    assert {"KARS_MODEL", "SANDBOX_NAME", "KARS_RUNTIME_KIND"} <= set(env(agent(given)))


def test_values_of_the_agents_table():
    found = env(agent(everything()))
    assert found["KARS_MODEL"] == found["OPENCLAW_MODEL"] == "gpt-4.1"
    assert found["KARS_RUNTIME_CONTRACT_VERSION"] == "v1"
    assert found["AGT_TRUSTED_PEERS"] == "planner:5Hue,writer:4fz"
    assert found["PARENT_SANDBOX"] == "planner"
    assert found["AGT_REGISTRY_MODE"] == "global"
    assert found["OPENCLAW_GATEWAY_TOKEN"] == {"secretKeyRef": {"name": "gateway-token", "key": "token"}}
    assert found["KARS_MCP_SERVERS"] == "search,play.wright"
    assert found["no_proxy"] == "127.0.0.1,localhost,::1"


@pytest.mark.parametrize(
    ("peers", "parent"), [("a:1,b:2", "a"), ("nameless", None), (":1", None), ("a:", None), (" a : 1 ,b:2", "a")]
)
def test_the_parent_is_the_first_peer_that_can_be_one(peers, parent):
    assert env(agent(facts(sandbox(governance={"trustedPeers": peers})))).get("PARENT_SANDBOX") == parent


def test_the_auto_responder_is_for_a_child_that_is_hermes():
    child = {"labels": {"kars.azure.com/parent": "boss"}}
    assert env(agent(facts(sandbox(kind="Hermes", metadata=child))))["KARS_MESH_AUTO_RESPONDER"] == "1"
    assert "KARS_MESH_AUTO_RESPONDER" not in env(agent(facts(sandbox(kind="Hermes"))))
    assert "KARS_MESH_AUTO_RESPONDER" not in env(agent(facts(sandbox(metadata=child))))


def test_both_containers_say_the_same_of_how_the_router_proves_itself():
    for given, mode in ((facts(), "workload-identity"), (facts(credentials=keys(OPENAI_API_KEY="k")), "api-key")):
        assert env(agent(given))["KARS_AUTH_MODE"] == env(router(given))["KARS_AUTH_MODE"] == mode


@pytest.mark.parametrize(
    ("spec", "mode"),
    [({}, "learn"), ({"networkPolicy": {}}, "learn"), ({"networkPolicy": {"egressMode": "Strict"}}, "strict")],
)
def test_the_egress_mode(spec, mode):
    assert env(router(facts(sandbox(**spec))))["EGRESS_MODE"] == mode


@pytest.mark.parametrize(
    ("url", "provider", "variable", "key"),
    [
        ("https://x.openai.azure.com/", "", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"),
        ("https://gateway.example.com/", "azure-openai", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"),
        ("https://api.anthropic.com", "", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
        ("https://gateway.example.com", "anthropic", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
        ("http://vllm.models.svc:8000/v1", "vllm", "OPENAI_BASE_URL", "OPENAI_API_KEY"),
    ],
)  # fmt: skip
def test_a_policys_own_endpoint_stands_instead_of_the_platforms(url, provider, variable, key):
    found = env(router(facts(model=ModelFacts(deployment="m", endpoint=url, provider=provider))))
    assert found[variable] == url
    assert found[key]["secretKeyRef"] == {"name": "demo-credentials", "key": key, "optional": True}
    assert found["FOUNDRY_ENDPOINT"] == ""


def test_no_variable_repeats_what_the_mounted_policy_changes_in_a_running_pod():
    found = env(router(everything()))
    assert not [name for name in found if name.startswith("TOKEN_BUDGET_") and name != "TOKEN_BUDGET_PERSIST_PATH"]
    assert "PROMPT_SHIELDS_ENABLED" not in found


def test_the_development_profile_relaxes_what_the_table_says():
    found = env(router(facts(platform=platform(dev_profile=True))))
    names = (
        "KARS_DEV_PROFILE",
        "KARS_SUPPRESS_EXFIL_URL",
        "KARS_SUPPRESS_CONTENT_FLAGS",
        "KARS_CONTENT_FLAG_MIN_SEVERITY",
    )
    assert [found[name] for name in names] == ["true", "1", "violence", "medium"]
    assert not set(names) & set(env(router(facts())))


def test_the_installation_tunes_the_router_and_changes_nothing_of_a_sandboxes_own():
    tuned = platform(
        router_env={"ROUTER_WORKERS": "2", "SANDBOX_NAME": "x", "EGRESS_MODE": "learn", "RUST_LOG": "debug"}
    )
    found = env(router(facts(sandbox(networkPolicy={"egressMode": "Strict"}), platform=tuned)))
    assert (found["ROUTER_WORKERS"], found["RUST_LOG"]) == ("2", "debug")
    assert (found["SANDBOX_NAME"], found["EGRESS_MODE"]) == ("demo", "strict")


def test_what_is_not_mounted_has_no_variable():
    found = env(router(facts(sandbox(governance={"enabled": False}), tools=None)))
    absent = {
        "AGT_POLICY_DIR",
        "MEMORY_BINDING_DIR",
        "MCP_JWKS_PATH",
        "MCP_JWKS_DIR",
        "MCP_SIGNING_KEY_DIR",
        "A2A_CARD_DIR",
        "TRUSTGRAPH_PROJECTION_PATH",
    }
    assert not absent & set(found)


def test_the_first_mcp_server_that_has_a_key_names_the_keys_directory():
    found = env(router(facts(mcp=(mcp("a", signing=False), mcp("b")))))
    assert found["MCP_JWKS_PATH"] == "/etc/kars/mcp/a/jwks.json"
    assert found["MCP_SIGNING_KEY_DIR"] == "/etc/kars/mcp-signing/b"


def test_ones_own_variables_are_kept_in_their_order_with_their_sources():
    byo = {
        "image": "x:1",
        "contractVersion": "v1",
        "env": [
            {"name": "B", "value": "1"},
            {"name": "A"},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "k"}}},
        ],
    }
    found = env(agent(facts(sandbox(kind="BYO", runtime={"byo": byo}))))
    assert [name for name in found if name in {"A", "B", "S"}] == ["B", "A", "S"]
    assert found["A"] == "" and found["S"] == {"secretKeyRef": {"name": "mine", "key": "k"}}
    assert (found["KARS_ROUTER_URL"], found["KARS_AGENT_NAME"]) == ("http://127.0.0.1:8443", "demo")


def test_a_sandboxes_variable_wins_over_its_runtimes_default():
    runtime = {"openaiAgents": {"pythonVersion": "3.12", "extraEnv": {"RUNTIME_PYTHON_VERSION": "3.13"}}}
    assert env(agent(facts(sandbox(kind="OpenAIAgents", runtime=runtime))))["RUNTIME_PYTHON_VERSION"] == "3.13"


def test_a_value_with_a_nul_is_left_out():
    assert "X" not in env(agent(facts(sandbox(runtime={"openclaw": {"extraEnv": {"X": "a\0b"}}}))))


@pytest.mark.parametrize(
    ("kind", "runtime", "found"),
    [
        ("OpenClaw", {"openclaw": {"version": "1"}}, {"OPENCLAW_VERSION": "1"}),
        ("OpenAIAgents", {"openaiAgents": {"pythonVersion": "3.13"}}, {"RUNTIME_PYTHON_VERSION": "3.13"}),
        ("MicrosoftAgentFramework", {}, {"RUNTIME_MAF_LANGUAGE": "python"}),
        ("LangGraph", {}, {"RUNTIME_LANGGRAPH_LANGUAGE": "python"}),
        ("LangGraph", {"langGraph": {"language": "typescript"}}, {"RUNTIME_LANGGRAPH_LANGUAGE": "typescript"}),
        ("Anthropic", {"anthropic": {"pythonVersion": "3.13"}}, {"RUNTIME_PYTHON_VERSION": "3.13"}),
        ("PydanticAi", {"pydanticAi": {"pythonVersion": "3.13"}}, {"RUNTIME_PYTHON_VERSION": "3.13"}),
        ("Hermes", {"hermes": {"version": "0.16"}}, {"HERMES_VERSION": "0.16"}),
    ],
)
def test_what_a_runtimes_own_fields_become(kind, runtime, found):
    assert found.items() <= env(agent(facts(sandbox(kind=kind, runtime=runtime)))).items()


def test_on_an_ipv6_cluster_the_router_listens_where_it_is_probed():
    assert env(router(facts(api_server=("fd00::1", 443))))["ROUTER_BIND"] == "::"
    assert "ROUTER_BIND" not in env(router(facts()))


def test_an_identity_that_the_mesh_does_not_ask_for_is_not_shown_to_it():
    found = env(router(facts(identity=IdentityFacts(app_id="a", tenant_id="t"))))
    assert found["EXPECTED_TENANT_ID"] == "t" and "MESH_AUTH_BACKEND" not in found
    asked = env(router(facts(identity=IdentityFacts(app_id="a", tenant_id="t", mesh=True, mesh_audience="api://own"))))
    assert (asked["MESH_AUTH_BACKEND"], asked["MESH_AUTH_AUDIENCE"]) == ("EntraAgentIdentity", "api://own")


def test_memory_has_its_directory():
    given = facts(memory=source("karsmemory-m-binding", **{"binding.json": "{}"}))
    assert env(router(given))["MEMORY_BINDING_DIR"] == "/etc/kars/memory"


def test_every_kind_says_what_it_is():
    for kind in ("OpenClaw", "Hermes", "BYO", "LangGraph"):
        assert env(agent(least(kind)))["KARS_RUNTIME_KIND"] == env(router(least(kind)))["KARS_RUNTIME_KIND"] == kind


KNOWN = {
    # Variables that the tables of the runtime contract name, and the router does not read (yet).
    "FOUNDRY_PROJECT_ENDPOINT", "IMDS_CLIENT_ID", "CONTENT_SAFETY_ENDPOINT", "KARS_AUTH_MODE", "CONTENT_SAFETY_ENABLED",
    "SANDBOX_ISOLATION", "CLUSTER_NAME", "KARS_NAMESPACE", "FOUNDRY_AGENT_TOOLS", "KARS_MESH_PROVIDER",
    "AGT_GOVERNANCE_ENABLED", "AGT_TRUST_THRESHOLD", "AGT_TRUSTED_PEERS", "AGT_REGISTRY_MODE", "AGT_RELAY_URL", "AGT_REGISTRY_URL",
    "AGT_MESH_NAMESPACE", "AGT_BEHAVIOR_BURST_THRESHOLD", "COPILOT_GITHUB_TOKEN", "KARS_PROVIDER", "KARS_DEV_PROFILE",
    "KARS_SUPPRESS_EXFIL_URL", "KARS_SUPPRESS_CONTENT_FLAGS", "KARS_CONTENT_FLAG_MIN_SEVERITY", "KARS_RUNTIME_CONTRACT_VERSION",
    "KARS_RUNTIME_KIND", "PINNED_AGENT_IDENTITY_APP_ID", "EXPECTED_TENANT_ID", "AUTH_SIDECAR_URL", "MESH_AUTH_BACKEND",
    "MESH_AUTH_AUDIENCE", "AGT_POLICY_DIR", "INFERENCE_POLICY_DIR", "MEMORY_BINDING_DIR", "MCP_JWKS_PATH", "MCP_JWKS_DIR",
    "MCP_SIGNING_KEY_DIR", "A2A_CARD_DIR", "TRUSTGRAPH_PROJECTION_PATH",
}  # fmt: skip


def test_the_router_is_given_nothing_that_neither_it_nor_its_contract_knows():
    from tests.unit.desired.test_traps import ROUTERS_OWN

    known = KNOWN | set(ROUTERS_OWN) | {f"{name}_FILE" for name in ROUTERS_OWN if name.endswith("_API_KEY")}
    for given in (facts(), everything()):
        assert set(env(router(given))) - {"SEARCH_TOKEN"} <= known
