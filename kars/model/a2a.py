"""A2AAgent: the card of an agent that others may talk to."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kars.model.base import AGE, PHASE, WHY, Column, Model, Names, Resource, Rule, doc, keyed, unique
from kars.model.common import (
    PROSE,
    Conditions,
    Count,
    DisplayName,
    HttpsUrl,
    Identifier,
    Name,
    NameRef,
    ObservedGeneration,
    Small,
    Time,
    Url,
    Words,
)

# 32 bytes as base64url without padding: 43 characters, of which the last has only four bits.
ED25519_PUBLIC = r"^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]\Z"


class SigningKey(Model):
    """A key that the agent signs with."""

    kid: Annotated[Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[!-~]+\Z")], doc("Id of the key.")]
    alg: Annotated[Literal["EdDSA"], doc("Algorithm; EdDSA is the only one.")]
    public_key_b64u: Annotated[
        Annotated[str, Meta(max_length=43, pattern=ED25519_PUBLIC)],
        doc("The Ed25519 public key: 32 bytes as base64url without padding."),
    ]
    not_after: Annotated[Count | None, doc("When it ends, in seconds since 1970.")] = None


class A2ATrust(Model):
    """What a request to the agent must bring."""

    require_signed_requests: Annotated[bool, doc("Whether it must be signed.")] = False
    min_signatures_required: Annotated[Small | None, doc("How many signatures it needs.")] = None
    max_clock_skew_seconds: Annotated[
        Annotated[int, Meta(ge=0, le=86400, extra_json_schema={"format": "int64"})] | None,
        doc("How far its time may be off, in seconds."),
    ] = None


class Peer(Model):
    """Another agent that this one works with."""

    kind: Annotated[Literal["in-cluster", "external"], doc("Whether it is an A2AAgent of this cluster.")]
    label: Annotated[DisplayName, doc("A name for people.")]
    agent_ref: Annotated[Name | None, doc("Name of the A2AAgent, of one in the cluster.")] = None
    endpoint_url: Annotated[HttpsUrl | None, doc("Where it listens, of one outside.")] = None
    pinned_kid: Annotated[Identifier | None, doc("Id of the key that it must sign with, of one outside.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.kind != 'in-cluster' || (has(self.agentRef) && !has(self.endpointUrl))",
            "a peer in the cluster has agentRef and no endpointUrl",
            lambda self: self.kind != "in-cluster" or (self.agent_ref is not None and self.endpoint_url is None),
        ),
        Rule(
            "self.kind != 'external' || (has(self.endpointUrl) && has(self.pinnedKid) && !has(self.agentRef))",
            "an external peer has endpointUrl and pinnedKid and no agentRef",
            lambda self: (
                self.kind != "external"
                or (self.endpoint_url is not None and self.pinned_kid is not None and self.agent_ref is None)
            ),
        ),
    )


class PolicyRefs(Model):
    """Policies that the card names."""

    tool_policy: Annotated[Name | None, doc("Name of a ToolPolicy.")] = None


class A2AAgentSpec(Model):
    """What stands on the card."""

    endpoint_url: Annotated[Url, doc("Where the agent listens.")]
    signing_keys: Annotated[
        Annotated[tuple[SigningKey, ...], Meta(min_length=1), keyed("kid", most=16)], doc("Keys that it signs with.")
    ]
    display_name: Annotated[DisplayName | None, doc("A name for people.")] = None
    description: Annotated[Annotated[str, Meta(max_length=4096, pattern=PROSE)] | None, doc("What the agent does.")] = (
        None
    )
    production_mode: Annotated[bool, doc("Whether https is required.")] = False
    capabilities: Annotated[Annotated[tuple[Identifier, ...], unique(most=64)], doc("What the agent can do.")] = ()
    trust: Annotated[A2ATrust | None, doc("What a request to it must bring.")] = None
    federation: Annotated[Annotated[tuple[Peer, ...], Meta(max_length=64)], doc("Agents that it works with.")] = ()
    policy_refs: Annotated[PolicyRefs | None, doc("Policies that the card names.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!self.productionMode || self.endpointUrl.startsWith('https://')",
            "in production mode endpointUrl must begin with https://",
            lambda self: not self.production_mode or self.endpoint_url.startswith("https://"),
            field="endpointUrl",
        ),
    )


class A2AAgentStatus(Model):
    """What is known of the card."""

    phase: Annotated[Literal["Pending", "Compiled", "Ready", "Degraded"] | None, doc("A summary for people.")] = None
    observed_generation: ObservedGeneration = None
    conditions: Conditions = ()
    agent_card_config_map_ref: Annotated[NameRef | None, doc("The ConfigMap of the card.")] = None
    version_hash: Annotated[Words | None, doc("First 32 hex digits of the card's SHA-256.")] = None
    last_compiled_at: Annotated[Time | None, doc("When it was compiled.")] = None


class A2AAgent(Resource):
    """The card of an agent that others may talk to."""

    NAMES: ClassVar[Names] = Names(
        plural="a2aagents",
        short="a2a",
        columns=(
            Column("Endpoint", ".spec.endpointUrl"),
            Column("Production", ".spec.productionMode", "boolean"),
            PHASE,
            AGE,
            *WHY,
        ),
    )

    spec: Annotated[A2AAgentSpec, doc("What is wanted.")]
    status: Annotated[A2AAgentStatus | None, doc("What is.")] = None
