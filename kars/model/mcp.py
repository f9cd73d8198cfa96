"""McpServer: an MCP server that agents may use through the router."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kars.model.base import AGE, PHASE, WHY, Column, Model, Names, Resource, Rule, doc, unique
from kars.model.common import (
    Conditions,
    DisplayName,
    EnvName,
    Identifier,
    Labels,
    NameRef,
    ObservedGeneration,
    OciArtifactRef,
    Time,
    Url,
    Words,
    empty,
    label_keys,
)


class OAuth(Model):
    """Who issues tokens for the server."""

    issuer: Annotated[Annotated[str, Meta(max_length=2048)], doc("Issuer; its key set is fetched in production mode.")]
    audience: Annotated[Identifier | None, doc("Audience that a token must have.")] = None
    resource: Annotated[Identifier | None, doc("Resource that a token is asked for (RFC 8707).")] = None
    pkce: Annotated[Literal["S256"], doc("PKCE method; S256 is the only one.")] = "S256"


class AllowedSandboxes(Model):
    """Which sandboxes may use the server."""

    match_labels: Annotated[Labels, doc("Labels that a KarsSandbox must have to be given the server.")] = empty()

    RULES: ClassVar[tuple[Rule, ...]] = (label_keys("matchLabels"),)


class McpBundleRef(OciArtifactRef):
    """A signed server description."""

    artifact_type: Annotated[
        Literal["application/vnd.kars.mcp-server-bundle.v1+json"], doc("Media type of the artifact.")
    ]


class McpServerSpec(Model):
    """Where the server is and what of it may be used: here, or in a signed artifact."""

    url: Annotated[Url | None, doc("URL of the server.")] = None
    oauth: Annotated[OAuth | None, doc("Who issues tokens for the server.")] = None
    production_mode: Annotated[
        bool | None, doc("Whether https and tokens of the issuer are required; false when absent.")
    ] = None
    scopes: Annotated[Annotated[tuple[Identifier, ...], unique(most=64)], doc("Scopes that a token is asked for.")] = ()
    allowed_tools: Annotated[
        Annotated[tuple[Identifier, ...], unique(most=512)],
        doc('Tools that may be called; none when empty, ["*"] for all.'),
    ] = ()
    allowed_sandboxes: Annotated[
        AllowedSandboxes | None, doc("Which sandboxes may use it; all of the namespace when absent.")
    ] = None
    bearer_from_env: Annotated[
        EnvName | None, doc("Variable of the router's container whose value is sent as bearer token.")
    ] = None
    display_name: Annotated[DisplayName | None, doc("A name for people.")] = None
    bundle_ref: Annotated[McpBundleRef | None, doc("The signed artifact that says all this instead.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.productionMode) || !self.productionMode || has(self.bundleRef)"
            " || (has(self.url) && self.url.startsWith('https://'))",
            "in production mode url must begin with https://",
            lambda self: (
                not self.production_mode or self.bundle_ref is not None or (self.url or "").startswith("https://")
            ),
            field="url",
        ),
        Rule(
            "!has(self.productionMode) || !self.productionMode || has(self.bundleRef)"
            " || (has(self.oauth) && self.oauth.issuer.size() > 0)",
            "in production mode oauth.issuer must not be empty",
            lambda self: (
                not self.production_mode
                or self.bundle_ref is not None
                or (self.oauth is not None and self.oauth.issuer != "")
            ),
            field="oauth",
        ),
        Rule(
            "!has(self.bundleRef) || !(has(self.url) || has(self.oauth) || has(self.productionMode)"
            " || (has(self.scopes) && self.scopes.size() > 0)"
            " || (has(self.allowedTools) && self.allowedTools.size() > 0) || has(self.displayName))",
            "bundleRef excludes url, oauth, productionMode, scopes, allowedTools and displayName",
            lambda self: (
                self.bundle_ref is None
                or not (
                    self.scopes
                    or self.allowed_tools
                    or any(part is not None for part in (self.url, self.oauth, self.production_mode, self.display_name))
                )
            ),
            field="bundleRef",
        ),
    )


class McpServerStatus(Model):
    """What is known of the server."""

    phase: Annotated[Literal["Pending", "Ready", "Degraded", "Unknown"] | None, doc("A summary for people.")] = None
    observed_generation: ObservedGeneration = None
    conditions: Conditions = ()
    last_probed_at: Annotated[Time | None, doc("When its key set was last fetched.")] = None
    signing_key_ref: Annotated[NameRef | None, doc("The Secret of the router's signing key.")] = None
    jwks_config_map_ref: Annotated[NameRef | None, doc("The ConfigMap of the issuer's key set.")] = None
    bundle_ref_digest: Annotated[Words | None, doc("Digest of the artifact that was used.")] = None


class McpServer(Resource):
    """An MCP server that agents may use through the router."""

    NAMES: ClassVar[Names] = Names(
        plural="mcpservers",
        short="mcp",
        columns=(
            Column("URL", ".spec.url"),
            Column("Production", ".spec.productionMode", "boolean"),
            PHASE,
            AGE,
            *WHY,
        ),
    )

    spec: Annotated[McpServerSpec, doc("What is wanted.")]
    status: Annotated[McpServerStatus | None, doc("What is.")] = None
