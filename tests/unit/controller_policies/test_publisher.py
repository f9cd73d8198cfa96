"""What is the same for every policy kind."""

import pytest

from kars.artifacts.evidence import Verified
from kars.controller.echo import Entry
from kars.controller.policies import table
from kars.controller.policies.publisher import Publisher
from kars.controller.reconcile import Temporary
from kars.kube.errors import Busy, Forbidden
from kars.kube.types import CONFIG_MAP, Key
from kars.policy.compiled.canonical import digest
from tests.unit.controller_policies.memory import World

MODELS = {"primary": {"provider": "azure-openai", "deployment": "gpt-4.1"}}
SPEC = {"appliesTo": {}, "modelPreference": MODELS}
DIGEST = "sha256:" + "a" * 64
PROFILE = {"inline": 'version: "1.0"\n'}
TOOLS = {"appliesTo": {"sandboxMatchLabels": {"a": "b"}}}


def reference(media, digest=DIGEST):
    return {
        "registry": "r.example",
        "repository": "p",
        "digest": digest,
        "artifactType": f"application/vnd.kars.{media}",
    }


@pytest.fixture
def world():
    return World(Publisher(table.INFERENCE), Publisher(table.TOOLS), Publisher(table.MEMORY))


def compiled(world, key, kind="InferencePolicy"):
    return world.status(kind, key)["compiledDigest"]


async def test_a_thousand_sandboxes_are_each_asked_until_they_confirmed_and_not_again(world):
    policy = world.put("InferencePolicy", "models", SPEC)
    sandboxes = [world.sandbox(f"s{number}") for number in range(1000)]
    await world.look("InferencePolicy", policy)
    digest = compiled(world, policy)
    for number, sandbox in enumerate(sandboxes):
        world.routers.say(sandbox, InferencePolicy=digest)
        if number % 100 == 99:
            world.pass_time(seconds=6)
            await world.look("InferencePolicy", policy)
    assert world.ready("InferencePolicy", policy)["reason"] == "RouterEnforcing"
    # Each look asks those that have not confirmed: 1000 + 900 + ... + 100, and the first one.
    assert sum(world.routers.asked.values()) <= 1000 + 5500
    world.routers.asked.clear()
    await world.look("InferencePolicy", policy)
    assert not world.routers.asked
    # A pod that comes or goes puts its own sandbox in doubt, and no other.
    woken = world.reconcilers["InferencePolicy"].touched("Router", Key("kars-s7", "s7-x"), world.cluster)
    assert set(woken) == {policy}
    await world.look("InferencePolicy", policy)
    assert set(world.routers.asked) == {Key("team", "s7")}
    world.routers.asked.clear()
    world.pass_time(minutes=6)
    await world.look("InferencePolicy", policy)
    assert len(world.routers.asked) == 1000


async def test_only_those_are_asked_between_two_turns_of_which_something_is_new(world):
    policy = world.put("InferencePolicy", "models", SPEC)
    sandboxes = [world.sandbox(f"s{number}") for number in range(100)]
    await world.look("InferencePolicy", policy)
    reconciler = world.reconcilers["InferencePolicy"]
    for number, sandbox in enumerate(sandboxes):
        world.routers.asked.clear()
        world.routers.say(sandbox, InferencePolicy=compiled(world, policy))
        assert set(reconciler.touched("Router", Key(f"kars-{sandbox.name}", "pod"), world.cluster)) == {policy}
        await world.look("InferencePolicy", policy)
        assert set(world.routers.asked) == {sandbox}
        assert reconciler.confirmations.progress[policy].confirmed == set(sandboxes[: number + 1])
    assert world.ready("InferencePolicy", policy)["status"] == "True"


async def test_an_answer_of_a_pod_that_is_gone_by_then_confirms_nothing(world):
    policy = world.put("InferencePolicy", "models", SPEC)
    sandbox = world.sandbox("s")
    await world.look("InferencePolicy", policy)
    world.routers.say(sandbox, InferencePolicy=compiled(world, policy))
    reconciler, ask = world.reconcilers["InferencePolicy"], world.routers.ask

    async def replaced(sandboxes, *, fresh=False):
        heard = await ask(sandboxes, fresh=fresh)
        reconciler.touched("Router", Key("kars-s", "pod"), world.cluster)
        return heard

    world.routers.ask = replaced
    world.pass_time(minutes=1)
    await world.look("InferencePolicy", policy)
    assert world.ready("InferencePolicy", policy)["status"] == "False"
    world.routers.ask = ask
    await world.look("InferencePolicy", policy)
    assert world.ready("InferencePolicy", policy)["status"] == "True"


