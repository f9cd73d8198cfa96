"""The router's container: the only way out, and the only one that holds keys.

As a native sidecar it starts after the guard and before the agent, and stops after it; on a cluster that has none it is
a plain container beside the agent, whose first calls may then be refused, and whose last ones.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from kars.desired import agent, names, quantity, runtime, variables
from kars.desired.facts import Facts
from kars.desired.guard import ROUTER_UID
from kars.desired.runtime import Program
from kars.desired.variables import Variables
from kars.kube.types import Object

PORT = 8443
METRICS_PORT = 9090

SECRETS_PATH = "/etc/kars/secrets"
KEYS_PATH = "/etc/kars/keys"
BLOCKLIST_PATH = "/etc/kars/blocklist"
EGRESS_PATH = "/etc/kars/egress"
APPROVALS_PATH = "/etc/kars/egress-approvals"
INFERENCE_PATH = "/etc/kars/inference"
MEMORY_PATH = "/etc/kars/memory"
MCP_PATH = "/etc/kars/mcp"
SIGNING_PATH = "/etc/kars/mcp-signing"
CARD_PATH = "/etc/kars/a2a-card"
TRUST_PATH = "/etc/kars/trustgraph"
STATE_PATH = "/var/lib/kars"
AUDIT_PATH = "/var/log/kars/audit"
TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - where every client looks for it

# Keys of the platform's Secret: the file that they become, and the variable that names the file.
KEY_FILES = {
    "AZURE_OPENAI_API_KEY": "azure-openai-key",
    "OPENAI_API_KEY": "openai-api-key",
    "ANTHROPIC_API_KEY": "anthropic-api-key",
}
COPILOT = "COPILOT_GITHUB_TOKEN"

# Seconds that calls in flight get, within the pod's grace period; the rest is the agent's, which stops first.
DRAIN = 25
# Seconds between the Service's dropping of the pod and the router's refusing of new calls.
LINGER = 3
# Share of the router's memory limit that request bodies may hold together.
BODY_SHARE = 2

# What an McpServer may have sent as a bearer: names that say that they are secrets, and none that the router reads as
# a setting of its own.
BEARER = re.compile(r"[A-Z][A-Z0-9_]*_(TOKEN|KEY|PAT|SECRET|BEARER|PASSWORD)\Z")
NO_BEARER = frozenset({"ADMIN_TOKEN", *KEY_FILES})


def container(facts: Facts, program: Program, mounts: list[Object]) -> Object:
    """Return the router's container; `restartPolicy: Always` makes an init container a sidecar."""
    image = runtime.pinned(facts, facts.platform.router_image)
    result: Object = {
        "name": names.ROUTER,
        "image": image,
        "imagePullPolicy": runtime.pull_policy(facts, image),
        "securityContext": {
            "runAsUser": ROUTER_UID,
            "runAsNonRoot": True,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "ports": [
            {"name": "inference", "containerPort": PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"},
        ],
        "env": env(facts, program),
        "resources": {"requests": facts.platform.router_requests, "limits": facts.platform.router_limits},
        "volumeMounts": mounts,
        # Up to a minute to start; from then on the others say. Only readiness asks whether a policy is in force.
        "startupProbe": {**probe("/healthz", period=1), "failureThreshold": 60},
        "livenessProbe": probe("/healthz", period=15),
        "readinessProbe": probe("/readyz", period=5),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if facts.native_sidecars:
        result["restartPolicy"] = "Always"
    if facts.sleep_actions:
        result["lifecycle"] = {"preStop": {"sleep": {"seconds": LINGER}}}
    return result


def probe(path: str, *, period: int) -> Object:
    """Return an HTTP probe of the router's own port."""
    return {
        "httpGet": {"path": path, "port": "inference", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
    }


def env(facts: Facts, program: Program) -> list[Object]:
    """Return the variables in the order of the table; what the installation sets on top changes none of them."""
    rows = Variables()
    about_models(facts, rows)
    about_itself(facts, rows)
    about_mesh(facts, rows)
    about_development(facts, rows)
    about_egress(facts, program, rows)
    about_identity(facts, rows)
    about_mounts(facts, rows)
    bearers(facts, rows)
    tuning = {**defaults(facts), **facts.platform.router_env}
    rows.put({name: value for name, value in tuning.items() if name not in rows})
    return rows.objects()


def about_models(facts: Facts, rows: Variables) -> None:
    """Where the models are. A policy's own endpoint gets the sandbox's own keys, never the platform's."""
    platform, model = facts.platform, facts.model
    rows.put(
        {
            "AZURE_OPENAI_ENDPOINT": "" if model.endpoint else platform.azure_openai_endpoint,
            "FOUNDRY_ENDPOINT": "" if model.endpoint else platform.foundry_endpoint,
            "FOUNDRY_PROJECT_ENDPOINT": platform.foundry_project_endpoint,
            "IMDS_CLIENT_ID": platform.imds_client_id,
            "CONTENT_SAFETY_ENDPOINT": platform.content_safety_endpoint,
            "AZURE_OPENAI_DEPLOYMENT": model.deployment,
            "KARS_AUTH_MODE": variables.auth_mode(facts),
        }
    )
    if model.endpoint:
        variable, key = own_endpoint(model.endpoint, model.provider)
        rows.put({variable: model.endpoint})
        rows.secret(key, names.credentials(facts.name), key, optional=True)


def own_endpoint(url: str, provider: str) -> tuple[str, str]:
    """Return the variables of an endpoint and its key, by the provider that the policy names and by the host."""
    host = (urlsplit(url).hostname or "").lower()
    if host.endswith(".azure.com") or provider in {"azure-openai", "foundry", "foundry-project", "github-models"}:
        return "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"
    if host.endswith("anthropic.com") or provider == "anthropic":
        return "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"
    return "OPENAI_BASE_URL", "OPENAI_API_KEY"


def about_itself(facts: Facts, rows: Variables) -> None:
    """Whom it serves. Budgets and shields are the mounted policy's alone: a variable would replace pods."""
    rows.put(
        {
            "CONTENT_SAFETY_ENABLED": "true",
            "SANDBOX_NAME": facts.name,
            "SANDBOX_ISOLATION": isolation(facts),
        }
    )
    rows.put_given({"CLUSTER_NAME": facts.platform.cluster_name})
    if facts.spawns:
        # Children are made beside their parent, where the Role lets the router make them.
        rows.put({"KARS_NAMESPACE": facts.sandbox.metadata.namespace})
        hosted = facts.sandbox.spec.agent
        rows.put_given({"FOUNDRY_AGENT_TOOLS": ",".join(hosted.tools) if hosted else ""})
    rows.put({"KARS_MESH_PROVIDER": variables.MESH_PROVIDER})


def isolation(facts: Facts) -> str:
    """Return the isolation; strict is an older name of enhanced."""
    return facts.sandbox.spec.sandbox.isolation.replace("strict", "enhanced")


def about_mesh(facts: Facts, rows: Variables) -> None:
    """What governance says."""
    mesh = variables.mesh(facts)
    rows.put({name: value for name, value in mesh.items() if name != "PARENT_SANDBOX"})
    if mesh:
        rows.put({"AGT_MESH_NAMESPACE": names.namespace(facts.name)})
        if offloaded(facts):
            rows.put({"AGT_BEHAVIOR_BURST_THRESHOLD": "1000"})


def offloaded(facts: Facts) -> bool:
    """Whether the controller made the sandbox for an offload: in its own namespace, where nobody else may label one."""
    metadata = facts.sandbox.metadata
    return metadata.namespace == facts.platform.namespace and metadata.labels.get(names.SPAWNED_BY) == "offload"


def about_development(facts: Facts, rows: Variables) -> None:
    """Keys of a developer's installation, as files or by reference, and what its profile relaxes."""
    held = facts.platform_keys
    rows.put({f"{key}_FILE": f"{KEYS_PATH}/{file}" for key, file in KEY_FILES.items() if key in held})
    if COPILOT in held:
        rows.secret(COPILOT, names.MODEL_KEYS, COPILOT)
    rows.put_given({"KARS_PROVIDER": facts.platform.provider})
    if facts.platform.dev_profile:
        rows.put(
            {
                "KARS_DEV_PROFILE": "true",
                "KARS_SUPPRESS_EXFIL_URL": "1",
                "KARS_SUPPRESS_CONTENT_FLAGS": "violence",
                "KARS_CONTENT_FLAG_MIN_SEVERITY": "medium",
            }
        )


def about_egress(facts: Facts, program: Program, rows: Variables) -> None:
    """What may leave."""
    policy = facts.sandbox.spec.network_policy
    learns = policy is None or policy.egress_mode == "Learn"
    rows.put(
        {
            "BLOCKLIST_ENABLED": "true",
            "BLOCKLIST_SEED_PATH": f"{BLOCKLIST_PATH}/domains.txt",
            "KARS_RUNTIME_CONTRACT_VERSION": variables.CONTRACT_VERSION,
            "KARS_RUNTIME_KIND": program.kind,
            "EGRESS_MODE": "learn" if learns else "strict",
        }
    )


def about_identity(facts: Facts, rows: Variables) -> None:
    """The Entra agent identity."""
    if facts.identity is not None:
        rows.put(
            {
                "PINNED_AGENT_IDENTITY_APP_ID": facts.identity.app_id,
                "EXPECTED_TENANT_ID": facts.identity.tenant_id,
                "AUTH_SIDECAR_URL": facts.identity.sidecar_url,
            }
        )
        rows.put(variables.mesh_identity(facts))


def about_mounts(facts: Facts, rows: Variables) -> None:
    """Where what is mounted is."""
    if facts.tools is not None:
        rows.put({"AGT_POLICY_DIR": agent.POLICY_PATH})
    rows.put({"INFERENCE_POLICY_DIR": INFERENCE_PATH})
    if facts.memory is not None:
        rows.put({"MEMORY_BINDING_DIR": MEMORY_PATH})
    rows.put({"EGRESS_ALLOWLIST_DIR": EGRESS_PATH, "EGRESS_APPROVAL_DIR": APPROVALS_PATH})
    if facts.mcp:
        rows.put({"MCP_JWKS_PATH": f"{MCP_PATH}/{facts.mcp[0].name}/jwks.json"})
        signing = next((one.name for one in facts.mcp if one.signing is not None), "")
        rows.put_given({"MCP_SIGNING_KEY_DIR": f"{SIGNING_PATH}/{signing}" if signing else ""})
        rows.put({"MCP_JWKS_DIR": MCP_PATH})
    if facts.card is not None:
        rows.put({"A2A_CARD_DIR": CARD_PATH})
    if facts.trust is not None:
        rows.put({"TRUSTGRAPH_PROJECTION_PATH": f"{TRUST_PATH}/graph.json"})


def bearers(facts: Facts, rows: Variables) -> None:
    """Tokens that McpServers name, from the sandbox's own Secret: never one of the platform's, never a setting."""
    for server in facts.mcp:
        name = server.bearer_from_env
        if name and name not in rows and name not in NO_BEARER and BEARER.match(name):
            rows.secret(name, names.credentials(facts.name), name, optional=True)


def defaults(facts: Facts) -> dict[str, str]:
    """Return what the installation may set otherwise: the drain, the memory of bodies, where records are, the log."""
    limit = quantity.parse(facts.platform.router_limits.get("memory", "256Mi"))
    result = {
        "SHUTDOWN_TIMEOUT_SECS": str(min(DRAIN, max(1, facts.platform.termination_grace - 5))),
        "ROUTER_BODY_MEMORY_BYTES": str(int(limit / BODY_SHARE)),
        "TOKEN_BUDGET_PERSIST_PATH": f"{STATE_PATH}/token-budgets.json",
        "EGRESS_LEARNED_PATH": f"{STATE_PATH}/egress-learned.jsonl",
        "KARS_AUDIT_DIR": AUDIT_PATH,
        "RUST_LOG": "kars=info",
    }
    if ":" in facts.api_server[0]:  # IPv6 is the cluster's first family: its probes come by IPv6
        result["ROUTER_BIND"] = "::"
    return result
