"""The controller's settings: frozen, built once from one mapping of variables.

`Platform` is what every sandbox of an installation has in common; `Controller` is the process. A value that cannot be
right is a `SettingsError` that names the variable.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from kars.errors import SettingsError

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})

# Runtime (and language where it picks the image): the variable that names its image, and the image without one.
RUNTIME_IMAGES = {
    "OpenClaw": ("SANDBOX_IMAGE", "karsacr.azurecr.io/openclaw-sandbox:latest"),
    "OpenAIAgents": ("OPENAI_AGENTS_RUNTIME_IMAGE", "karsacr.azurecr.io/kars-runtime-openai-agents:latest"),
    "MicrosoftAgentFramework": ("MAF_RUNTIME_IMAGE", "karsacr.azurecr.io/kars-runtime-maf-python:latest"),
    "LangGraph": ("LANGGRAPH_RUNTIME_IMAGE", "karsacr.azurecr.io/kars-runtime-langgraph:latest"),
    "LangGraph/typescript": ("LANGGRAPH_TS_RUNTIME_IMAGE", "karsacr.azurecr.io/kars-runtime-langgraph-ts:latest"),
    "Anthropic": ("ANTHROPIC_RUNTIME_IMAGE", "karsacr.azurecr.io/kars-runtime-anthropic:latest"),
    "PydanticAi": ("PYDANTIC_AI_RUNTIME_IMAGE", "karsacr.azurecr.io/kars-runtime-pydantic-ai:latest"),
    "Hermes": ("HERMES_RUNTIME_IMAGE", "karsacr.azurecr.io/kars-runtime-hermes:latest"),
}


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What every sandbox has in common: images, endpoints, switches. Texts are empty where nothing was configured."""

    router_image: str = "karsacr.azurecr.io/kars-inference-router:latest"
    sandbox_image: str = RUNTIME_IMAGES["OpenClaw"][1]
    runtime_images: dict[str, str] = msgspec.field(
        default_factory=lambda: {runtime: image for runtime, (_, image) in RUNTIME_IMAGES.items()}
    )
    # Variables that every router is given on top (ROUTER_ENV, one NAME=VALUE a line); the chart's tuning knobs.
    router_env: dict[str, str] = msgspec.field(default_factory=dict)
    azure_openai_endpoint: str = ""
    foundry_endpoint: str = ""
    foundry_project_endpoint: str = ""
    foundry_deployments: str = ""
    imds_client_id: str = ""
    content_safety_endpoint: str = ""
    workload_identity_client_id: str = ""
    # Names of a Secret in the controller's namespace that development credentials are taken from; never their values.
    credentials_secret: str = ""
    provider: str = ""
    dev_profile: bool = False
    byo_strict: bool = False
    skip_entra: bool = True
    strict_tools: bool = False
    cluster_name: str = ""
    mesh_auth_audience: str = "api://agentmesh/.default"
    require_signed_allowlist: bool = False
    require_signed_images: bool = False
    # The controller's own namespace: sandboxes let its pods in.
    namespace: str = "kars-system"
    # Who keeps the agent's packets in: `init`, a container with NET_ADMIN before all others, or `node`, something on
    # the node (a CNI chain or a DaemonSet), so that the pod meets the restricted pod security standard.
    guard: Literal["init", "node"] = "init"
    # Image with sh, iptables and ip6tables; empty for the sandbox image.
    guard_image: str = ""
    # Image with sh and git, for agentCode.git; empty for the sandbox image.
    git_image: str = ""
    # Whether routers may make sandboxes of their own (subject to the tool policy).
    spawn: bool = True
    # Most children that one sandbox may have at a time, and generations of children below a sandbox that is nobody's.
    max_children: int = 8
    max_generations: int = 2
    # A namespace that may scrape the routers' metrics; empty for none.
    monitoring_namespace: str = ""
    # Addresses or networks of name servers outside kube-system (a node-local cache, an AKS virtual IP).
    dns_addresses: tuple[str, ...] = ()
    # Private networks that routers may reach on 443 (private endpoints of model servers).
    private_networks: tuple[str, ...] = ()
    # A ConfigMap of the controller's namespace with a blocklist in domains.txt; empty for the routers' own feeds alone.
    blocklist_config_map: str = ""
    router_requests: dict[str, str] = msgspec.field(default_factory=lambda: {"cpu": "100m", "memory": "64Mi"})
    router_limits: dict[str, str] = msgspec.field(default_factory=lambda: {"cpu": "500m", "memory": "256Mi"})
    # Size of a claim that keeps the router's budgets and audit log over pods; empty: they go with the pod.
    router_storage: str = ""
    # The pod's grace period in seconds, agent and router together.
    termination_grace: int = 60