async def test_a_status_that_only_counts_on_is_written_at_a_pace(world):
    policy = world.put("InferencePolicy", "models", SPEC)
    sandboxes = [world.sandbox(f"s{number}") for number in range(50)]
    await world.look("InferencePolicy", policy)
    digest = compiled(world, policy)
    before = world.api.requests["status", "InferencePolicy"]
    for sandbox in sandboxes[:-1]:
        world.routers.say(sandbox, InferencePolicy=digest)
        world.reconcilers["InferencePolicy"].touched("KarsSandbox", sandbox, world.cluster)
        done = await world.look("InferencePolicy", policy)
        assert done.after is not None
    assert world.api.requests["status", "InferencePolicy"] == before
    world.pass_time(seconds=5)
    await world.look("InferencePolicy", policy)
    assert world.ready("InferencePolicy", policy)["message"].startswith("49/50")
    # What is news is told at once.
    world.routers.say(sandboxes[-1], InferencePolicy=digest)
    world.reconcilers["InferencePolicy"].touched("KarsSandbox", sandboxes[-1], world.cluster)
    await world.look("InferencePolicy", policy)
    assert world.ready("InferencePolicy", policy)["status"] == "True"


async def test_routers_that_agree_within_a_second_are_not_told_to_be_waited_for(world):
    world.reconcilers["InferencePolicy"].pace.first = 1.0
    policy = world.put("InferencePolicy", "models", SPEC)
    sandbox = world.sandbox("s")
    done = await world.look("InferencePolicy", policy)
    assert done.after == 1.0
    assert world.status("InferencePolicy", policy) == {}
    world.pass_time(seconds=0.5)
    document = world.api.objects["ConfigMap", Key("team", "inferencepolicy-models-profile")]["data"]
    mounted = digest((name, text.encode()) for name, text in document.items())
    world.routers.say(sandbox, InferencePolicy=mounted)
    world.reconcilers["InferencePolicy"].touched("KarsSandbox", sandbox, world.cluster)
    await world.look("InferencePolicy", policy)
    assert world.ready("InferencePolicy", policy)["status"] == "True"
    assert world.api.requests["status", "InferencePolicy"] == 1
    assert not world.told.events


async def test_a_policy_that_is_not_in_force_any_more_is_told_of_at_once_and_later_ones_with_their_own_time(world):
    world.reconcilers["InferencePolicy"].pace.first = 1.0
    policy = world.put("InferencePolicy", "models", SPEC)
    sandbox = world.sandbox("s")
    await world.look("InferencePolicy", policy)
    world.pass_time(seconds=1)
    await world.look("InferencePolicy", policy)
    world.routers.say(sandbox, InferencePolicy=compiled(world, policy))
    world.pass_time(minutes=1)
    await world.look("InferencePolicy", policy)
    assert world.ready("InferencePolicy", policy)["status"] == "True"
    times = []
    for tokens, pause in ((5, 0), (6, 5)):
        world.put("InferencePolicy", "models", {**SPEC, "tokenBudget": {"dailyTokens": tokens}})
        before = compiled(world, policy)
        await world.look("InferencePolicy", policy)
        assert (compiled(world, policy) == before) == bool(pause)
        world.pass_time(seconds=pause)
        await world.look("InferencePolicy", policy)
        assert compiled(world, policy) != before
        assert world.ready("InferencePolicy", policy)["status"] == "False"
        times.append(world.status("InferencePolicy", policy)["lastCompiledAt"])
        world.pass_time(seconds=0.5)
    assert times == sorted(set(times))


async def test_looks_grow_rare_while_nobody_answers(world):
    policy = world.put("InferencePolicy", "models", SPEC)
    world.sandbox("s")
    waits = []
    for _ in range(40):
        done = await world.look("InferencePolicy", policy)
        waits.append(done.after)
        world.pass_time(seconds=done.after)
    assert waits[0] == 5.0
    assert waits == sorted(waits)
    assert waits[-1] == 300.0


async def test_an_event_tells_that_a_policy_is_not_enforced_once(world):
    policy = world.put("InferencePolicy", "models", SPEC)
    sandbox = world.sandbox("s")
    for _ in range(3):
        await world.look("InferencePolicy", policy)
        world.pass_time(minutes=1)
    assert world.told.events == [("models", "PolicyNotEnforced", "Warning")]
    world.routers.say(sandbox, InferencePolicy=compiled(world, policy))
    await world.look("InferencePolicy", policy)
    world.put("InferencePolicy", "models", {**SPEC, "displayName": "more"})
    await world.look("InferencePolicy", policy)
    assert len(world.told.events) == 2


