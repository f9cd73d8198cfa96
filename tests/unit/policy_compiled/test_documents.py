"""What each kind comes to: names, labels, annotations, order of members, and what the router makes of it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kars import _core
from kars.model.a2a import A2AAgent
from kars.model.auth import KarsAuthConfig
from kars.model.evaluation import KarsEval
from kars.model.inference import InferencePolicy
from kars.model.mcp import McpServer
from kars.model.memory import KarsMemory
from kars.model.tools import ToolPolicy
from kars.model.trust import TrustGraph
from kars.policy.compiled import a2a, auth, evaluation, inference, mcp, memory, tools, trust
from kars.policy.compiled.canonical import digest
from kars.policy.compiled.outcome import Given, Unfit
from tests.unit.policy_compiled.samples import given, make, of

PRESETS = Path(__file__).parents[3] / "router_core" / "providers"
NOW = datetime(2026, 7, 1, 9, tzinfo=UTC)
COMPILERS = {
    InferencePolicy: inference.render,
    ToolPolicy: tools.render,
    KarsMemory: memory.render,
    McpServer: mcp.render,
    A2AAgent: a2a.render,
    TrustGraph: trust.render,
    KarsEval: evaluation.render,
    KarsAuthConfig: auth.render,
}
SAMPLES = [
    pytest.param(render, one, id=f"{kind.__name__}-{at}-{one.metadata.name}")
    for kind, render in COMPILERS.items()
    for at, one in enumerate(of(kind))
]


@pytest.mark.parametrize(("render", "resource"), SAMPLES)
def test_every_valid_resource_comes_to_complete_objects_of_ours(render, resource):
    compiled = render(resource, given(resource, now=NOW, seed=b"\x07" * 32))
    assert compiled.objects
    for made in compiled.objects:
        metadata = made["metadata"]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "kars-controller"
        assert metadata["namespace"] == (resource.metadata.namespace or "kars-system")
        assert all(len(value) <= 63 for value in metadata["labels"].values())
        assert all(isinstance(text, str) for text in made["data"].values())
    assert render(resource, given(resource, now=NOW, seed=b"\x07" * 32)) == compiled


@pytest.mark.parametrize(
    ("render", "resource"),
    [sample for sample in SAMPLES if sample.values[0] in {inference.render, memory.render, tools.render}],
)
def test_a_digest_is_over_the_file_that_the_config_map_holds(render, resource):
    compiled = render(resource, given(resource))
    (made,) = compiled.objects
    file = {"InferencePolicy": inference.FILE, "Memory": memory.FILE, "AgtProfile": tools.FILE, None: ""}[
        compiled.echo_kind
    ]
    if compiled.echo_kind is None:
        assert compiled.digest == "" and tools.FILE not in made["data"]
        return
    assert compiled.digest == digest([(file, made["data"][file].encode())])
    assert compiled.digest in made["metadata"]["annotations"].values()


@pytest.mark.parametrize("policy", of(InferencePolicy), ids=lambda one: one.metadata.name)
def test_the_router_takes_every_inference_policy_under_the_digest_that_is_published(policy):
    compiled = inference.render(policy, given(policy))
    body = compiled.objects[0]["data"][inference.FILE].encode()
    assert _core.Snapshot.compile("InferencePolicy", [(inference.FILE, body)]).digest == compiled.digest


def test_an_inference_policy_is_the_golden_one():
    spec = {
        "appliesTo": {"sandboxName": "demo"},
        "modelPreference": {
            "primary": {
                "provider": "azure-openai",
                "deployment": "gpt-4.1",
                "endpoint": "https://elsewhere.example.com",
            }
        },
    }
    compiled = inference.render(make("InferencePolicy", spec, name="p"), Given())
    (made,) = compiled.objects
    assert compiled.digest == "sha256:32e9516c5e059aac9ec39870fb7e14e79d6712092cd34bf332a4ddba674bc2bf"
    assert made["metadata"] == {
        "name": "inferencepolicy-p-profile",
        "namespace": "team-a",
        "labels": {
            "app.kubernetes.io/managed-by": "kars-controller",
            "kars.azure.com/inferencepolicy": "p",
            "kars.azure.com/artifact": "inference-policy-profile",
        },
        "annotations": {
            "kars.azure.com/inferencepolicy-version-hash": "380ec3ff10f64c81c468545b7d2f7935",
            "kars.azure.com/inference-policy-digest": compiled.digest,
        },
    }
    assert compiled.status == {
        "profileConfigMapRef": {"name": "inferencepolicy-p-profile"},
        "versionHash": "380ec3ff10f64c81c468545b7d2f7935",
        "compiledDigest": compiled.digest,
    }


def body_of(spec, **more):
    return inference.render(make("InferencePolicy", {"appliesTo": {}, **spec}, **more), Given())


def test_members_of_an_inference_policy_stand_in_the_hashed_order():
    spec = {
        "appliesTo": {"action": "chat", "sandboxMatchLabels": {"b": "2", "a": "1"}},
        "displayName": "d",
        "contentSafety": {"violence": "Low", "requirePromptShields": False},
        "tokenBudget": {"monthlyTokens": 9, "dailyTokens": 3},
    }
    assert body_of(spec).objects[0]["data"][inference.FILE] == (
        '{"appliesTo":{"sandboxName":null,"sandboxMatchLabels":{"a":"1","b":"2"},"action":"chat"},'
        '"tokenBudget":{"perRequestTokens":null,"dailyTokens":3,"monthlyTokens":9},'
        '"contentSafety":{"hate":null,"selfHarm":null,"sexual":null,"violence":"Low","requirePromptShields":false},'
        '"modelPreference":null,"displayName":"d"}'
    )


def test_a_cap_that_the_day_never_grants_is_held_to_the_day():
    compiled = body_of({"tokenBudget": {"perRequestTokens": 1000, "dailyTokens": 500}})
    body = compiled.objects[0]["data"][inference.FILE]
    assert json.loads(body)["tokenBudget"] == {"perRequestTokens": 500, "dailyTokens": 500, "monthlyTokens": None}
    assert "perRequestTokens 1000" in compiled.notes[0]
    assert _core.Snapshot.compile("InferencePolicy", [(inference.FILE, body.encode())]).digest == compiled.digest


def test_a_model_that_comes_again_is_named_once():
    one, other = {"provider": "openai", "deployment": "a"}, {"provider": "openai", "deployment": "b"}
    compiled = body_of({"modelPreference": {"primary": one, "fallback": [other, one, other]}})
    assert json.loads(compiled.objects[0]["data"][inference.FILE])["modelPreference"] == {
        "primary": one,
        "fallback": [other],
    }
    assert len(compiled.notes) == 2


def test_a_provider_that_the_router_does_not_have_is_told():
    compiled = body_of({"modelPreference": {"primary": {"provider": "azure-opnai", "deployment": "a"}}})
    assert compiled.notes == ("this router has no provider azure-opnai: the one that is configured is asked instead",)


def test_at_an_endpoint_of_its_own_a_provider_may_have_any_name():
    primary = {"provider": "gemini", "deployment": "a", "endpoint": "https://models.example"}
    assert body_of({"modelPreference": {"primary": primary}}).notes == ()


def test_the_providers_are_those_of_the_router():
    presets = [json.loads(path.read_bytes()) for path in PRESETS.glob("*.json")]
    assert {name for one in presets for name in (one["name"], *one.get("aliases", ()))} == inference.PROVIDERS


def test_a_long_name_is_cut_between_two_characters():
    compiled = body_of({"displayName": "💡" * 256})
    assert json.loads(compiled.objects[0]["data"][inference.FILE])["displayName"] == "💡" * 128


def test_a_memory_is_the_golden_one():
    memory_spec = {"sandboxRef": {"name": "demo"}, "storeName": "s", "scope": "agent_demo"}
    compiled = memory.render(make("KarsMemory", memory_spec, name="m"), Given())
    assert compiled.digest == "sha256:e25308b3e59fdd2911dd24c7741447e049189ead9427414e33d745286588ea12"
    (made,) = compiled.objects
    assert made["metadata"]["name"] == "karsmemory-m-binding"
    assert made["metadata"]["labels"]["kars.azure.com/artifact"] == "claw-memory-binding"
    assert made["metadata"]["annotations"]["kars.azure.com/claw-memory-digest"] == compiled.digest
    assert compiled.echo_kind == "Memory"


BUNDLE = {"registry": "ghcr.io", "repository": "p", "digest": "sha256:" + "01" * 32}


def signed(kind, media, **spec):
    return make(kind, {**spec, "bundleRef": {**BUNDLE, "artifactType": f"application/vnd.kars.{media}"}})


def test_an_artifact_says_what_and_the_resource_says_for_whom():
    policy = signed("InferencePolicy", "inference-policy.v1+json", appliesTo={"sandboxName": "demo"})
    compiled = inference.render(policy, Given(content={"tokenBudget": {"dailyTokens": 5}}, bundle_digest="sha256:aa"))
    document = json.loads(compiled.objects[0]["data"][inference.FILE])
    assert document["appliesTo"]["sandboxName"] == "demo" and document["tokenBudget"]["dailyTokens"] == 5
    assert compiled.status["bundleRefDigest"] == "sha256:aa"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "SpecInvalid"),
        ([], "CanonicalFormViolation"),
        ({"appliesTo": {"sandboxName": "another"}}, "CanonicalFormViolation"),
        ({"tokenBudget": {"dailyTokens": 10, "monthlyTokens": 5}}, "CanonicalFormViolation"),
        ({"tokenBudget": {"dailyTokens": "many"}}, "CanonicalFormViolation"),
        ({"contentSafety": {"hate": "Mild"}}, "CanonicalFormViolation"),
    ],
)
def test_an_artifact_that_makes_no_valid_policy_is_refused(content, reason):
    policy = signed("InferencePolicy", "inference-policy.v1+json", appliesTo={"sandboxName": "demo"})
    with pytest.raises(Unfit) as refused:
        inference.render(policy, Given(content=content))
    assert refused.value.reason == reason


LEVELS = ("Safe", "Low", "Medium", "High")


@pytest.mark.parametrize("category", ["hate", "selfHarm", "sexual", "violence"])
@pytest.mark.parametrize("floor", LEVELS)
@pytest.mark.parametrize("level", LEVELS)
def test_an_artifact_is_held_to_the_floor_of_content_safety(level, floor, category):
    """Each pair of levels, as the chart's kars-content-safety-floor judges what is written out."""
    given = Given(content={"contentSafety": {category: level, "requirePromptShields": False}}, safety_floor=floor)
    policy = signed("InferencePolicy", "inference-policy.v1+json", appliesTo={})
    if LEVELS.index(level) <= LEVELS.index(floor):
        document = json.loads(inference.render(policy, given).objects[0]["data"][inference.FILE])
        assert document["contentSafety"][category] == level
        return
    with pytest.raises(Unfit, match=f"contentSafety.{category} is {level} and may be {floor} at most") as refused:
        inference.render(policy, given)
    assert refused.value.reason == "SpecInvalid"


