"""KarsSandbox: one agent, its pod, and everything around it.

A few choices where the reference contradicts itself: governance is on unless it is switched off by name, whether or not
its block is there, and without a `toolPolicyRef` the ToolPolicy `kars-default` governs.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kars.model.base import AGE, PHASE, WHY, Column, Model, Names, Resource, Rule, doc, keyed, unique
from kars.model.common import (
    LABEL,
    LINE,
    PROSE,
    SANDBOX_NAME_LENGTH,
    Conditions,
    Count,
    HostName,
    Identifier,
    NameRef,
    ObservedGeneration,
    OciArtifactRef,
    Port,
    Quantity,
    Time,
    Words,
    empty,
)
from kars.model.runtime import Runtime, RuntimeKind

# Where a writable path may not lie: the root, what the kernel makes, and what the controller mounts.
TAKEN_PATHS = r"^/(proc|sys|dev|etc/kars|etc/agt)?(/|$)"

Isolation = Literal["standard", "enhanced", "confidential", "strict"]
Resources = Annotated[dict[str, Quantity], Meta(max_length=16)]


class Persistence(Model):
    """A volume of its own for /sandbox, which outlives the pod."""

    size: Annotated[Quantity, doc("Size of the PersistentVolumeClaim.")]
    storage_class_name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?\Z")] | None,
        doc("StorageClass of the claim; the cluster's default when absent."),
    ] = None
    reclaim: Annotated[
        Literal["Delete", "Retain"], doc("What becomes of the volume when the KarsSandbox is deleted.")
    ] = "Delete"

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.storageClassName) == has(oldSelf.storageClassName)"
            " && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            "the storage class of a volume cannot change",
        ),
    )


class Confinement(Model):
    """How the agent's container is confined."""

    isolation: Annotated[
        Isolation,
        doc(
            "standard: seccomp RuntimeDefault. enhanced: the profile of seccompProfile. confidential: a virtual machine"
            " (Kata). strict is an older name of enhanced."
        ),
    ] = "enhanced"
    seccomp_profile: Annotated[
        Annotated[str, Meta(max_length=128, pattern=r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?\Z")],
        doc("Profile file profiles/<name>.json on the node, for isolation enhanced; empty or RuntimeDefault for that."),
    ] = "kars-strict"
    selinux_context: Annotated[
        # An older schema filled in the four characters \"\" where it meant nothing; they still mean nothing.
        Annotated[str, Meta(max_length=256, pattern=r'^([-A-Za-z0-9_.:]*|\\"\\")\Z')],
        doc('SELinux type of the pod; none when empty. The four characters \\"\\" count as empty.'),
    ] = ""
    read_only_root_filesystem: Annotated[bool, doc("Whether the agent's root file system is read-only.")] = True
    run_as_non_root: Annotated[bool, doc("Whether the pod may only run as another user than root.")] = True
    allow_privilege_escalation: Annotated[
        bool, doc("Whether the agent's processes may gain privileges; keep it false.")
    ] = False
    writable_paths: Annotated[
        Annotated[tuple[Annotated[str, Meta(max_length=255, pattern=r"^/[-A-Za-z0-9_./]*\Z")], ...], unique(most=16)],
        doc("Directories that the agent may write to: each is mounted, empty, beside /sandbox and /tmp."),
    ] = ("/sandbox", "/tmp")  # noqa: S108 - a path in the agent's container
    persistence: Annotated[
        Persistence | None, doc("Keeps /sandbox on a volume of its own; without it, /sandbox goes with the pod.")
    ] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.writablePaths.all(p, !p.matches('^/(proc|sys|dev|etc/kars|etc/agt)?(/|$)') && !p.matches('[.][.]'))",
            "writable paths lie neither at / nor in /proc, /sys, /dev, /etc/kars or /etc/agt, and have no '..'",
            lambda self: not any(taken(path) for path in self.writable_paths),
            field="writablePaths",
        ),
    )


def taken(path: str) -> bool:
    """Whether a path is not the agent's to write to."""
    import re

    return ".." in path or re.search(TAKEN_PATHS, path) is not None


class Agent(Model):
    """The hosted agent that the sandbox fronts."""

    instructions: Annotated[
        Annotated[str, Meta(max_length=32768, pattern=PROSE)] | None,
        doc("What the agent is told first, as KARS_AGENT_INSTRUCTIONS."),
    ] = None
    tools: Annotated[
        Annotated[tuple[Identifier, ...], unique(most=64)],
        doc("Hosted tools, as FOUNDRY_AGENT_TOOLS (comma-separated)."),
    ] = ()
    file_ids: Annotated[
        Annotated[tuple[Identifier, ...], unique(most=256)],
        doc("Hosted files, as KARS_AGENT_FILE_IDS (comma-separated)."),
    ] = ()


