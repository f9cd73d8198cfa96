"""EgressApprovals through time."""

from datetime import timedelta

import pytest

from kars.controller.marks import stump
from kars.controller.policies.approvals import Approvals, ttl
from kars.controller.reconcile import Temporary
from kars.kube.errors import Busy
from kars.kube.types import Key
from kars.model.kinds import KINDS
from kars.policy.compiled import egress
from kars.policy.compiled.outcome import Unfit
from tests.unit.controller_policies.memory import World

HOME = "karssandbox-s-egress-approvals"
EMPTY = egress.allowlist(())


@pytest.fixture
def world():
    made = World(Approvals())
    made.api.store(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": "kars-s",
                "labels": {
                    "app.kubernetes.io/managed-by": "kars-controller",
                    "kars.azure.com/sandbox": "s",
                    "kars.azure.com/parent-namespace": "team",
                },
            },
        }
    )
    made.child(
        "ConfigMap", "karssandbox-s-egress-allowlist", namespace="kars-s", data={"allowlist.json": EMPTY.decode()}
    )
    return made


def approve(world, name, host="one.example.org", **more):
    return world.put(
        "EgressApproval", name, {"sandbox": "s", "hosts": [{"host": host}], "reason": "r", "ttl": "PT1H", **more}
    )


def files(world):
    return (world.api.objects.get(("ConfigMap", Key("kars-s", HOME))) or {}).get("data", {})


def listen(world):
    """Have the router take what is mounted."""
    world.routers.say(
        Key("team", "s"), EgressApproval=egress.merged_digest(EMPTY, [text.encode() for text in files(world).values()])
    )


def stands(world, key):
    return world.status("EgressApproval", key)["phase"], world.ready("EgressApproval", key)["reason"]


async def test_an_approval_goes_from_blocked_to_active_to_expired_and_stays(world):
    key = approve(world, "a")
    assert (await world.look("EgressApproval", key)).after is None
    assert stands(world, key) == ("Pending", "BlockedOnSandbox")
    world.sandbox("s")
    assert ("EgressApproval", key) in world.woken
    await world.look("EgressApproval", key)
    assert stands(world, key) == ("Pending", "AwaitingRouterEcho")
    began = world.status("EgressApproval", key)["effectiveAt"]
    world.pass_time(minutes=1)
    listen(world)
    done = await world.look("EgressApproval", key)
    assert stands(world, key) == ("Active", "RouterConfirmed")
    assert done.after == 59 * 60
    assert world.status("EgressApproval", key)["effectiveAt"] == began
    world.pass_time(minutes=59)
    done = await world.look("EgressApproval", key)
    assert (stands(world, key), done.after, files(world)) == (("Expired", "Expired"), None, {})
    # A longer time that somebody writes afterwards brings nothing back.
    approve(world, "a", ttl="PT5H")
    await world.look("EgressApproval", key)
    assert (stands(world, key), files(world)) == (("Expired", "Expired"), {})


async def test_a_status_that_was_not_written_does_not_move_the_beginning(world):
    world.sandbox("s")
    key = approve(world, "a")
    world.api.failures["status", "EgressApproval"] = Busy("later", status=503)
    with pytest.raises(Busy):
        await world.look("EgressApproval", key)
    written = dict(files(world))
    assert written
    world.api.failures.clear()
    world.pass_time(minutes=5)
    await world.look("EgressApproval", key)
    assert files(world) == written


async def test_siblings_never_undo_each_other(world):
    world.sandbox("s")
    keys = [approve(world, name, f"{name}.example.org") for name in ("a", "b", "c")]
    for key in keys:
        await world.look("EgressApproval", key)
    assert len(files(world)) == 3
    world.pass_time(hours=1)
    approve(world, "b", "b.example.org", ttl="PT3H")
    for key in keys:
        await world.look("EgressApproval", key)
    assert set(files(world)) == {"approval-b.json"}
    listen(world)
    await world.look("EgressApproval", keys[1])
    assert stands(world, keys[1]) == ("Active", "RouterConfirmed")