def models(primary, *fallback):
    named = [{"provider": provider, "deployment": "d"} for provider in (primary, *fallback)]
    return {"modelPreference": {"primary": named[0], "fallback": named[1:]}}


@pytest.mark.parametrize(
    "providers", [("null",), ("NoOp",), ("openai", "disabled"), ("azure-openai", "openai", "None")]
)
def test_an_artifact_cannot_name_a_provider_that_is_none(providers):
    policy = signed("InferencePolicy", "inference-policy.v1+json", appliesTo={})
    with pytest.raises(Unfit, match=f"modelPreference names the provider {providers[-1]};") as refused:
        inference.render(policy, Given(content=models(*providers)))
    assert refused.value.reason == "SpecInvalid"
    assert inference.render(policy, Given(content=models("openai", "nullable"))).objects


@pytest.mark.parametrize("content", [{"contentSafety": {"hate": "High"}}, models("null")])
@pytest.mark.parametrize(("label", "passes"), [("true", True), ("false", False), ("True", False)])
def test_an_artifact_for_development_only_may_say_more(label, passes, content):
    policy = signed("InferencePolicy", "inference-policy.v1+json", appliesTo={})
    policy.metadata.labels["kars.azure.com/dev-only"] = label
    given = Given(content=content)
    if passes:
        assert inference.render(policy, given).objects
        return
    with pytest.raises(Unfit, match="dev-only=true"):
        inference.render(policy, given)


