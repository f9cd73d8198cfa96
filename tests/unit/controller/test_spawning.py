"""Children of a sandbox, and theirs: how many are made, which, and who is woken when a place is free."""

from datetime import timedelta

import pytest

from kars.controller.gather import Blocked
from kars.controller.sandboxes import Sandboxes
from kars.controller.spawning import Spawning, generation
from kars.kube import types
from kars.kube.types import Key
from kars.model.sandbox import KarsSandbox
from kars.settings.controller import Platform
from tests.unit.controller_policies.memory import World, stamp

PARENT = "kars.azure.com/parent"
SPEC = {"runtime": {"kind": "OpenClaw", "openclaw": {}}, "sandbox": {}, "inferenceRef": {"name": "models"}}


class Family:
    """A world in which sandboxes are each other's children."""

    def __init__(self, **bounds):
        platform = Platform(azure_openai_endpoint="https://models.example.com/", **bounds)
        self.world = World(Sandboxes(), platform=platform)
        self.sandboxes = self.world.reconcilers["KarsSandbox"]

    @property
    def cluster(self):
        return self.world.cluster

    def put(self, name, parent="", *, at=0, spec=SPEC):
        made = stamp(self.world.clock + timedelta(seconds=at))
        labels = {PARENT: parent} if parent else {}
        return self.world.put("KarsSandbox", name, spec, labels=labels, metadata={"creationTimestamp": made})

    def refusal(self, name):
        """Why a sandbox is not made; empty when it is."""
        try:
            self.sandboxes.spawning.check(self.cluster.resource(KarsSandbox, Key("team", name)), self.cluster)
        except Blocked as blocked:
            return blocked.reason
        return ""

    def stand(self, name):
        """Have the namespace of a sandbox stand as its own."""
        labels = {"kars.azure.com/sandbox": name, "kars.azure.com/parent-namespace": "team"}
        self.world.child("Namespace", f"kars-{name}", namespace="", labels=labels)

    async def delete(self, name):
        self.world.woken.clear()
        await self.world.api.delete(types.custom(KarsSandbox), Key("team", name))


def test_the_oldest_children_are_made_and_of_an_age_the_first_by_name():
    family = Family(max_children=2)
    family.put("mother")
    for name, at in (("late", 2), ("a", 1), ("b", 1), ("first", 0)):
        family.put(name, "mother", at=at)
    found = {name: family.refusal(name) for name in ("late", "b", "a", "first", "mother")}
    assert found == {"late": "TooManyChildren", "b": "TooManyChildren", "a": "", "first": "", "mother": ""}


def test_a_child_that_was_let_through_keeps_its_place_from_one_that_sorts_before_it():
    """Else an agent could have any number made by ever smaller names within one second."""
    family = Family(max_children=1)
    family.put("z", "mother")
    assert family.refusal("z") == ""
    family.put("a", "mother")
    assert (family.refusal("a"), family.refusal("z")) == ("TooManyChildren", "")


def test_a_child_that_stands_keeps_its_place_after_a_restart_and_below_a_smaller_bound():
    family = Family(max_children=1)
    for name in ("a", "y", "z"):
        family.put(name, "mother")
    family.stand("y")
    family.stand("z")
    assert [family.refusal(name) for name in ("a", "y", "z")] == ["TooManyChildren", "", ""]


def test_a_namespace_of_that_name_that_is_somebody_elses_is_no_place():
    family = Family(max_children=1)
    family.put("a", "mother")
    family.put("b", "mother", at=1)
    labels = {"kars.azure.com/sandbox": "b", "kars.azure.com/parent-namespace": "other"}
    family.world.child("Namespace", "kars-b", namespace="", labels=labels)
    assert family.refusal("b") == "TooManyChildren"


def test_a_child_that_comes_again_under_its_name_waits_like_any_other():
    family = Family(max_children=1)
    old = family.cluster.resource(KarsSandbox, family.put("a", "mother"))
    assert family.refusal("a") == ""
    family.put("b", "mother", at=1)
    family.world.put(
        "KarsSandbox", "a", SPEC, labels={PARENT: "mother"}, metadata={"creationTimestamp": stamp(family.world.clock)}
    )
    again = family.world.api.objects["KarsSandbox", Key("team", "a")]
    again["metadata"] |= {"uid": "another", "creationTimestamp": stamp(family.world.clock + timedelta(seconds=2))}
    family.world.api.store(again)
    assert old.metadata.uid != "another"
    assert (family.refusal("a"), family.refusal("b")) == ("TooManyChildren", "")


