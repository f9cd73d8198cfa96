"""ToolPolicy: what an agent's tools may do."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kars.model.base import AGE, PHASE, WHY, Column, Model, Names, Resource, Rule, doc, unique
from kars.model.common import (
    Conditions,
    DisplayName,
    Identifier,
    Labels,
    Line,
    ObservedGeneration,
    OciArtifactRef,
    Small,
    Time,
    Words,
    label_keys,
)

# A decimal amount and an ISO 4217 code, in either order: "100.00 USD", "USD 100".
Money = Annotated[
    str, Meta(max_length=32, pattern=r"^([0-9]+(\.[0-9]{1,4})?( ?[A-Z]{3})?|[A-Z]{3} ?[0-9]+(\.[0-9]{1,4})?)\Z")
]


class ToolTarget(Model):
    """What a policy is about."""

    sandbox_match_labels: Annotated[Labels, doc("Labels of the sandboxes that it is for; at least one.")]
    tool: Annotated[Identifier | None, doc("The tool; * for any.")] = None
    mcp_server: Annotated[Identifier | None, doc("The McpServer whose tools it is about.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.sandboxMatchLabels.size() > 0",
            "appliesTo.sandboxMatchLabels needs at least one label",
            lambda self: len(self.sandbox_match_labels) > 0,
            field="sandboxMatchLabels",
        ),
        label_keys("sandboxMatchLabels"),
    )


class ToolBundleRef(OciArtifactRef):
    """A signed tool profile."""

    artifact_type: Annotated[Literal["application/vnd.kars.agt-profile.v1+yaml"], doc("Media type of the artifact.")]


class AgtProfile(Model):
    """The rules for tool calls."""

    inline: Annotated[
        Annotated[str, Meta(max_length=524288)] | None, doc("The profile as YAML, published byte for byte.")
    ] = None
    bundle_ref: Annotated[ToolBundleRef | None, doc("The signed artifact that has it instead.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.inline) && has(self.bundleRef))",
            "agtProfile has inline or bundleRef, not both",
            lambda self: self.inline is None or self.bundle_ref is None,
        ),
    )


class Approval(Model):
    """When a person has to say yes first."""

    mode: Annotated[
        Literal["never", "always", "aboveThreshold", "auto", "human"] | None,
        doc("never (older name: auto), always (older name: human), or aboveThreshold."),
    ] = None
    threshold: Annotated[Money | None, doc("Amount above which a person is asked.")] = None
    channel: Annotated[Line | None, doc("Where a person is asked.")] = None


class Commerce(Model):
    """What may be spent by tools."""

    daily_cap: Annotated[Money | None, doc("Most per day.")] = None
    monthly_cap: Annotated[Money | None, doc("Most per month.")] = None
    per_transfer_cap: Annotated[Money | None, doc("Most at once.")] = None
    counterparty_allowlist: Annotated[
        Annotated[tuple[Identifier, ...], unique(most=256)], doc("Who may be paid; nobody when empty.")
    ] = ()


class RateLimit(Model):
    """How often tools may be called."""

    rps: Annotated[Small | None, doc("Calls per second in the long run.")] = None
    burst: Annotated[Small | None, doc("Calls at once.")] = None
    window: Annotated[
        Annotated[str, Meta(max_length=32, pattern=r"^[0-9]+(ms|s|m|h|d)\Z")] | None,
        doc("Span over which calls are counted, such as 1m."),
    ] = None


class ToolPolicySpec(Model):
    """What tools may do."""

    applies_to: Annotated[ToolTarget, doc("What the policy is about.")]
    agt_profile: Annotated[AgtProfile | None, doc("The rules for tool calls.")] = None
    approval: Annotated[Approval | None, doc("When a person has to say yes first.")] = None
    commerce: Annotated[Commerce | None, doc("What may be spent.")] = None
    rate_limit: Annotated[RateLimit | None, doc("How often tools may be called.")] = None
    display_name: Annotated[DisplayName | None, doc("A name for people.")] = None


class ToolPolicyStatus(Model):
    """What is known of the policy."""

    phase: Annotated[Literal["Pending", "Compiled", "Ready", "Degraded"] | None, doc("A summary for people.")] = None
    observed_generation: ObservedGeneration = None
    conditions: Conditions = ()
    last_compiled_at: Annotated[Time | None, doc("When it was compiled.")] = None
    agt_profile_digest: Annotated[Words | None, doc("Digest of the profile.")] = None
    agt_profile_bundle_digest: Annotated[Words | None, doc("Digest of the artifact that was used.")] = None


class ToolPolicy(Resource):
    """What an agent's tools may do, how often, and for how much."""

    NAMES: ClassVar[Names] = Names(
        plural="toolpolicies",
        short="tp",
        columns=(
            Column("Tool", ".spec.appliesTo.tool"),
            Column("DailyCap", ".spec.commerce.dailyCap"),
            PHASE,
            AGE,
            *WHY,
        ),
    )

    spec: Annotated[ToolPolicySpec, doc("What is wanted.")]
    status: Annotated[ToolPolicyStatus | None, doc("What is.")] = None