def test_without_categories_an_artifact_has_nothing_to_be_held_to():
    policy = signed("InferencePolicy", "inference-policy.v1+json", appliesTo={})
    for content in ({}, {"contentSafety": {}}, {"contentSafety": None}):
        assert inference.render(policy, Given(content=content, safety_floor="Safe")).objects


def test_a_profile_is_published_byte_for_byte():
    text = 'version: "1.0"\n'
    spec = {
        "appliesTo": {"sandboxMatchLabels": {"a": "b"}},
        "agtProfile": {"inline": text},
        "commerce": {"dailyCap": "5 USD"},
    }
    compiled = tools.render(make("ToolPolicy", spec, name="t"), Given())
    (made,) = compiled.objects
    assert compiled.digest == "sha256:d04e04f04b05dcfdbbbd4103c68ec39baf4a0d795cd78c60599c37d5f3623bf9"
    assert made["data"][tools.FILE] == text
    assert made["data"]["profile.json"] == json.dumps(
        {
            "appliesTo": {"tool": None, "mcpServer": None, "sandboxMatchLabels": {"a": "b"}},
            "commerce": {"dailyCap": "5 USD", "monthlyCap": None, "perTransferCap": None, "counterpartyAllowlist": []},
            "rateLimit": None,
            "approval": None,
            "displayName": None,
        },
        indent=2,
    )
    assert compiled.echo_kind == "AgtProfile" and compiled.status == {"agtProfileDigest": compiled.digest}


