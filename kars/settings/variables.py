"""Every variable of the controller: its field, how it is read, and the words of the reference, in one table."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from kars.errors import SettingsError
from kars.settings.controller import FALSE, RUNTIME_IMAGES, TRUE

# An image reference is one word; what else is wrong with it the kubelet says.
IMAGE = re.compile(r"[!-~]{1,512}\Z")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
# RFC 1123 subdomain: what a Secret, ConfigMap or Lease is called.
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?\Z")
# host[:port] of a registry, spelt out; an address of IPv6 stands in brackets.
REGISTRY = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?\Z")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# k8s.io/apimachinery/pkg/api/resource, without a sign.
QUANTITY = re.compile(r"([0-9]{1,18}(\.[0-9]{0,9})?)([KMGTPE]i|[numkMGTPE])?\Z")
RESOURCE = re.compile(r"[a-z0-9A-Z]([-a-z0-9A-Z./]{0,251}[a-z0-9A-Z])?\Z")
# Variables of the router that say who it is, where its policy lies, or a secret: the controller sets the first two by
# itself, and a secret in a variable could be read by everyone who may read Deployments.
ROUTER_OWN = frozenset({"SANDBOX_NAME", "SANDBOX_ISOLATION", "ADMIN_TOKEN", "KARS_RUNTIME_KIND"})
ROUTER_OWN |= {"INFERENCE_POLICY_DIR", "EGRESS_ALLOWLIST_DIR", "EGRESS_APPROVAL_DIR", "AGT_POLICY_DIR"}
ROUTER_OWN |= {
    "MEMORY_BINDING_DIR",
    "A2A_CARD_DIR",
    "MCP_JWKS_DIR",
    "MCP_SIGNING_KEY_DIR",
    "TRUSTGRAPH_PROJECTION_PATH",
}
SECRET = re.compile(r"(_API_KEY|_TOKEN|_SECRET|_PASSWORD)\Z")
# More is no tuning any more, and each is in every pod.
MOST_ROUTER_VARIABLES = 256

Read = Callable[[str, str], Any]


class Variable(NamedTuple):
    """A variable: `field` is the attribute of `Controller`, or of `Platform` as `platform.<attribute>`."""

    name: str
    field: str
    read: Read
    help: str


def text(_: str, value: str) -> str:
    """Take it as it is."""
    return value


def switch(name: str, value: str) -> bool:
    """Read true or false."""
    lowered = value.lower()
    if lowered in TRUE | FALSE:
        return lowered in TRUE
    raise refused(name, value, "is neither true nor false", hint="use true or false")


def whole(least: int, most: int) -> Read:
    """Read a whole number within bounds."""

    def read(name: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) <= 10 and least <= int(value) <= most):
            raise refused(name, value, f"is no whole number from {least} to {most}")
        return int(value)

    return read


def matching(pattern: re.Pattern[str], what: str) -> Read:
    """Read a text of a form."""

    def read(name: str, value: str) -> str:
        if not pattern.match(value):
            raise refused(name, value, f"is no {what}")
        return value

    return read


def choice(*words: str) -> Read:
    """Read one of some words."""

    def read(name: str, value: str) -> str:
        if value not in words:
            raise refused(name, value, f"is not one of {', '.join(words)}")
        return value

    return read


def url(name: str, value: str) -> str:
    """Read an address over HTTP."""
    try:
        parts = urlsplit(value)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not value.isascii() or not value.isprintable() or " " in value:
        raise refused(name, value, "is no http or https URL", hint="such as https://name.openai.azure.com")
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"{name} has a credential in it", hint="put it into a Secret (KARS_CREDENTIALS_SECRET)")
    return value


def listed(name: str, value: str) -> tuple[str, ...]:
    """Read texts that commas separate."""
    found = tuple(part.strip() for part in value.split(",") if part.strip())
    if len(set(found)) != len(found):
        raise refused(name, value, "names something twice")
    return found


def registries(name: str, value: str) -> tuple[str, ...]:
    """Read registries that commas separate, each spelt out: no pattern lets a host be asked without TLS."""
    found = listed(name, value)
    for one in found:
        if not REGISTRY.match(one):
            raise refused(name, one, "is no registry", hint="host or host:port, such as 127.0.0.1:5000")
    return found


def path(name: str, value: str) -> str:
    """Read the path of a file."""
    if not value.startswith("/") or "\0" in value:
        raise refused(name, value, "is no absolute path")
    return value


def address(name: str, value: str) -> str:
    """Read host:port; `off` and `disabled` mean none."""
    if value.lower() in {"off", "disabled"}:
        return ""
    host, _, port = value.rpartition(":")
    bare = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not host or bare or not (port.isascii() and port.isdigit() and int(port[:6]) < 65536):
        raise refused(name, value, "is no host:port", hint="such as 0.0.0.0:9091, [::]:9091, or off")
    return value


def level(name: str, value: str) -> str:
    """Read a level of logs, or a filter of levels."""
    words = {"trace", "debug", "info", "warn", "warning", "error", "off"}
    for part in value.lower().split(","):
        if part.strip() and part.strip().rpartition("=")[2] not in words:
            raise refused(name, value, f"is no level; levels are {', '.join(sorted(words))}")
    return value


def lines(name: str, value: str) -> dict[str, str]:
    """Read NAME=VALUE a line, for the routers."""
    found: dict[str, str] = {}
    for number, line in enumerate((line.strip() for line in value.splitlines()), 1):
        if not line:
            continue
        variable, equals, setting = line.partition("=")
        if not equals or not ENV_NAME.match(variable):
            # Not the line itself: it may be the rest of a secret that was broken over lines.
            raise SettingsError(f"{name}: line {number} is not NAME=VALUE", hint="write one variable a line")
        if variable in found:
            raise SettingsError(f"{name} sets {variable} twice")
        if variable in ROUTER_OWN:
            raise SettingsError(f"{name} sets {variable}, which the controller sets by itself")
        if SECRET.search(variable):
            raise SettingsError(
                f"{name} sets {variable}, which looks like a secret", hint="put it into KARS_CREDENTIALS_SECRET"
            )
        found[variable] = setting
    if len(found) > MOST_ROUTER_VARIABLES:
        raise SettingsError(f"{name} sets {len(found)} variables; {MOST_ROUTER_VARIABLES} is the most")
    return found


def networks(name: str, value: str) -> tuple[str, ...]:
    """Read addresses and networks that commas separate."""
    found = listed(name, value)
    for one in found:
        try:
            ipaddress.ip_network(one)
        except ValueError:
            raise refused(name, one, "is neither an address nor a network", hint="such as 10.0.0.0/8") from None
    return found


def quantities(name: str, value: str) -> dict[str, str]:
    """Read resources as name=quantity that commas separate."""
    found: dict[str, str] = {}
    for one in listed(name, value):
        resource, equals, amount = one.partition("=")
        if not equals or not RESOURCE.match(resource) or resource in found:
            raise refused(name, one, "is no resource with a quantity", hint="such as cpu=100m,memory=64Mi")
        found[resource] = quantity(name, amount)
    return found


def refused(name: str, value: str, why: str, *, hint: str = "") -> SettingsError:
    """Say that a value is not one."""
    return SettingsError(f"{name}={value[:80]!r} {why}", hint=hint)


label = matching(NAME, "name of a namespace")
quantity = matching(QUANTITY, "quantity, such as 64Mi")
image = matching(IMAGE, "image reference")
named = matching(SUBDOMAIN, "name of an object")

GROUPS: Mapping[str, tuple[Variable, ...]] = {
    "Images": (
        Variable("INFERENCE_ROUTER_IMAGE", "platform.router_image", image, "The router beside each agent"),
        *(
            Variable(name, f"platform.runtime_images.{runtime}", image, f"Agents of runtime {runtime}")
            for runtime, (name, _) in RUNTIME_IMAGES.items()
        ),
        Variable("KARS_HERMES_IMAGE", "platform.runtime_images.Hermes", image, "Older name of HERMES_RUNTIME_IMAGE"),
        Variable(
            "KARS_GUARD_IMAGE", "platform.guard_image", image, "The egress guard (sh, iptables); else SANDBOX_IMAGE"
        ),
        Variable("KARS_GIT_IMAGE", "platform.git_image", image, "What checks code out (sh, git); else SANDBOX_IMAGE"),
        Variable("KARS_CONFORMANCE_RUNNER_IMAGE", "conformance_image", image, "The runner of KarsEvals"),
        Variable(
            "REQUIRE_SIGNED_IMAGES",
            "platform.require_signed_images",
            switch,
            "Whether an image needs a signature that kars-signer-policy accepts; it is pinned by digest then",
        ),
    ),
    "Models": (
        Variable(
            "AZURE_OPENAI_ENDPOINT", "platform.azure_openai_endpoint", url, "Azure OpenAI endpoint of the routers"
        ),
        Variable("FOUNDRY_ENDPOINT", "platform.foundry_endpoint", url, "Foundry endpoint of the routers"),
        Variable("FOUNDRY_PROJECT_ENDPOINT", "platform.foundry_project_endpoint", url, "Foundry project endpoint"),
        Variable("FOUNDRY_DEPLOYMENTS", "platform.foundry_deployments", text, "Deployments that agents are told of"),
        Variable(
            "CONTENT_SAFETY_ENDPOINT",
            "platform.content_safety_endpoint",
            url,
            "Content safety endpoint; FOUNDRY_ENDPOINT when unset",
        ),
        Variable("IMDS_CLIENT_ID", "platform.imds_client_id", text, "Managed identity that routers use by IMDS"),
        Variable(
            "KARS_CREDENTIALS_SECRET",
            "platform.credentials_secret",
            named,
            "Secret of the controller's namespace with keys of model servers, for development",
        ),
        Variable(
            "KARS_PROVIDER", "platform.provider", matching(NAME, "provider's name"), "Provider of a development setup"
        ),
        Variable("KARS_DEV_PROFILE", "platform.dev_profile", switch, "Development profile: lenient content flags"),
    ),
    "Sandboxes": (
        Variable(
            "ROUTER_ENV",
            "platform.router_env",
            lines,
            "Variables of every router, NAME=VALUE a line (docs/configuration.md has them)",
        ),
        Variable("ROUTER_REQUESTS", "platform.router_requests", quantities, "Resources that a router asks for"),
        Variable("ROUTER_LIMITS", "platform.router_limits", quantities, "Resources that a router is held to"),
        Variable(
            "ROUTER_STORAGE",
            "platform.router_storage",
            quantity,
            "Size of a claim that keeps a router's budgets and audit log over pods; unset: they go with the pod",
        ),
        Variable(
            "KARS_TERMINATION_GRACE_SECONDS",
            "platform.termination_grace",
            whole(1, 3600),
            "The pod's grace period, agent and router together",
        ),
        Variable(
            "KARS_GUARD",
            "platform.guard",
            choice("init", "node"),
            "Who keeps the agent's packets in: init, a container with NET_ADMIN, or node, something on the node",
        ),
        Variable("KARS_SPAWN", "platform.spawn", switch, "Whether routers may make sandboxes of their own"),
        Variable(
            "KARS_MAX_CHILDREN",
            "platform.max_children",
            whole(0, 256),
            "Most children that one sandbox may have at a time; further ones wait for a place",
        ),
        Variable(
            "KARS_MAX_GENERATIONS",
            "platform.max_generations",
            whole(0, 16),
            "Generations of children below a sandbox that is nobody's child; 1: children have none of their own",
        ),
        Variable(
            "KARS_MONITORING_NAMESPACE", "platform.monitoring_namespace", label, "Namespace that may scrape the routers"
        ),
        Variable(
            "KARS_DNS_ADDRESSES",
            "platform.dns_addresses",
            networks,
            "Addresses or networks of name servers outside kube-system, comma-separated",
        ),
        Variable(
            "KARS_PRIVATE_NETWORKS",
            "platform.private_networks",
            networks,
            "Private networks that routers may reach on 443, comma-separated",
        ),
        Variable(
            "KARS_BLOCKLIST_CONFIG_MAP",
            "platform.blocklist_config_map",
            named,
            "ConfigMap of the controller's namespace with a blocklist in domains.txt",
        ),
        Variable("BYO_STRICT_MODE", "platform.byo_strict", switch, "Refuse BYO images that break the contract"),
        Variable("KARS_STRICT_TOOLS", "platform.strict_tools", switch, "OpenClaw: only tools that the policy lists"),
        Variable("KARS_MESH_PROVIDER", "", choice("agt"), "Provider of the mesh; there is one"),
        Variable("CLUSTER_NAME", "platform.cluster_name", text, "This cluster's name, for agents"),
    ),
    "Identity": (
        Variable(
            "AZURE_WI_CLIENT_ID",
            "platform.workload_identity_client_id",
            text,
            "Client id of the workload identity that sandboxes' accounts are annotated with",
        ),
        Variable("KARS_DISABLE_ENTRA_AUTH", "platform.skip_entra", switch, "Have agents skip Entra"),
        Variable(
            "AZURE_TENANT_ID", "azure_tenant_id", text, "Tenant of the pod's workload identity (set by its webhook)"
        ),
        Variable("AZURE_CLIENT_ID", "azure_client_id", text, "Client of that identity (set by its webhook)"),
        Variable(
            "AZURE_FEDERATED_TOKEN_FILE",
            "azure_token_file",
            path,
            "Token of that identity, which registries of Azure are asked with (set by its webhook)",
        ),
        Variable("AZURE_AUTHORITY_HOST", "azure_authority", url, "Where that token is exchanged (set by its webhook)"),
        Variable("MESH_AUTH_AUDIENCE", "platform.mesh_auth_audience", text, "Audience of the mesh's Entra tokens"),
    ),
    "Egress and signatures": (
        Variable(
            "REQUIRE_SIGNED_ALLOWLIST",
            "platform.require_signed_allowlist",
            switch,
            "Whether an allowlist must come from a signed artifact; an inline one is not used then",
        ),
        Variable(
            "KARS_CONTENT_SAFETY_FLOOR",
            "content_safety_floor",
            choice("Safe", "Low", "Medium", "High"),
            "Most severe content that an InferencePolicy from a signed artifact may let pass, but for dev-only ones",
        ),
        Variable(
            "EGRESS_APPROVAL_MAX_TTL_SECONDS",
            "approval_ceiling",
            whole(1, 604_800),
            "Longest time that an EgressApproval may run",
        ),
        Variable(
            "ISSUER_NETWORKS",
            "issuer_networks",
            networks,
            "Networks that are not global and that token issuers' key sets may be fetched from, comma-separated",
        ),
        Variable(
            "KARS_SIGNER_FULCIO_ISSUERS",
            "signer_issuers",
            listed,
            "Issuers whose certificates count, comma-separated, where there is no ConfigMap kars-signer-policy",
        ),
        Variable(
            "KARS_SIGNER_SAN_PATTERNS",
            "signer_subjects",
            listed,
            "Subjects whose certificates count, likewise; * and ? match, re: begins a regular expression",
        ),
        Variable(
            "KARS_SIGSTORE_TRUSTED_ROOT",
            "trusted_root",
            path,
            "File with the Sigstore TrustedRoot that certificates and logs are held to; the public-good one when unset",
        ),
        Variable(
            "KARS_REGISTRY_CONFIG",
            "registry_config",
            path,
            "Docker config file with credentials of registries (auths); read again when it changes",
        ),
        Variable(
            "KARS_INSECURE_REGISTRIES",
            "insecure_registries",
            registries,
            "Registries (host:port, comma-separated) that are asked without TLS, for development and tests",
        ),
    ),
    "Process": (
        Variable("POD_NAMESPACE", "namespace", named, "The controller's namespace; KARS_NAMESPACE when unset"),
        Variable("KARS_NAMESPACE", "namespace", named, "Other name of POD_NAMESPACE; they must agree"),
        Variable("POD_NAME", "identity", text, "Who holds the lease; HOSTNAME when unset"),
        Variable("CONTROLLER_POD_NAME", "identity", text, "Other name of POD_NAME; they must agree"),
        Variable("HOSTNAME", "", text, "Who holds the lease, when POD_NAME is unset"),
        Variable("LEADER_ELECTION_ENABLED", "leader_election", switch, "Whether replicas elect one that writes"),
        Variable("LEADER_ELECTION_LEASE_NAME", "lease_name", named, "Lease that they elect it by"),
        Variable("KARS_WATCH_TIMEOUT_SECS", "watch_timeout", whole(30, 600), "Seconds that one watch lasts"),
        Variable(
            "CONTROLLER_METRICS_ADDR",
            "metrics_address",
            address,
            "Address of /metrics, /healthz and /readyz; off, disabled or empty for none",
        ),
        Variable("KARS_STATE_DIR", "state_dir", text, "Directory for what may be cached; a temporary one when unset"),
        Variable("KUBERNETES_SERVICE_HOST", "api_server_host", text, "API server as pods see it (set by the kubelet)"),
        Variable("KUBERNETES_SERVICE_PORT_HTTPS", "api_server_port", whole(1, 65535), "Its port (set by the kubelet)"),
        Variable("KUBERNETES_SERVICE_PORT", "api_server_port", whole(1, 65535), "Its port, when the other is unset"),
        Variable("LOG_LEVEL", "log_level", level, "error, warn, info or debug; wins over RUST_LOG"),
        Variable("RUST_LOG", "log_level", level, "The same as a filter, such as info,kars_controller=debug"),
    ),
}
# Names that mean the same: the first that is set counts.
FIRST_OF = (
    ("POD_NAMESPACE", "KARS_NAMESPACE"),
    ("POD_NAME", "CONTROLLER_POD_NAME"),
    ("KUBERNETES_SERVICE_PORT_HTTPS", "KUBERNETES_SERVICE_PORT"),
    ("LOG_LEVEL", "RUST_LOG"),
    ("HERMES_RUNTIME_IMAGE", "KARS_HERMES_IMAGE"),
)
# Those of them that must not say different things.
MUST_AGREE = FIRST_OF[:2]
# Keys that an earlier controller wrote into every Deployment, where everyone who may read those could read them.
KEYS = ("AZURE_OPENAI_API_KEY", "COPILOT_GITHUB_TOKEN")


def read(env: Mapping[str, str]) -> dict[str, Any]:
    """Return the value of every field that is set; a `SettingsError` names the variable whose value is none."""
    given = {name: value.strip() for name, value in env.items() if value.strip()}
    if env.get("CONTROLLER_METRICS_ADDR", "unset").strip() == "":
        given["CONTROLLER_METRICS_ADDR"] = "off"
    check_contradictions(given)
    for first, second in FIRST_OF:
        if first in given:
            given.pop(second, None)
    found = {}
    for group in GROUPS.values():
        for variable in group:
            if variable.name in given:
                value = variable.read(variable.name, given[variable.name])
                if variable.field:
                    found[variable.field] = value
    return found


def check_contradictions(given: Mapping[str, str]) -> None:
    """Refuse variables that cannot all be meant."""
    for first, second in MUST_AGREE:
        if first in given and second in given and given[first] != given[second]:
            raise SettingsError(f"{first} and {second} are set to different values", hint=f"set {first} alone")
    both = ("KARS_SIGNER_FULCIO_ISSUERS", "KARS_SIGNER_SAN_PATTERNS")
    if (both[0] in given) != (both[1] in given):
        present, absent = both if both[0] in given else both[::-1]
        raise SettingsError(f"{present} is set without {absent}", hint="a signer is an issuer and a subject")
    for key in KEYS:
        if key in given and "KARS_CREDENTIALS_SECRET" not in given:
            raise SettingsError(
                f"{key} is set, and the controller hands no key on from a variable of its own",
                hint="put it into a Secret of the controller's namespace and name that in KARS_CREDENTIALS_SECRET",
            )
