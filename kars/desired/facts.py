"""What is known of the world when a sandbox is planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from kars.errors import ResourceError
from kars.model.sandbox import Endpoint, Governance, KarsSandbox
from kars.settings.controller import Platform


class Unplannable(ResourceError):
    """No pod can be made of a sandbox that the schema lets pass; `reason` is for its conditions.

    AdapterMissing: there is no adapter for the runtime. SpecInvalid: fields that do not go together, or that this
    cluster cannot serve; the text names them.
    """

    def __init__(self, reason: Literal["AdapterMissing", "SpecInvalid"], message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A ConfigMap or Secret of the resource's namespace that the sandbox is given a copy of."""

    kind: Literal["ConfigMap", "Secret"]
    name: str
    namespace: str
    data: dict[str, str]  # of a Secret: base64, as the API has it
    binary_data: dict[str, str] = msgspec.field(default_factory=dict)
    type: str = ""  # of a Secret
    # The resource that it was made for: kind and name, for the copy's label.
    owner_kind: str = ""
    owner_name: str = ""

    def __repr__(self) -> str:  # a Secret's data must not get into a log
        return f"Source({self.kind} {self.namespace}/{self.name})"


class McpFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An McpServer that the sandbox is given."""

    name: str
    keys: Source  # the ConfigMap mcp-<name>-jwks
    signing: Source | None = None  # the Secret mcp-<name>-signing
    bearer_from_env: str = ""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the InferencePolicy says that the pod's variables repeat."""

    deployment: str
    provider: str = ""
    endpoint: str = ""  # the policy's own base URL, over the platform's


class IdentityFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The sandbox's Entra agent identity, where it has one."""

    app_id: str
    tenant_id: str
    sidecar_url: str = "http://entra-auth-sidecar.kars-system.svc:5000"
    # Whether it is what the mesh asks for: KarsAuthConfig meshAuthBackend EntraAgentIdentity, and its audience.
    mesh: bool = False
    mesh_audience: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a plan depends on."""

    sandbox: KarsSandbox
    platform: Platform
    model: ModelFacts
    inference: Source  # the ConfigMap inferencepolicy-<name>-profile
    # The ToolPolicy that governs (kars-default when none is named); None without governance.
    tools: Source | None = None
    memory: Source | None = None
    mcp: tuple[McpFacts, ...] = ()
    card: Source | None = None
    # This sandbox's slice of the trust graphs: the text of graph.json, joined version hashes, number of edges.
    trust: tuple[str, str, int] | None = None
    # The endpoints in force (inline or from the signed artifact) and the allowlist document made of them.
    endpoints: tuple[Endpoint, ...] = ()
    allowlist: bytes = b""
    # `sha256:<hex>` of that document as kars.policy.compiled makes it, for the ConfigMap's annotation.
    allowlist_digest: str = ""
    # The platform's development keys (Secret `credentials_secret`) and blocklist (ConfigMap `blocklist_config_map`, key
    # domains.txt), where they are configured and there.
    credentials: Source | None = None
    blocklist: Source | None = None
    # Tokens that are to be written now, by Secret name; a Secret that stands already is not in here.
    new_tokens: dict[str, str] = msgspec.field(default_factory=dict)
    identity: IdentityFacts | None = None
    # Children that this sandbox spawned, so that its account may read and delete those and no others.
    children: tuple[str, ...] = ()
    # How many parents it has above it: 0 for one that is nobody's child.
    generation: int = 0
    # Images by what the spec names, pinned by digest, where signatures are required.
    pinned: dict[str, str] = msgspec.field(default_factory=dict)
    # What the cluster can do: native sidecars (1.29 and newer), images as volumes (1.35 and newer, or switched on
    # since 1.33), `sleep` before a container is stopped (1.30 and newer).
    native_sidecars: bool = True
    image_volumes: bool = False
    sleep_actions: bool = True
    # API server as pods see it, for the sandbox that may reach it (label kars.azure.com/role=sre).
    api_server: tuple[str, int] = ("10.96.0.1", 443)
    # Where connections to that Service end up (EndpointSlice default/kubernetes): a CNI judges those.
    api_endpoints: tuple[tuple[str, int], ...] = ()
    # Whether the label that asks for the API server may be honoured: only the chart's own `sre` sandbox.
    sre: bool = False

    def __repr__(self) -> str:  # tokens must not get into a log
        return f"Facts({self.sandbox.metadata.namespace}/{self.name})"

    @property
    def name(self) -> str:
        """The sandbox's name."""
        return self.sandbox.metadata.name

    @property
    def governance(self) -> Governance:
        """The governance block; absent means enabled, with every default."""
        return self.sandbox.spec.governance or Governance()

    @property
    def platform_keys(self) -> Mapping[str, str]:
        """The keys of the platform's Secret; none where the policy names an endpoint of its own."""
        return {} if self.credentials is None or self.model.endpoint else self.credentials.data

    @property
    def spawns(self) -> bool:
        """Whether the router may make sandboxes: only where a tool policy can say no, and never for the SRE's.

        Nor where no child could be made, since there may be none, or none of so deep a generation.
        """
        platform = self.platform
        bound = platform.max_children > 0 and self.generation < platform.max_generations
        return platform.spawn and bound and self.governance.enabled and not self.sre
