"""Allowlists: records of what was good, how often they are written, and how often a registry is asked."""

import contextlib

import msgspec

from kars.artifacts.fetch import Artifacts
from kars.controller.allowlists import FIRST_LOOK, LAST_LOOK, Allowlists
from kars.model.sandbox import KarsSandbox
from tests.cluster.signing import KEYLESS, RELEASE
from tests.unit.controller.test_images import allow
from tests.unit.controller_policies.memory import HOME, World


@contextlib.asynccontextmanager
async def cluster(press):
    world = World()
    world.cluster.given_artifacts = fresh(press)
    allow(world, press, RELEASE, KEYLESS)
    try:
        yield world
    finally:
        await world.cluster.given_artifacts.close()


def fresh(press):
    return Artifacts(trusted_root=press.sigstore.trusted_root(), insecure_hosts=frozenset({press.host}))


@contextlib.asynccontextmanager
async def outage(world, press):
    """A registry that is down, and nothing that is remembered of it."""
    await world.cluster.given_artifacts.close()
    world.cluster.given_artifacts = fresh(press)
    press.depot.stop()
    try:
        yield
    finally:
        press.depot.start()


def sandbox(world, reference, name="one"):
    key = world.sandbox(name, networkPolicy={"allowlistRef": reference})
    found = world.cluster.resource(KarsSandbox, key)
    assert found is not None
    return found


def hosts(settled):
    return [one["host"] for one in msgspec.json.decode(settled.document)["endpoints"]]


def reasons(settled):
    return {one.type.removeprefix("Allowlist"): (one.status, one.reason) for one in settled.conditions}


def writes(world):
    return world.api.requests["apply", "ConfigMap"]


def record(world):
    (found,) = [
        value
        for (kind, key), value in world.api.objects.items()
        if kind == "ConfigMap" and key.namespace == HOME and key.name.startswith("last-good-")
    ]
    return found


async def test_a_record_is_written_once_and_again_when_somebody_changes_it(press):
    async with cluster(press) as world:
        lists, one = Allowlists(), sandbox(world, press.allowlist("unit/record", "a.example"))
        await lists.settle(one, world.cluster)
        assert writes(world) == 1
        assert hosts(await lists.settle(one, world.cluster)) == ["a.example"]
        assert hosts(await Allowlists().settle(one, world.cluster)) == ["a.example"]
        assert writes(world) == 1
        good = record(world)["data"]
        world.api.store({**record(world), "data": {**good, "generation": "99"}})
        # A number that is too high is put up with: it was in force, as far as anybody knows.
        assert reasons(await lists.settle(one, world.cluster))["Verified"] == ("False", "CanonicalFormViolation")
        world.api.store({**record(world), "data": {**good, "record": "x"}})
        await lists.settle(one, world.cluster)
        assert record(world)["data"] == good


async def test_records_of_two_sandboxes_are_two(press):
    async with cluster(press) as world:
        reference = press.allowlist("unit/two", "a.example")
        for name in ("one", "two"):
            await Allowlists().settle(sandbox(world, reference, name), world.cluster)
        names = {key.name for (kind, key) in world.api.objects if kind == "ConfigMap"}
        assert len([name for name in names if name.startswith("last-good-")]) == 2


async def test_an_outage_is_waited_out_ever_more_rarely_and_the_list_stays(press):
    async with cluster(press) as world:
        lists, one = Allowlists(), sandbox(world, press.allowlist("unit/outage", "a.example"))
        assert (await lists.settle(one, world.cluster)).after is None
        async with outage(world, press):
            pauses = []
            for _ in range(12):
                settled = await lists.settle(one, world.cluster)
                pauses.append(settled.after)
                assert hosts(settled) == ["a.example"] and not settled.degraded
            assert pauses == sorted(pauses) and pauses[0] == FIRST_LOOK and pauses[-1] == LAST_LOOK
        assert (await lists.settle(one, world.cluster)).after is None
        async with outage(world, press):
            assert (await lists.settle(one, world.cluster)).after == FIRST_LOOK


async def test_a_signer_who_is_revoked_during_an_outage_is_told_as_revoked(press):
    async with cluster(press) as world:
        lists, one = Allowlists(), sandbox(world, press.allowlist("unit/revoked", "a.example", signer=KEYLESS))
        await lists.settle(one, world.cluster)
        async with outage(world, press):
            allow(world, press, RELEASE)
            settled = await lists.settle(one, world.cluster)
        assert hosts(settled) == [] and settled.degraded == "FailedClosed"
        assert reasons(settled) == {
            "Verified": ("False", "IdentityMismatch"),
            "Authoritative": ("False", "FailedClosed"),
        }
        assert "did not answer" in settled.message and "the last good artifact is not used" in settled.message


async def test_without_any_record_an_outage_leaves_nothing_in_force_and_no_verdict(press):
    async with cluster(press) as world:
        one = sandbox(world, press.allowlist("unit/first", "a.example"))
        async with outage(world, press):
            settled = await Allowlists().settle(one, world.cluster)
        assert hosts(settled) == [] and settled.degraded == "FailedClosed"
        assert reasons(settled) == {"Authoritative": ("False", "FailedClosed")}


async def test_a_sandbox_that_goes_is_forgotten(press):
    async with cluster(press) as world:
        lists, one = Allowlists(), sandbox(world, press.allowlist("unit/gone", "a.example"))
        await lists.settle(one, world.cluster)
        lists.forget(one)
        assert not lists.kept and not lists.failures
