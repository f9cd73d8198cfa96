"""The list of verified images: what gets onto it, what takes it off, and how often it is written."""

import asyncio
import contextlib
import itertools

import pytest

from kars.artifacts.fetch import Artifacts
from kars.controller import images
from kars.controller.images import Images
from kars.kube import types
from kars.kube.types import Key
from kars.model.common import Condition
from tests.cluster.signing import KEYLESS, RELEASE, STRANGER
from tests.unit.controller_policies.memory import HOME, World

NUMBERS = itertools.count()
LIST = ("ConfigMap", Key(HOME, "kars-verified-images"))
SIGNERS = ("ConfigMap", Key(HOME, "kars-signer-policy"))


@contextlib.asynccontextmanager
async def cluster(press, *signers):
    """A cluster in memory where these may sign, with the real registry behind it."""
    world = World()
    world.cluster.given_artifacts = Artifacts(
        trusted_root=press.sigstore.trusted_root(), insecure_hosts=frozenset({press.host})
    )
    allow(world, press, *signers)
    try:
        yield world
    finally:
        await world.cluster.given_artifacts.close()


def allow(world, press, *signers, data=None):
    """Say who may sign."""
    data = press.policy(*signers) if data is None else data
    metadata = {"name": "kars-signer-policy", "namespace": HOME}
    world.api.store({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def deployment(*named):
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(named)]
    return {"kind": "Deployment", "spec": {"template": {"spec": {"containers": containers}}}}


async def pin(made, world, *named, sandbox="one", standing=None):
    return await made.pin(Key("team", sandbox), [deployment(*named)], world.cluster, standing=standing)


def listed(world):
    return world.api.objects[LIST].get("data") or {}


def writes(world):
    return world.api.requests["apply", "ConfigMap"]


def image(press, **more):
    return press.image(f"unit/i{next(NUMBERS)}", **more)


def key(reference):
    return reference.rpartition("@")[2].replace(":", "-")


async def test_a_plan_is_pinned_by_what_was_verified_and_everything_that_it_mounts_too(press):
    (agent, pinned), (data, mounted) = image(press), image(press, signer=KEYLESS)
    plan = deployment(agent)
    spec = plan["spec"]["template"]["spec"]
    spec["initContainers"] = [{"name": "first", "image": agent}]
    spec["volumes"] = [{"name": "v", "image": {"reference": data}}, {"name": "w", "emptyDir": {}}]
    async with cluster(press, RELEASE, KEYLESS) as world:
        found = await Images().pin(Key("team", "one"), [plan, {"kind": "Service"}], world.cluster, standing=None)
        assert found.images == {agent: pinned, data: mounted} and not found.message
        assert {name: text.splitlines()[1:] for name, text in listed(world).items()} == {
            key(pinned): [agent],
            key(mounted): [data],
        }


async def test_what_nobody_signed_is_named_and_is_not_listed_beside_what_is_signed(press):
    (good, pinned), (bad, unsigned) = image(press), image(press, signer=STRANGER)
    async with cluster(press, RELEASE) as world:
        found = await pin(Images(), world, good, bad)
        assert found.images == {good: pinned} and found.final and found.after
        assert bad in found.message and good not in found.message
        assert set(listed(world)) == {key(pinned)} and unsigned not in str(listed(world))


async def test_a_look_that_finds_nothing_new_writes_nothing_nor_does_a_new_process(press):
    named, reference = image(press)
    async with cluster(press, RELEASE) as world:
        first = Images()
        await pin(first, world, named)
        before = writes(world)
        await pin(first, world, named, sandbox="two")
        again = Images()
        await pin(again, world, named)
        assert writes(world) == before and set(listed(world)) == {key(reference)}


async def test_many_at_once_are_written_together(press):
    named = [image(press)[0] for _ in range(40)]
    async with cluster(press, RELEASE) as world:
        made = Images()
        # They are all verified at one time, whatever the registry's pace.
        for one in named:
            await world.cluster.artifacts.check_image(one, world.cluster.signers())
        apply = world.api.apply

        async def slowly(value, **more):
            await asyncio.sleep(0.05)
            return await apply(value, **more)

        world.api.apply = slowly
        await asyncio.gather(*(pin(made, world, one, sandbox=str(number)) for number, one in enumerate(named)))
        assert len(listed(world)) == 40
        assert writes(world) <= 3


async def test_what_was_verified_while_its_signer_was_revoked_is_not_listed(press):
    named, reference = image(press)
    async with cluster(press, RELEASE, KEYLESS) as world:
        made, artifacts = Images(), world.cluster.artifacts
        check = artifacts.check_image
        asked = []

        async def check_image(one, signers):
            found = await check(one, signers)
            asked.append(one)
            if len(asked) == 1:
                allow(world, press, KEYLESS)
            return found

        artifacts.check_image = check_image
        found = await pin(made, world, named)
        assert found.message and not found.images
        assert key(reference) not in listed(world)


async def test_a_revocation_takes_off_the_list_only_what_nobody_else_signed(press):
    (by_key, _), (by_name, kept) = image(press), image(press, signer=KEYLESS)
    async with cluster(press, RELEASE, KEYLESS) as world:
        made = Images()
        await pin(made, world, by_key, by_name)
        allow(world, press, KEYLESS)
        found = await pin(made, world, by_key, by_name)
        assert "IdentityMismatch" not in found.message and by_key in found.message
        assert set(listed(world)) == {key(kept)}


@pytest.mark.parametrize("data", [{"sanPatterns": "https://a\n"}, {"other": "x"}])
async def test_a_policy_that_is_none_empties_the_list(press, data):
    named, reference = image(press)
    async with cluster(press, RELEASE) as world:
        made = Images()
        await pin(made, world, named)
        allow(world, press, data=data)
        found = await pin(made, world, named)
        assert found.conditions[0].reason == "SignerPolicyMalformed" and not found.images
        assert not listed(world)
        allow(world, press, RELEASE)
        assert (await pin(made, world, named)).images == {named: reference}
        assert set(listed(world)) == {key(reference)}


async def test_a_change_of_policy_needs_no_registry_for_what_was_seen(press):
    named, reference = image(press)
    async with cluster(press, RELEASE) as world:
        made = Images()
        await pin(made, world, named)
        press.depot.stop()
        try:
            allow(world, press, RELEASE, KEYLESS)
            assert (await pin(made, world, named)).images == {named: reference}
            allow(world, press, KEYLESS)
            found = await pin(made, world, named)
            assert found.conditions[0].reason == "SignatureVerifyFailed" and not found.images
            assert not listed(world)
        finally:
            press.depot.start()


async def test_a_list_that_was_made_under_another_policy_is_not_believed(press):
    named, reference = image(press, signer=STRANGER)
    async with cluster(press, RELEASE) as world:
        world.child(
            "ConfigMap",
            "kars-verified-images",
            namespace=HOME,
            metadata={"annotations": {"kars.azure.com/signer-policy": "planted"}},
            data={key(reference): f"key release\n{named}"},
        )
        found = await pin(Images(), world, named)
        assert not found.images and not listed(world)


async def test_what_runs_stays_listed_while_its_successor_is_refused(press):
    (old, standing), (new, _) = image(press), image(press, signer="")
    async with cluster(press, RELEASE) as world:
        made = Images()
        await pin(made, world, old)
        allow(world, press, RELEASE, KEYLESS)
        found = await pin(made, world, new, standing=deployment(standing))
        assert new in found.message and old not in found.message
        assert set(listed(world)) == {key(standing)}


async def test_a_tag_that_leads_nowhere_stays_where_it_was_also_after_a_restart(press):
    named, reference = image(press)
    async with cluster(press, RELEASE) as world:
        await pin(Images(), world, named)
        world.cluster.artifacts.cache.clear()
        press.depot.stop()
        try:
            found = await pin(Images(), world, named)
        finally:
            press.depot.start()
        assert found.images == {named: reference} and not found.message and found.after
        (told,) = found.conditions
        assert isinstance(told, Condition)
        assert (told.status, told.reason) == ("False", "Transient") and f"{reference} stays" in told.message


async def test_a_full_list_drops_what_nobody_uses_and_refuses_what_does_not_fit(press, monkeypatch):
    named = [image(press) for _ in range(4)]
    async with cluster(press, RELEASE) as world:
        made = Images()
        for number, (one, _) in enumerate(named[:2]):
            await pin(made, world, one, sandbox=f"s{number}")
        monkeypatch.setattr(images, "MOST_BYTES", images.size(made.entries))
        made.forget(Key("team", "s0"))
        assert (await pin(made, world, named[2][0], sandbox="s2")).images
        assert set(listed(world)) == {key(named[1][1]), key(named[2][1])}
        found = await pin(made, world, named[3][0], sandbox="s3")
        assert "more images than" in found.message and not found.final and not found.images
        assert set(listed(world)) == {key(named[1][1]), key(named[2][1])}


async def test_a_list_that_somebody_else_writes_is_found_out_and_written_again(press):
    named, reference = image(press)
    async with cluster(press, RELEASE) as world:
        made = Images()
        await pin(made, world, named)
        assert not made.lost(world.cluster)
        changed = {**world.api.objects[LIST], "data": {"sha256-" + "0" * 64: "key release"}}
        world.api.store(changed)
        assert made.lost(world.cluster)
        await pin(made, world, named)
        assert set(listed(world)) == {key(reference)} and not made.lost(world.cluster)
        await world.api.delete(types.CONFIG_MAP, LIST[1])
        assert made.lost(world.cluster)