async def test_no_event_tells_of_a_policy_that_nobody_refers_to(world):
    await world.look("InferencePolicy", world.put("InferencePolicy", "alone", SPEC))
    assert not world.told.events


@pytest.mark.parametrize("kind", ["InferencePolicy", "ToolPolicy"])
async def test_a_bundle_that_cannot_be_used_leaves_what_stands(world, kind):
    inline = {"InferencePolicy": SPEC, "ToolPolicy": {**TOOLS, "agtProfile": PROFILE}}[kind]
    bundled = {
        "InferencePolicy": {"appliesTo": {}, "bundleRef": reference("inference-policy.v1+json")},
        "ToolPolicy": {**TOOLS, "agtProfile": {"bundleRef": reference("agt-profile.v1+yaml")}},
    }[kind]
    key = world.put(kind, "p", inline)
    await world.look(kind, key)
    name = {"InferencePolicy": "inferencepolicy-p-profile", "ToolPolicy": "toolpolicy-p-profile"}[kind]
    before = world.api.objects["ConfigMap", Key("team", name)]["data"]
    said = world.status(kind, key)
    world.put(kind, "p", bundled)
    for reason in ("SignatureVerifyFailed", "Transient"):
        world.artifacts.reason = reason
        done = await world.look(kind, key)
        assert world.status(kind, key)["phase"] == "Degraded"
        assert world.ready(kind, key)["reason"] == reason
        assert done.after >= 60
    assert world.api.objects["ConfigMap", Key("team", name)]["data"] == before
    kept = {name: value for name, value in said.items() if name not in {"phase", "conditions", "observedGeneration"}}
    assert kept.items() <= world.status(kind, key).items()


async def test_a_signed_bundle_below_the_installations_floor_leaves_what_stands(world):
    key = world.put("InferencePolicy", "p", SPEC)
    await world.look("InferencePolicy", key)
    before = world.api.objects["ConfigMap", Key("team", "inferencepolicy-p-profile")]["data"]
    world.artifacts.there[DIGEST] = Verified(
        media_type="x", body=b"{}", content={"contentSafety": {"violence": "High"}}, digest=DIGEST, identity="me"
    )
    bundled = {"appliesTo": {}, "bundleRef": reference("inference-policy.v1+json")}
    world.put("InferencePolicy", "p", bundled)
    await world.look("InferencePolicy", key)
    assert (world.status("InferencePolicy", key)["phase"], world.ready("InferencePolicy", key)["reason"]) == (
        "Degraded",
        "SpecInvalid",
    )
    assert "contentSafety.violence is High" in world.ready("InferencePolicy", key)["message"]
    assert world.api.objects["ConfigMap", Key("team", "inferencepolicy-p-profile")]["data"] == before
    world.woken.clear()
    world.put("InferencePolicy", "p", bundled, labels={"kars.azure.com/dev-only": "true"})
    assert ("InferencePolicy", key) in world.woken
    await world.look("InferencePolicy", key)
    assert world.ready("InferencePolicy", key)["reason"] != "SpecInvalid"
    assert world.api.objects["ConfigMap", Key("team", "inferencepolicy-p-profile")]["data"] != before


async def test_a_bundle_is_used_in_place_of_the_spec(world):
    world.artifacts.there[DIGEST] = Verified(
        media_type="x", body=b"{}", content={"displayName": "signed"}, digest=DIGEST, identity="me"
    )
    key = world.put("InferencePolicy", "p", {"appliesTo": {}, "bundleRef": reference("inference-policy.v1+json")})
    await world.look("InferencePolicy", key)
    data = world.api.objects["ConfigMap", Key("team", "inferencepolicy-p-profile")]["data"]
    assert '"displayName":"signed"' in data["inference-policy.json"]
    assert world.status("InferencePolicy", key)["bundleRefDigest"] == DIGEST


async def test_a_change_of_who_may_sign_wakes_the_policies_that_need_a_signature(world):
    signed = world.put("InferencePolicy", "p", {"appliesTo": {}, "bundleRef": reference("inference-policy.v1+json")})
    world.put("InferencePolicy", "q", SPEC)
    woken = set(
        world.reconcilers["InferencePolicy"].touched(
            "ConfigMap", Key("kars-system", "kars-signer-policy"), world.cluster
        )
    )
    assert woken == {signed}