class Governance(Model):
    """Which tool policy governs the agent, and whom it trusts on the mesh."""

    enabled: Annotated[bool, doc("Whether tool calls and mesh traffic are governed.")] = True
    tool_policy_ref: Annotated[NameRef | None, doc("The ToolPolicy; kars-default when absent.")] = None
    trust_threshold: Annotated[
        Annotated[int, Meta(ge=0, le=1000)], doc("Least trust score of a peer that the agent talks to.")
    ] = 500
    trusted_peers: Annotated[
        Annotated[str, Meta(max_length=8192, pattern=LINE)] | None,
        doc("Peers that are trusted from the start: name:AMID,name:AMID,..."),
    ] = None
    registry_mode: Annotated[
        Literal["local", "global"], doc("Whether the agent is known in this cluster only or to all.")
    ] = "local"
    mcp_server_ref: Annotated[NameRef | None, doc("Deprecated: use mcpServerRefs.")] = None
    mcp_server_refs: Annotated[
        Annotated[tuple[NameRef, ...], keyed("name", most=8)], doc("The McpServers that the agent may use.")
    ] = ()

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.mcpServerRef) || !has(self.mcpServerRefs) || self.mcpServerRefs.size() == 0",
            "mcpServerRef and mcpServerRefs are mutually exclusive; use mcpServerRefs",
            lambda self: self.mcp_server_ref is None or not self.mcp_server_refs,
        ),
    )


class AzureService(Model):
    """An Azure service that the sandbox's service account is annotated for."""

    service: Annotated[Identifier, doc("Name of the service.")]
    account: Annotated[Identifier | None, doc("Account of the service.")] = None
    permissions: Annotated[
        Annotated[tuple[Identifier, ...], unique(most=32)], doc("What the sandbox may do there.")
    ] = ()


class Endpoint(Model):
    """A destination that the agent may reach."""

    host: Annotated[HostName, doc("Host name, *.domain or address, without scheme or port.")]
    port: Annotated[Port | None, doc("TCP port; 443 when absent.")] = None
    name: Annotated[
        Annotated[str, Meta(min_length=1, max_length=253, pattern=LINE)] | None, doc("A label for people.")
    ] = None


class AllowlistRef(OciArtifactRef):
    """A signed egress allowlist."""

    artifact_type: Annotated[
        Literal["application/vnd.kars.egress-allowlist.v1+yaml"], doc("Media type of the artifact.")
    ]


class NetworkPolicy(Model):
    """What the agent may reach."""

    default_deny: Annotated[bool, doc("Always true: what nothing allows is denied.")] = True
    egress_mode: Annotated[
        Literal["Strict", "Learn"], doc("Strict denies what is not allowed; Learn lets it pass and records it.")
    ] = "Learn"
    allowed_endpoints: Annotated[
        Annotated[tuple[Endpoint, ...], Meta(max_length=512)],
        doc("Destinations that the agent may reach. With allowlistRef they are only compared with the artifact."),
    ] = ()
    allowlist_ref: Annotated[AllowlistRef | None, doc("The signed allowlist, which then decides.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.defaultDeny",
            "a sandbox always denies by default; leave defaultDeny out or set it to true",
            lambda self: self.default_deny,
            field="defaultDeny",
        ),
    )


class ResourceNeeds(Model):
    """CPU, memory and other resources of the agent's container, instead of the defaults."""

    requests: Annotated[Resources, doc("What is reserved.")] = empty()
    limits: Annotated[Resources, doc("What may be used at most.")] = empty()


class A2A(Model):
    """How the sandbox shows itself to other agents."""

    enabled: Annotated[bool, doc("Whether the card is served.")] = False
    agent_ref: Annotated[NameRef | None, doc("The A2AAgent whose card the router serves.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.enabled || has(self.agentRef)",
            "a2a.agentRef is required when a2a.enabled is true",
            lambda self: not self.enabled or self.agent_ref is not None,
            field="agentRef",
            reason="FieldValueRequired",
        ),
    )


class MeshAuth(Model):
    """How the sandbox proves itself on the mesh."""

    mode: Annotated[
        Literal["auto", "agent-id", "anonymous"],
        doc("agent-id: an Entra agent identity. auto: that where the KarsAuthConfig is ready, else anonymous."),
    ] = "auto"


ProviderName = Literal["vendored", "agt", "null", "noop", "disabled", "none"]


class AgtProviders(Model):
    """Providers by seam; a sandbox that names null, noop, disabled or none is only admitted as dev-only."""

    mesh: Annotated[ProviderName | None, doc("Provider of the mesh.")] = None
    policy: Annotated[ProviderName | None, doc("Provider of policy decisions.")] = None
    audit: Annotated[ProviderName | None, doc("Provider of the audit log.")] = None
    signing: Annotated[ProviderName | None, doc("Provider of signatures.")] = None