def test_bounds_are_each_parents_own_and_of_its_namespace():
    family = Family(max_children=1)
    family.put("a", "mother")
    family.put("b", "aunt", at=1)
    family.world.put("KarsSandbox", "c", SPEC, namespace="other", labels={PARENT: "mother"})
    assert (family.refusal("a"), family.refusal("b")) == ("", "")
    family.put("d", "mother", at=2)
    assert family.refusal("d") == "TooManyChildren"


def test_a_child_that_is_not_valid_any_more_counts():
    family = Family(max_children=1)
    family.put("a", "mother", spec={"runtime": {"kind": "Nothing"}})
    family.put("b", "mother", at=1)
    assert family.refusal("b") == "TooManyChildren"


@pytest.mark.parametrize("most", [0, 1, 2, 5])
def test_generations_end_where_they_shall(most):
    family = Family(max_generations=most, max_children=1)
    family.put("g0")
    for number in range(1, most + 2):
        family.put(f"g{number}", f"g{number - 1}")
    found = [family.refusal(f"g{number}") for number in range(most + 2)]
    assert found == [""] * (most + 1) + ["TooDeep"]


@pytest.mark.parametrize("ring", [1, 2, 3, 7])
def test_parents_in_a_circle_are_refused_and_do_not_go_round_for_ever(ring):
    family = Family(max_generations=16)
    for number in range(ring):
        family.put(f"r{number}", f"r{(number + 1) % ring}")
    family.put("tail", "r0")
    for name in ("tail", *(f"r{number}" for number in range(ring))):
        assert family.refusal(name) == "TooDeep", name
    sandbox = family.cluster.resource(KarsSandbox, Key("team", "r0"))
    assert generation(sandbox, family.cluster) == 17
    with pytest.raises(Blocked, match="go in a circle"):
        Spawning().check(sandbox, family.cluster)


async def test_who_waits_is_woken_when_a_place_is_free_and_then_made():
    family = Family(max_children=2)
    for at, name in enumerate(("mother", "a", "b", "c", "d")):
        family.put(name, "mother" if at else "", at=at)
    assert [family.refusal(name) for name in "abcd"] == ["", "", "TooManyChildren", "TooManyChildren"]
    await family.delete("a")
    woken = {key.name for kind, key in family.world.woken if kind == "KarsSandbox"}
    assert {"mother", "c", "d"} <= woken and "b" not in woken
    assert (family.refusal("c"), family.refusal("d")) == ("", "TooManyChildren")
    await family.delete("d")
    assert family.sandboxes.spawning.waiting == {}
    for name in ("b", "c", "mother"):
        await family.delete(name)
    assert family.sandboxes.spawning.placed == {}


async def test_who_waits_is_woken_when_a_sibling_gets_another_parent():
    family = Family(max_children=1)
    family.put("a", "mother")
    family.put("b", "mother", at=1)
    assert (family.refusal("a"), family.refusal("b")) == ("", "TooManyChildren")
    family.world.woken.clear()
    family.put("a", "aunt")
    assert ("KarsSandbox", Key("team", "b")) in family.world.woken
    assert family.refusal("b") == ""


async def test_who_was_too_deep_is_woken_when_its_parent_becomes_nobodys_child():
    family = Family(max_generations=1)
    family.put("g0")
    family.put("g1", "g0")
    key = family.put("g2", "g1")
    assert family.refusal("g2") == "TooDeep"
    family.world.woken.clear()
    family.put("g1")
    assert ("KarsSandbox", key) in family.world.woken
    assert family.refusal("g2") == ""


async def test_a_child_beyond_the_bound_says_so_and_nothing_is_made_of_it_nor_asked_for_it():
    family = Family(max_children=1)
    family.put("a", "mother")
    key = family.put("b", "mother", at=1)
    world = family.world
    for _ in range(3):
        done = await world.look("KarsSandbox", key)
    assert done.after is not None
    ready = world.ready("KarsSandbox", key)
    assert (ready["status"], ready["reason"]) == ("False", "TooManyChildren")
    assert all(word in ready["message"] for word in ("mother", " 1 ", "KARS_MAX_CHILDREN"))
    assert world.status("KarsSandbox", key)["phase"] == "Degraded"
    assert sum(world.api.requests.values()) == world.api.requests["status", "KarsSandbox"] == 1


async def test_a_child_of_too_deep_a_generation_names_the_line_and_the_setting():
    family = Family(max_generations=1)
    family.put("g0")
    family.put("g1", "g0")
    key = family.put("g2", "g1")
    await family.world.look("KarsSandbox", key)
    ready = family.world.ready("KarsSandbox", key)
    assert ready["reason"] == "TooDeep"
    assert all(word in ready["message"] for word in ("g2 < g1 < g0", " 1 ", "KARS_MAX_GENERATIONS"))
