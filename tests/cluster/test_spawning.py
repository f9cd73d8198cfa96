"""How many children a sandbox may have, and theirs: on a real API server, with every reconciler."""

import pytest

from kars.controller import roster
from kars.settings.controller import Platform
from tests.cluster.controlling import Running, settings
from tests.cluster.world import GROUP, World, where

PLATFORM = Platform(azure_openai_endpoint="https://models.example.com/", max_children=2, max_generations=2)
MODELS = {"primary": {"provider": "azure-openai", "deployment": "gpt-4.1"}}
PROFILE = {"inline": 'version: "1.0"\nagent: "*"\npolicies: []\n'}
SPEC = {"runtime": {"kind": "OpenClaw", "openclaw": {}}, "sandbox": {}, "inferenceRef": {"name": "models"}}


class Family(World):
    """A namespace in which sandboxes are each other's children; names are short for names of its own."""

    def called(self, name):
        return f"{name}-{self.namespace}"

    def spawn(self, name, parent=""):
        labels = {f"{GROUP}/parent": self.called(parent)} if parent else {}
        metadata = {"name": self.called(name), "labels": labels}
        self.plane.api.create(
            where("KarsSandbox", self.namespace),
            {"apiVersion": f"{GROUP}/v1alpha1", "kind": "KarsSandbox", "metadata": metadata, "spec": SPEC},
        )

    def stands(self, name):
        return self.plane.api.find(f"/api/v1/namespaces/kars-{self.called(name)}") is not None

    def made(self, name):
        try:
            self.plane.wait(lambda: self.stands(name), 25, what=f"the namespace of {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.condition('KarsSandbox', self.called(name))}") from None

    def refused(self, name, reason):
        said = self.reaches("KarsSandbox", self.called(name), "Degraded", reason)
        assert not self.stands(name)
        return next(one["message"] for one in said["conditions"] if one["type"] == "Ready")

    def dismiss(self, name):
        self.delete("KarsSandbox", self.called(name))
        self.wait_gone("KarsSandbox", self.called(name), 40)

    def rights(self, name):
        """Verbs that the sandbox's account has on KarsSandboxes; None where it has no Role."""
        role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}/roles/kars-spawner-{self.called(name)}"
        found = self.plane.api.find(role)
        return found and {verb for rule in found["rules"] for verb in rule["verbs"]}


@pytest.fixture(scope="module")
def controller(kars_plane):
    home = kars_plane.make_namespace()
    with Running(kars_plane, roster.reconcilers(settings()), namespace=home, platform=PLATFORM) as running:
        yield running


@pytest.fixture
def family(kars_plane, controller):
    world = Family(kars_plane, kars_plane.make_namespace())
    world.create("InferencePolicy", "models", {"appliesTo": {}, "modelPreference": MODELS})
    world.create("ToolPolicy", "kars-default", {"appliesTo": {"sandboxMatchLabels": {"a": "b"}}, "agtProfile": PROFILE})
    yield world
    kars_plane.api.delete(f"/api/v1/namespaces/{world.namespace}")


def test_children_beyond_the_bound_wait_until_one_goes_and_are_not_written_again_meanwhile(family, controller):
    family.spawn("mother")
    family.made("mother")
    for name in ("a", "b"):
        family.spawn(name, "mother")
        family.made(name)
    for name in ("c", "d"):
        family.spawn(name, "mother")
        message = family.refused(name, "TooManyChildren")
        assert family.called("mother") in message and " 2 " in message and "KARS_MAX_CHILDREN" in message
    # As many wait as may have a place: it may look after them and make no more.
    family.plane.wait(lambda: family.rights("mother") == {"get", "delete"}, what="the end of the right to make more")
    waiting = family.get("KarsSandbox", family.called("d"))["metadata"]["resourceVersion"]
    for _ in range(3):
        controller.look("KarsSandbox", family.namespace, family.called("d"))
    family.dismiss("a")
    family.made("c")
    assert family.refused("d", "TooManyChildren")
    assert family.get("KarsSandbox", family.called("d"))["metadata"]["resourceVersion"] == waiting
    family.plane.wait(lambda: "create" in family.rights("mother"), what="the right to make another")
    family.dismiss("mother")
    for name in "bcd":
        family.wait_gone("KarsSandbox", family.called(name), 40)


def test_generations_end_and_the_last_may_make_none(family):
    family.spawn("g0")
    for number in (1, 2, 3):
        family.spawn(f"g{number}", f"g{number - 1}")
    for number in (0, 1, 2):
        family.made(f"g{number}")
    message = family.refused("g3", "TooDeep")
    line = " < ".join(family.called(f"g{number}") for number in (3, 2, 1, 0))
    assert line in message and "KARS_MAX_GENERATIONS" in message
    family.plane.wait(lambda: family.rights("g1"), what="the right of a child")
    family.plane.wait(lambda: family.status("KarsSandbox", family.called("g2")).get("phase") == "Creating")
    assert family.rights("g2") is None
    # One that stands and becomes of the last generation stays, and loses the right that it had.
    family.spawn("late")
    family.plane.wait(lambda: family.rights("late"), what="the right of nobody's child")
    family.merge(
        "KarsSandbox", family.called("late"), {"metadata": {"labels": {f"{GROUP}/parent": family.called("g1")}}}
    )
    family.plane.wait(lambda: family.rights("late") is None, what="the end of that right")
    assert family.stands("late")
    family.dismiss("g0")
    for number in (1, 2, 3):
        family.wait_gone("KarsSandbox", family.called(f"g{number}"), 40)


def test_sandboxes_that_are_each_others_parents_are_refused_and_can_be_deleted(family):
    family.spawn("egg", "hen")
    family.made("egg")  # nobody knows of a hen yet
    family.spawn("hen", "egg")
    assert "circle" in family.refused("hen", "TooDeep")
    family.spawn("ouroboros", "ouroboros")
    assert "circle" in family.refused("ouroboros", "TooDeep")
    for name in ("hen", "ouroboros"):
        family.dismiss(name)
    family.wait_gone("KarsSandbox", family.called("egg"), 40)