async def test_a_changed_list_of_hosts_is_confirmed_anew(world):
    world.sandbox("s")
    key = approve(world, "a")
    await world.look("EgressApproval", key)
    listen(world)
    await world.look("EgressApproval", key)
    approve(world, "a", "two.example.org")
    await world.look("EgressApproval", key)
    assert stands(world, key) == ("Pending", "AwaitingRouterEcho")
    assert "mergedDigest" not in world.status("EgressApproval", key)


async def test_a_deleted_approval_waits_for_its_router_but_not_for_ever(world):
    world.sandbox("s")
    key = approve(world, "a")
    await world.look("EgressApproval", key)
    listen(world)
    world.put(
        "EgressApproval",
        "a",
        {"sandbox": "s", "hosts": [{"host": "one.example.org"}], "reason": "r", "ttl": "PT1H"},
        metadata={"deletionTimestamp": "2026-05-04T12:00:00Z", "finalizers": ["f"]},
    )
    with pytest.raises(Temporary):
        await world.finish("EgressApproval", key)
    assert not files(world)
    world.pass_time(seconds=21)
    assert await world.finish("EgressApproval", key)
    assert world.told.events == [("a", "RouterNotConfirmed", "Warning")]
    world.pass_time(seconds=-20)
    listen(world)
    assert await world.finish("EgressApproval", key)


async def test_an_approval_that_is_not_valid_any_more_goes_with_what_it_granted(world):
    world.sandbox("s")
    key = approve(world, "a")
    await world.look("EgressApproval", key)
    assert files(world)
    world.put("EgressApproval", "a", {"nonsense": True})
    known = world.cluster.known(KINDS["EgressApproval"], key)
    assert known.resource is None
    assert await world.reconcilers["EgressApproval"].finalize(
        stump(KINDS["EgressApproval"], known.metadata), world.cluster
    )
    assert not files(world)


async def test_an_approval_for_a_namespace_that_is_another_sandboxes_grants_nothing(world):
    world.sandbox("s", namespace="other")
    key = world.put(
        "EgressApproval",
        "a",
        {"sandbox": "s", "hosts": [{"host": "one.example.org"}], "reason": "r", "ttl": "PT1H"},
        namespace="other",
    )
    await world.look("EgressApproval", key)
    assert stands(world, key) == ("Pending", "BlockedOnSandbox")
    assert not files(world)


async def test_a_suspended_sandbox_does_not_stop_the_clock(world):
    world.sandbox("s")
    key = approve(world, "a")
    await world.look("EgressApproval", key)
    world.sandbox("s", suspended=True)
    await world.look("EgressApproval", key)
    assert stands(world, key) == ("Pending", "BlockedOnSandbox")
    world.pass_time(hours=2)
    await world.look("EgressApproval", key)
    assert stands(world, key) == ("Expired", "Expired")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT1S", 1), ("PT90M", 5400), ("P1D", 86_400), ("P1DT1H1M1S", 90_061), ("PT0H5M", 300)],
)
def test_a_duration_is_read(text, seconds):
    assert ttl(text, timedelta(days=7)).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "PT0S", "P1Y", "P1W", "P1M", "1H", "pt1h", "PT1.5H", "PT1H\n", "P٣D"])
def test_what_is_no_duration_of_days_to_seconds_is_refused(text):
    with pytest.raises(Unfit) as error:
        ttl(text, timedelta(days=7))
    assert error.value.reason == "TtlInvalid"


def test_a_duration_past_the_ceiling_is_refused_however_it_is_written():
    for text in ("P8D", "PT169H", "PT99999999H", "P999999DT99999999H99999999M99999999S"):
        with pytest.raises(Unfit) as error:
            ttl(text, timedelta(days=7))
        assert error.value.reason == "TtlExceedsCeiling"