class Agt(Model):
    """Declares providers for the admission policy; the built-in ones always run."""

    providers: Annotated[AgtProviders | None, doc("Providers by seam.")] = None


class KarsSandboxSpec(Model):
    """One agent and the box around it."""

    runtime: Annotated[Runtime, doc("Which agent runs, and how.")]
    sandbox: Annotated[Confinement, doc("How it is confined.")]
    inference_ref: Annotated[NameRef, doc("The InferencePolicy that decides about its model calls.")]
    memory_ref: Annotated[NameRef | None, doc("The KarsMemory that it remembers in.")] = None
    agent: Annotated[Agent | None, doc("The hosted agent that it fronts.")] = None
    governance: Annotated[
        Governance | None, doc("Its tool policy and peers; absent means enabled, with the policy kars-default.")
    ] = None
    azure_services: Annotated[
        Annotated[tuple[AzureService, ...], Meta(max_length=32)], doc("Azure services that it uses.")
    ] = ()
    network_policy: Annotated[NetworkPolicy | None, doc("What it may reach.")] = None
    resources: Annotated[ResourceNeeds | None, doc("Resources of the agent's container.")] = None
    suspended: Annotated[bool, doc("Whether it sleeps: everything stays but the pod.")] = False
    a2a: Annotated[A2A | None, doc("How it shows itself to other agents.")] = None
    mesh_auth: Annotated[MeshAuth | None, doc("How it proves itself on the mesh.")] = None
    agt: Annotated[Agt | None, doc("Providers, for the admission policy.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.runtime.kind != 'BYO' || !has(self.agent)",
            "agent cannot be combined with runtime.kind BYO",
            lambda self: self.runtime.kind != "BYO" or self.agent is None,
            field="agent",
        ),
    )


class TokensUsed(Model):
    """Tokens since the sandbox was made."""

    input: Annotated[Count | None, doc("Tokens sent to models.")] = None
    output: Annotated[Count | None, doc("Tokens that models answered.")] = None


class AgentIdentity(Model):
    """The sandbox's Entra agent identity."""

    app_id: Annotated[Words, doc("Application (client) id.")]
    object_id: Annotated[Words, doc("Object id.")]
    display_name: Annotated[Words, doc("Display name.")]
    created_at: Annotated[Time | None, doc("When it was made.")] = None


class KarsSandboxStatus(Model):
    """What is known of the sandbox."""

    phase: Annotated[
        Literal["Pending", "Creating", "Running", "Failed", "Terminating", "Degraded"] | None,
        doc("A summary for people; the conditions say more."),
    ] = None
    conditions: Conditions = ()
    sandbox_pod: Annotated[Words | None, doc("Pods of the sandbox.")] = None
    namespace: Annotated[Words | None, doc("Namespace of the sandbox's own objects: kars-<name>.")] = None
    inference_endpoint: Annotated[Words | None, doc("Where the sandbox's router listens.")] = None
    tokens_used: Annotated[TokensUsed | None, doc("Tokens since the sandbox was made.")] = None
    foundry_agent_id: Annotated[Words | None, doc("Id of the hosted agent.")] = None
    runtime_kind: Annotated[RuntimeKind | None, doc("The runtime that runs.")] = None
    observed_generation: ObservedGeneration = None
    agent_identity: Annotated[AgentIdentity | None, doc("Its Entra agent identity.")] = None


class KarsSandbox(Resource):
    """An AI agent in a hardened pod of its own, whose only way out is the router beside it."""

    NAMES: ClassVar[Names] = Names(
        plural="karssandboxes",
        short="cs",
        also=("ksb",),
        columns=(
            PHASE,
            Column("Runtime", ".spec.runtime.kind"),
            Column("InferencePolicy", ".spec.inferenceRef.name"),
            Column("Isolation", ".spec.sandbox.isolation"),
            Column("Allowlist", '.status.conditions[?(@.type=="AllowlistAuthoritative")].status', priority=1),
            AGE,
            *WHY,
        ),
        longest=SANDBOX_NAME_LENGTH,
        pattern=LABEL,
    )
    # Its namespace would be the controller's own. `sre` is the chart's, which a label tells and a schema cannot see.
    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.metadata.name != 'system'",
            "the name system is reserved: its namespace is the controller's own",
            lambda self: self.metadata.name != "system",
            field="metadata.name",
            reason="FieldValueForbidden",
        ),
    )

    spec: Annotated[KarsSandboxSpec, doc("What is wanted.")]
    status: Annotated[KarsSandboxStatus | None, doc("What is.")] = None