class Controller(msgspec.Struct, frozen=True, kw_only=True):
    """The process."""

    platform: Platform
    namespace: str = "kars-system"
    identity: str
    leader_election: bool = True
    lease_name: str = "kars-controller-leader"
    watch_timeout: int = 200
    metrics_address: str = "0.0.0.0:9091"
    approval_ceiling: int = 86_400
    # The most severe content that a policy from a signed artifact may let pass; the admission policy asks it of others.
    content_safety_floor: Literal["Safe", "Low", "Medium", "High"] = "Medium"
    # Networks that are not global and that key sets of token issuers may be fetched from (ISSUER_NETWORKS, by comma).
    issuer_networks: tuple[str, ...] = ()
    signer_issuers: tuple[str, ...] = ()
    signer_subjects: tuple[str, ...] = ()
    # A file with a Sigstore TrustedRoot; empty for the public-good one that came with the library.
    trusted_root: str = ""
    # A docker config file with credentials of registries; read again when it changes. Empty: nobody's.
    registry_config: str = ""
    # Registries, host[:port], that are asked without TLS.
    insecure_registries: tuple[str, ...] = ()
    # The pod's own identity, as workload identity injects it: for Azure Container Registry where all are there.
    azure_tenant_id: str = ""
    azure_client_id: str = ""
    azure_token_file: str = ""
    azure_authority: str = "https://login.microsoftonline.com/"
    conformance_image: str = "ghcr.io/azure/kars/conformance-runner:latest"
    api_server_host: str = "10.96.0.1"
    api_server_port: int = 443
    state_dir: str = ""
    log_level: str = "info"


def from_environment(env: Mapping[str, str]) -> Controller:
    """Build the settings of a process from its variables; `SettingsError` names the one that is wrong."""
    from kars.settings import variables

    found = variables.read(env)
    platform: dict[str, Any] = {}
    process: dict[str, Any] = {}
    images = Platform().runtime_images
    for field, value in found.items():
        part, _, attribute = field.partition(".")
        if part != "platform":
            process[field] = value
        elif attribute.startswith("runtime_images."):
            images[attribute.removeprefix("runtime_images.")] = value
        else:
            platform[attribute] = value
    platform.setdefault("content_safety_endpoint", platform.get("foundry_endpoint", ""))
    platform.setdefault("namespace", process.get("namespace", Platform().namespace))
    process.setdefault("identity", identity(env))
    made = Platform(**platform, runtime_images=images, sandbox_image=images["OpenClaw"])
    return Controller(**process, platform=made)


def identity(env: Mapping[str, str]) -> str:
    """Return a name that no other running controller has: in a pod the host's, elsewhere with the process's number."""
    host = env.get("HOSTNAME", "").strip() or "kars-controller"
    in_pod = host != "kars-controller" and bool(env.get("KUBERNETES_SERVICE_HOST", "").strip())
    return host if in_pod else f"{host}-{os.getpid()}"


def truth(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Read a switch; empty counts as unset."""
    value = env.get(name, "").strip()
    if not value:
        return default
    if value.lower() in TRUE:
        return True
    if value.lower() in FALSE:
        return False
    raise SettingsError(f"{name}={value!r} is neither true nor false", hint="use true or false")
