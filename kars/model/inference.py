"""InferencePolicy: which models a sandbox may call, how much, and how safely."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from kars.model.base import AGE, PHASE, WHY, Column, Model, Names, Resource, Rule, doc
from kars.model.common import (
    VISIBLE,
    Conditions,
    Count,
    DisplayName,
    Labels,
    NameRef,
    ObservedGeneration,
    OciArtifactRef,
    SandboxName,
    Time,
    Url,
    Words,
    empty,
    label_keys,
)

Severity = Literal["Safe", "Low", "Medium", "High"]
Provider = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]*\Z")]
Deployment = Annotated[str, Meta(min_length=1, max_length=256, pattern=VISIBLE)]


class InferenceTarget(Model):
    """What a policy is about."""

    sandbox_name: Annotated[SandboxName | None, doc("The sandbox that it is for.")] = None
    sandbox_match_labels: Annotated[Labels, doc("Labels of the sandboxes that it is for.")] = empty()
    action: Annotated[
        Literal["chat", "responses", "image", "embeddings", "*"] | None, doc("The calls that it is about; * for all.")
    ] = None

    RULES: ClassVar[tuple[Rule, ...]] = (label_keys("sandboxMatchLabels"),)


class TokenBudget(Model):
    """How many tokens may be spent; 0 or absent means no limit."""

    per_request_tokens: Annotated[Count | None, doc("Most output tokens that one call may ask for.")] = None
    daily_tokens: Annotated[Count | None, doc("Input and output per UTC day.")] = None
    monthly_tokens: Annotated[Count | None, doc("Input and output per UTC month.")] = None


class ContentSafety(Model):
    """The highest severity that passes, by category."""

    hate: Annotated[Severity | None, doc("Hate.")] = None
    self_harm: Annotated[Severity | None, doc("Self-harm.")] = None
    sexual: Annotated[Severity | None, doc("Sexual content.")] = None
    violence: Annotated[Severity | None, doc("Violence.")] = None
    require_prompt_shields: Annotated[
        bool | None, doc("Whether answers without the provider's prompt annotations are refused; true when absent.")
    ] = None


class ModelRef(Model):
    """A model at a provider."""

    provider: Annotated[
        Provider,
        doc("The provider: azure-openai, foundry-project, openai, anthropic, github-models, ollama, vllm, ..."),
    ]
    deployment: Annotated[Deployment, doc("The model's or deployment's name there.")]


class PrimaryModel(ModelRef):
    """The model that serves."""

    endpoint: Annotated[
        Url | None,
        doc("Base URL of the provider for the sandboxes of this policy; the controller's own when absent."),
    ] = None


class ModelPreference(Model):
    """Which models serve, in order."""

    primary: Annotated[PrimaryModel, doc("The model that serves.")]
    fallback: Annotated[
        Annotated[tuple[ModelRef, ...], Meta(max_length=16)], doc("Models that serve when it fails, in order.")
    ] = ()


class InferenceBundleRef(OciArtifactRef):
    """A signed inference policy."""

    artifact_type: Annotated[
        Literal["application/vnd.kars.inference-policy.v1+json"], doc("Media type of the artifact.")
    ]


class InferencePolicySpec(Model):
    """Models, budgets and safety: here, or in a signed artifact."""

    applies_to: Annotated[InferenceTarget, doc("What the policy is about.")]
    token_budget: Annotated[TokenBudget | None, doc("How many tokens may be spent.")] = None
    content_safety: Annotated[ContentSafety | None, doc("What content passes.")] = None
    model_preference: Annotated[ModelPreference | None, doc("Which models serve.")] = None
    display_name: Annotated[DisplayName | None, doc("A name for people.")] = None
    bundle_ref: Annotated[InferenceBundleRef | None, doc("The signed artifact that says all this instead.")] = None

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.bundleRef) || !(has(self.tokenBudget) || has(self.contentSafety) || has(self.modelPreference)"
            " || has(self.displayName))",
            "bundleRef excludes tokenBudget, contentSafety, modelPreference and displayName",
            lambda self: (
                self.bundle_ref is None
                or all(
                    part is None
                    for part in (self.token_budget, self.content_safety, self.model_preference, self.display_name)
                )
            ),
            field="bundleRef",
        ),
        Rule(
            "!has(self.tokenBudget) || !has(self.tokenBudget.monthlyTokens) || !has(self.tokenBudget.dailyTokens)"
            " || self.tokenBudget.monthlyTokens == 0 || self.tokenBudget.monthlyTokens >= self.tokenBudget.dailyTokens",
            "tokenBudget.monthlyTokens must be at least dailyTokens",
            lambda self: (
                self.token_budget is None or at_least(self.token_budget.monthly_tokens, self.token_budget.daily_tokens)
            ),
            field="tokenBudget",
        ),
        Rule(
            "!has(self.tokenBudget) || !has(self.tokenBudget.monthlyTokens) || !has(self.tokenBudget.perRequestTokens)"
            " || self.tokenBudget.monthlyTokens == 0"
            " || self.tokenBudget.monthlyTokens >= self.tokenBudget.perRequestTokens",
            "tokenBudget.monthlyTokens must be at least perRequestTokens",
            lambda self: (
                self.token_budget is None
                or at_least(self.token_budget.monthly_tokens, self.token_budget.per_request_tokens)
            ),
            field="tokenBudget",
        ),
    )


def at_least(most: int | None, part: int | None) -> bool:
    """Whether a budget holds a part of it; 0 is no limit."""
    return not most or part is None or most >= part


class InferencePolicyStatus(Model):
    """What is known of the policy."""

    phase: Annotated[Literal["Pending", "Compiled", "Ready", "Degraded"] | None, doc("A summary for people.")] = None
    observed_generation: ObservedGeneration = None
    conditions: Conditions = ()
    profile_config_map_ref: Annotated[NameRef | None, doc("The ConfigMap of the compiled policy.")] = None
    version_hash: Annotated[Words | None, doc("First 32 hex digits of the compiled policy's SHA-256.")] = None
    last_compiled_at: Annotated[Time | None, doc("When it was compiled.")] = None
    compiled_digest: Annotated[Words | None, doc("Digest of the compiled policy.")] = None
    loaded_digest: Annotated[Words | None, doc("Digest that every router of the policy has in force.")] = None
    bundle_ref_digest: Annotated[Words | None, doc("Digest of the artifact that was used.")] = None


class InferencePolicy(Resource):
    """Which models a sandbox may call, how much, and how safely."""

    NAMES: ClassVar[Names] = Names(
        plural="inferencepolicies",
        short="ip",
        also=("kip",),
        columns=(
            Column("Sandbox", ".spec.appliesTo.sandboxName"),
            Column("DailyTokens", ".spec.tokenBudget.dailyTokens", "integer"),
            PHASE,
            AGE,
            *WHY,
        ),
    )

    spec: Annotated[InferencePolicySpec, doc("What is wanted.")]
    status: Annotated[InferencePolicyStatus | None, doc("What is.")] = None