def test_without_a_profile_there_is_nothing_to_wait_for():
    compiled = tools.render(make("ToolPolicy", {"appliesTo": {"sandboxMatchLabels": {"a": "b"}}}), Given())
    assert compiled.echo_kind is None and compiled.digest == "" and compiled.status == {}
    assert list(compiled.objects[0]["data"]) == ["profile.json"]


def test_a_profile_whose_artifact_is_missing_leaves_the_one_in_force():
    reference = {**BUNDLE, "artifactType": "application/vnd.kars.agt-profile.v1+yaml"}
    policy = make(
        "ToolPolicy", {"appliesTo": {"sandboxMatchLabels": {"a": "b"}}, "agtProfile": {"bundleRef": reference}}
    )
    with pytest.raises(Unfit, match="has not been fetched"):
        tools.render(policy, Given())
    with pytest.raises(Unfit, match="not UTF-8 at byte 1"):
        tools.render(policy, Given(body=b"a\xff"))


def test_what_no_config_map_holds_is_refused_before_the_api_server_does():
    spec = {"appliesTo": {"sandboxMatchLabels": {"a": "b"}}, "agtProfile": {"inline": "€" * 400_000}}
    with pytest.raises(Unfit, match=r"more than the \d+ that a ConfigMap holds"):
        tools.render(make("ToolPolicy", spec), Given())


def test_a_card_has_every_member_and_nulls_where_nothing_is_said():
    key = {"kid": "k", "alg": "EdDSA", "publicKeyB64u": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    compiled = a2a.render(
        make("A2AAgent", {"endpointUrl": "http://a.example", "signingKeys": [key]}, name="c"), Given()
    )
    (made,) = compiled.objects
    card = {
        "protocolVersion": "1.2",
        "namespace": "team-a",
        "name": "c",
        "displayName": None,
        "description": None,
        "endpointUrl": "http://a.example",
        "productionMode": False,
        "capabilities": [],
        "signingKeys": [{**key, "notAfter": None}],
        "trust": None,
        "federation": {"peers": []},
        "policyRefs": None,
    }
    assert made["data"][a2a.FILE] == json.dumps(card, indent=2)
    assert made["metadata"]["name"] == "a2aagent-c-card"
    assert len(compiled.version_hash) == 32 and compiled.echo_kind is None
