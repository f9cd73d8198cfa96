"""Names, labels, annotations, finalizers and field managers of everything that the controller makes.

Clients, dashboards and network policies select by them, so they stand here once and are used from here by every room.
"""

from __future__ import annotations

import hashlib

from kars.model.base import GROUP

# Labels ------------------------------------------------------------------------------------------------------------
MANAGED_BY = "app.kubernetes.io/managed-by"
CONTROLLER = "kars-controller"  # value of MANAGED_BY; the watches on children select by it
APP_NAME = "app.kubernetes.io/name"
APP_COMPONENT = "app.kubernetes.io/component"
APP = "kars"
NAMESPACE_NAME = "kubernetes.io/metadata.name"
SANDBOX = f"{GROUP}/sandbox"
COMPONENT = f"{GROUP}/component"
ROLE = f"{GROUP}/role"
ISOLATED = f"{GROUP}/isolated"
ARTIFACT = f"{GROUP}/artifact"
PARENT_NAMESPACE = f"{GROUP}/parent-namespace"
PARENT = f"{GROUP}/parent"
PREDECESSOR = f"{GROUP}/predecessor"
SPAWNED_BY = f"{GROUP}/spawned-by"
MIRRORED_FROM = f"{GROUP}/mirrored-from"
POOL = f"{GROUP}/pool"
WORKLOAD_IDENTITY = "azure.workload.identity/use"
POD_SECURITY = "pod-security.kubernetes.io"

# Annotations -------------------------------------------------------------------------------------------------------
DESIRED = f"{GROUP}/desired"
MIRRORED_FROM_NAMESPACE = f"{GROUP}/mirrored-from-namespace"
MIRRORED_FROM_KIND = f"{GROUP}/mirrored-from-kind"
ALLOWLIST_DIGEST = f"{GROUP}/egress-allowlist-digest"
TRUST_VERSION = f"{GROUP}/trustgraph-version-hash"
TRUST_EDGES = f"{GROUP}/trustgraph-edge-count"
MODEL = f"{GROUP}/model"
RECLAIM = f"{GROUP}/reclaim"
CONFIG_DIGEST = f"{GROUP}/openclaw-config-digest"
CLIENT_ID = "azure.workload.identity/client-id"
SKIP_CONTAINERS = "azure.workload.identity/skip-containers"

# Finalizers, by kind -----------------------------------------------------------------------------------------------
FINALIZERS = {
    "KarsSandbox": f"{GROUP}/namespace-cleanup",
    "InferencePolicy": f"{GROUP}/inferencepolicy-cleanup",
    "ToolPolicy": f"{GROUP}/toolpolicy-cleanup",
    "KarsMemory": f"{GROUP}/karsmemory-cleanup",
    "McpServer": f"{GROUP}/mcpserver-cleanup",
    "A2AAgent": f"{GROUP}/a2aagent-cleanup",
    "TrustGraph": f"{GROUP}/trustgraph-cleanup",
    "KarsEval": f"{GROUP}/karseval-cleanup",
    "EgressApproval": f"{GROUP}/egress-approval-cleanup",
}

# Field managers, by kind: who owns a field must not change with an upgrade ------------------------------------------
MANAGERS = {
    "KarsSandbox": "kars-controller/karssandbox",
    "InferencePolicy": "kars-controller/inferencepolicy",
    "ToolPolicy": "kars-controller/toolpolicy",
    "KarsMemory": "kars-controller/karsmemory",
    "McpServer": "kars-controller/mcp",
    "A2AAgent": "kars-controller/a2aagent",
    "TrustGraph": "kars-controller/trustgraph",
    "KarsEval": "kars-controller/karseval",
    "EgressApproval": "kars-controller/egressapproval",
    "KarsSREAction": "kars-controller/kars-sre-action",
    "KarsPairing": "kars-controller/pairing",
}
MANAGER = MANAGERS["KarsSandbox"]

# Objects of a sandbox whose names do not depend on it ---------------------------------------------------------------
ACCOUNT = "sandbox"
NETWORK_POLICY = "sandbox-policy"
GATEWAY_TOKEN = "gateway-token"  # noqa: S105 - the name of a Secret
ADMIN_TOKEN = "router-admin-token"  # noqa: S105 - the name of a Secret
# The copy of the platform's model keys. No sandbox's own `<n>-credentials`, which its agent reads, can be called this.
MODEL_KEYS = "router-model-keys"

# Containers --------------------------------------------------------------------------------------------------------
GUARD = "egress-guard"
ROUTER = "inference-router"
CODE = "agent-code"
AGENT = "agent"
OPENCLAW = "openclaw"

LONGEST_LABEL = 63
HASH_DIGITS = 8


def namespace(sandbox: str) -> str:
    """Return the namespace of a sandbox's own objects."""
    return f"kars-{sandbox}"


def service(sandbox: str) -> str:
    """Return the Service's name: the sandbox's, but a Service's name cannot begin with a digit (RFC 1035)."""
    return sandbox if sandbox[:1].isalpha() else f"s-{sandbox}"


def spawner(sandbox: str) -> str:
    """Return the name of the Role and RoleBinding that let a sandbox spawn others."""
    return f"kars-spawner-{sandbox}"


def credentials(sandbox: str) -> str:
    """Return the name of the Secret that people put the agent's own credentials in."""
    return f"{sandbox}-credentials"


def allowlist(sandbox: str) -> str:
    """Return the name of the ConfigMap with allowlist.json."""
    return f"karssandbox-{sandbox}-egress-allowlist"


def approvals(sandbox: str) -> str:
    """Return the name of the ConfigMap with approval-<name>.json, which the EgressApprovals' reconciler writes."""
    return f"karssandbox-{sandbox}-egress-approvals"


def trust(sandbox: str) -> str:
    """Return the name of the ConfigMap with the sandbox's slice of the trust graphs."""
    return f"{sandbox}-trustgraph-projection"


def blocklist(sandbox: str) -> str:
    """Return the name of the ConfigMap with domains.txt."""
    return f"{sandbox}-blocklist"


def openclaw_config(sandbox: str) -> str:
    """Return the name of the ConfigMap with OpenClaw's config.json."""
    return f"{sandbox}-openclaw-config"


def data_claim(sandbox: str) -> str:
    """Return the name of the claim that keeps /sandbox."""
    return f"{sandbox}-data"


def records_claim(sandbox: str) -> str:
    """Return the name of the claim that keeps the router's budgets and audit log."""
    return f"{sandbox}-records"


def fit(text: str, longest: int = LONGEST_LABEL) -> str:
    """Return the text when it is short enough, else its beginning and a hash of all of it."""
    if len(text) <= longest:
        return text
    return f"{text[: longest - HASH_DIGITS - 1].rstrip('-_.')}-{short_hash(text)}"


def volume(prefix: str, name: str) -> str:
    """Return a volume's name for an object: a label (63 characters, no dots), and no two objects the same."""
    plain = f"{prefix}-{name}"
    if len(plain) <= LONGEST_LABEL and "." not in name:
        return plain
    return f"{prefix}-{short_hash(name, 16)}"


def short_hash(text: str, digits: int = HASH_DIGITS) -> str:
    """Return the first hex digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