async def test_times_of_compiling_move_with_the_document_and_never_by_themselves(world):
    key = world.put("ToolPolicy", "p", TOOLS)
    await world.look("ToolPolicy", key)
    first = world.status("ToolPolicy", key)["lastCompiledAt"]
    writes = sum(world.api.requests.values())
    world.pass_time(hours=1)
    await world.look("ToolPolicy", key)
    assert sum(world.api.requests.values()) == writes
    world.put("ToolPolicy", "p", {**TOOLS, "displayName": "more"})
    await world.look("ToolPolicy", key)
    assert world.status("ToolPolicy", key)["lastCompiledAt"] > first


async def test_a_config_map_that_the_api_server_refuses_is_told(world):
    key = world.put("InferencePolicy", "p", SPEC)
    world.api.failures["apply", "ConfigMap"] = Forbidden("no", status=403, reason="Forbidden")
    await world.look("InferencePolicy", key)
    assert world.ready("InferencePolicy", key)["reason"] == "ProfileWriteFailed"
    world.api.failures["apply", "ConfigMap"] = Busy("later", status=503)
    with pytest.raises(Temporary):
        await world.look("InferencePolicy", key)


async def test_a_config_map_that_somebody_took_away_wakes_its_policy(world):
    key = world.put("InferencePolicy", "p", SPEC)
    await world.look("InferencePolicy", key)
    world.woken.clear()
    await world.api.delete(CONFIG_MAP, Key("team", "inferencepolicy-p-profile"))
    assert world.woken == {("InferencePolicy", key)}


async def test_a_sandboxes_copy_and_its_pods_wake_what_it_refers_to_and_nothing_else(world):
    models = world.put("InferencePolicy", "models", SPEC)
    world.put("InferencePolicy", "others", SPEC)
    world.sandbox("s")
    reconciler = world.reconcilers["InferencePolicy"]

    def wakes(kind, name):
        return set(reconciler.touched(kind, Key("kars-s", name), world.cluster))

    assert wakes("Router", "s-1") == {models}
    assert wakes("ConfigMap", "inferencepolicy-models-profile") == {models}
    assert wakes("ConfigMap", "karssandbox-s-egress-approvals") == set()


async def test_a_sandbox_that_turns_to_another_policy_wakes_both(world):
    world.put("InferencePolicy", "models", SPEC)
    world.put("InferencePolicy", "others", SPEC)
    world.sandbox("s")
    world.reconcilers["InferencePolicy"].index.fill(world.cluster)
    world.woken.clear()
    world.sandbox("s", inferenceRef={"name": "others"})
    found = {key.name for kind, key in world.woken if kind == "InferencePolicy"}
    assert found == {"models", "others"}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("MemoryStoreMissing: no store s", "MemoryStoreMissing"),
        ("AuthMisconfigured: 403", "AuthMisconfigured"),
        ("something else", "AwaitingRouterEnforcement"),
    ],
)
async def test_a_memory_tells_what_routers_say_of_its_store(world, error, reason):
    key = world.put("KarsMemory", "m", {"sandboxRef": {"name": "s"}, "storeName": "s", "scope": "a"})
    sandbox = world.sandbox("s", memoryRef={"name": "m"})
    world.sandbox("t", memoryRef={"name": "m"})  # which may not have it, and is not waited for
    world.routers.said[sandbox] = ((Entry("Memory", None, error),),)
    await world.look("KarsMemory", key)
    assert world.ready("KarsMemory", key)["reason"] == reason
    assert world.status("KarsMemory", key)["phase"] == ("Compiled" if reason.startswith("Awaiting") else "Failed")
    assert Key("team", "t") not in world.routers.asked


async def test_a_kind_that_no_router_reports_is_asked_for_rarely_and_never_ready(world):
    key = world.put("ToolPolicy", "kars-default", {**TOOLS, "agtProfile": PROFILE})
    sandbox = world.sandbox("s")
    world.routers.say(sandbox, InferencePolicy="sha256:x")
    done = await world.look("ToolPolicy", key)
    assert done.after == 300.0
    assert "its router does not report AgtProfile" in world.ready("ToolPolicy", key)["message"]
    assert world.status("ToolPolicy", key)["phase"] == "Compiled"


async def test_governance_that_is_off_counts_for_no_tool_policy(world):
    key = world.put("ToolPolicy", "kars-default", {**TOOLS, "agtProfile": PROFILE})
    world.sandbox("s", governance={"enabled": False})
    await world.look("ToolPolicy", key)
    assert world.ready("ToolPolicy", key)["reason"] == "NoSandboxesReferencing"
