"""InferencePolicy: `inference-policy.json`, which the router enforces and whose digest it reports.

The router refuses a rule that can never decide anything; the resource's schema does not. Where the effect is the same,
the document is written so that the router takes it (`serving`, `budget`), and the notes say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import msgspec

from kars.kube.types import Object
from kars.model.base import GROUP
from kars.model.inference import (
    ContentSafety,
    InferencePolicy,
    InferencePolicySpec,
    ModelPreference,
    ModelRef,
    Severity,
    TokenBudget,
)
from kars.policy.compiled.canonical import compact, digest, version_hash
from kars.policy.compiled.outcome import Compiled, Given, Unfit, config_map, merged, namespace_of

FILE = "inference-policy.json"
# What an artifact says in the resource's place.
SUPPLIED = ("tokenBudget", "contentSafety", "modelPreference", "displayName")
# How severe content is, from the least.
LEVELS: tuple[Severity, ...] = get_args(Severity)
DEV_ONLY = f"{GROUP}/dev-only"
# Names that stand for having no provider, and so none of its safeguards.
NO_PROVIDERS = frozenset({"null", "noop", "disabled", "none"})
# Longest text that the router takes, in bytes: a name of 256 characters can have four times as many.
NAME_BYTES = 512
# The router's providers and their other names (router_core/providers). It asks the first that is configured where a
# policy names another.
PROVIDERS = frozenset(
    {
        "anthropic",
        "azure",
        "azure-openai",
        "foundry",
        "foundry-project",
        "github",
        "github-models",
        "ollama",
        "openai",
        "openai-compatible",
        "vllm",
    }
)


def render(policy: InferencePolicy, given: Given) -> Compiled:
    """Return the ConfigMap `inferencepolicy-<name>-profile` and its digest."""
    spec = policy.spec
    if spec.bundle_ref is not None:
        spec = merged(spec, given, supplied=SUPPLIED)
        check_artifact(policy, spec, given.safety_floor)
    notes: list[str] = []
    body = compact(document(spec, notes))
    stamp, version = digest([(FILE, body)]), version_hash(body)
    name = f"inferencepolicy-{policy.metadata.name}-profile"
    made = config_map(
        name,
        namespace=namespace_of(policy, given),
        labels={"inferencepolicy": policy.metadata.name, "artifact": "inference-policy-profile"},
        annotations={"inferencepolicy-version-hash": version, "inference-policy-digest": stamp},
        data={FILE: body},
    )
    status = {"profileConfigMapRef": {"name": name}, "versionHash": version, "compiledDigest": stamp}
    if policy.spec.bundle_ref is not None:
        status["bundleRefDigest"] = given.bundle_digest
    return Compiled(
        objects=(made,),
        digest=stamp,
        version_hash=version,
        echo_kind="InferencePolicy",
        status=status,
        notes=tuple(notes),
    )


def check_artifact(policy: InferencePolicy, spec: InferencePolicySpec, floor: Severity) -> None:
    """Refuse an artifact that says what the cluster would not let anyone write out; `Unfit`.

    The admission policies kars-content-safety-floor and kars-null-provider-block ask the same of what is written out,
    and have the same exception.
    """
    if policy.metadata.labels.get(DEV_ONLY) == "true":
        return
    wrong = [*too_severe(spec.content_safety, floor), *without_provider(spec.model_preference)]
    if wrong:
        exception = f"; that is only for resources with the label {DEV_ONLY}=true"
        raise Unfit("SpecInvalid", f"the artifact's {'; '.join(wrong)}{exception}")


def too_severe(safety: ContentSafety | None, floor: Severity) -> Iterator[str]:
    """Tell each category that lets more severe content pass than the installation does."""
    for category in msgspec.structs.fields(ContentSafety) if safety else ():
        level = getattr(safety, category.name)
        if level in LEVELS and LEVELS.index(level) > LEVELS.index(floor):
            yield f"contentSafety.{category.encode_name} is {level} and may be {floor} at most"


def without_provider(models: ModelPreference | None) -> Iterator[str]:
    """Tell each model whose provider is none."""
    for model in (models.primary, *models.fallback) if models else ():
        if model.provider.lower() in NO_PROVIDERS:
            yield f"modelPreference names the provider {model.provider}"


def document(spec: InferencePolicySpec, notes: list[str]) -> Object:
    """Return the document; the order of its members is part of the digest."""
    target, safety = spec.applies_to, spec.content_safety
    return {
        "appliesTo": {
            "sandboxName": target.sandbox_name,
            "sandboxMatchLabels": dict(sorted(target.sandbox_match_labels.items())),
            "action": target.action,
        },
        "tokenBudget": None if spec.token_budget is None else budget(spec.token_budget, notes),
        "contentSafety": safety
        and {
            "hate": safety.hate,
            "selfHarm": safety.self_harm,
            "sexual": safety.sexual,
            "violence": safety.violence,
            "requirePromptShields": safety.require_prompt_shields,
        },
        "modelPreference": None if spec.model_preference is None else serving(spec.model_preference, notes),
        "displayName": spec.display_name and shortened(spec.display_name),
    }


def budget(tokens: TokenBudget, notes: list[str]) -> Object:
    """Return the budget; a call can never ask for more than the day's tokens, so its cap is written as no more."""
    per_request, daily = tokens.per_request_tokens, tokens.daily_tokens
    if per_request and daily and per_request > daily:
        notes.append(f"tokenBudget.perRequestTokens {per_request} is held to dailyTokens {daily}")
        per_request = daily
    return {"perRequestTokens": per_request, "dailyTokens": daily, "monthlyTokens": tokens.monthly_tokens}


def serving(models: ModelPreference, notes: list[str]) -> Object:
    """Return the models, each once: one that comes again has failed already. An endpoint is not for the document."""
    chain: list[ModelRef] = []
    for model in (models.primary, *models.fallback):
        if any((model.provider, model.deployment) == (one.provider, one.deployment) for one in chain):
            notes.append(f"modelPreference names {model.provider}/{model.deployment} more than once")
            continue
        chain.append(model)
    if unknown := strangers(models):
        notes.append(f"this router has no provider {', '.join(unknown)}: the one that is configured is asked instead")
    primary, *fallback = ({"provider": one.provider, "deployment": one.deployment} for one in chain)
    return {"primary": primary, "fallback": fallback}


def strangers(models: ModelPreference) -> list[str]:
    """Return the providers that the router does not have; one with an endpoint of its own may have any name."""
    named = [
        *([models.primary.provider] if models.primary.endpoint is None else []),
        *(one.provider for one in models.fallback),
    ]
    return sorted({name for name in named if name not in PROVIDERS})


def shortened(name: str) -> str:
    """Cut a name for people to what the router takes, between two characters."""
    return name.encode()[:NAME_BYTES].decode(errors="ignore")
