"""The engine on a real API server: what it asks for, what it writes, and what it leaves alone."""

import contextlib
import time
from datetime import UTC, datetime, timedelta

import pytest

from kars.controller import engine, marks
from kars.controller.reconcile import Temporary
from kars.desired.plan import stamp
from kars.kube.errors import Busy, Conflict, Forbidden, Invalid
from kars.model.memory import KarsMemory
from tests.cluster.api import MERGE, ApiError
from tests.cluster.controlling import DEFINITIONS, Running, Toy, policy

POLICIES = "/apis/kars.azure.com/v1alpha1/namespaces/{}/inferencepolicies"
CONFIG_MAPS = "/api/v1/namespaces/{}/configmaps"
# Long enough for an event to have come, were there one.
QUIET_SECONDS = 1.0


@pytest.fixture
def toy():
    return Toy()


@pytest.fixture
def running(kars_plane, toy):
    with Running(kars_plane, [toy]) as made:
        yield made
    assert made.status == 0


@pytest.fixture
def world(kars_plane, namespace):
    made = World(kars_plane, namespace)
    yield made
    made.clear()


class World:
    """InferencePolicies of one namespace, and the objects that the toy makes of them."""

    def __init__(self, plane, namespace):
        self.plane, self.api, self.namespace = plane, plane.api, namespace
        self.policies = POLICIES.format(namespace)
        self.config_maps = CONFIG_MAPS.format(namespace)

    def clear(self):
        """Take every policy away, whether anyone finalizes it or not: the next test's controller must not meet it."""
        for one in self.api.items(self.policies):
            path = f"{self.policies}/{one['metadata']['name']}"
            self.api.delete(path)
            if self.api.find(path) is not None:
                with contextlib.suppress(ApiError):
                    self.api.merge(path, {"metadata": {"finalizers": []}})
        self.plane.wait(lambda: not self.api.items(self.policies))

    def create(self, name, **more):
        return self.api.create(self.policies, policy(name, self.namespace, **more))

    def read(self, name):
        return self.api.get(f"{self.policies}/{name}")

    def made(self, name):
        return self.api.find(f"{self.config_maps}/toy-{name}")

    def condition(self, name, kind="Ready"):
        conditions = (self.read(name).get("status") or {}).get("conditions", ())
        return next((one for one in conditions if one["type"] == kind), None)

    def ready(self, name, value="True"):
        return self.plane.wait(
            lambda: (self.condition(name) or {}).get("status") == value, what=f"{name} Ready={value}"
        )

    def settle(self, name, **more):
        self.create(name, **more)
        self.ready(name)
        time.sleep(QUIET_SECONDS)


def test_a_resource_gets_finalizer_object_and_status_by_three_requests_and_is_looked_at_once(running, world, toy):
    world.settle("one")
    assert running.requests() == {("PATCH", "inferencepolicies"): 2, ("PATCH", "configmaps"): 1}
    assert toy.calls == ["one"]
    found = world.read("one")
    assert found["metadata"]["finalizers"] == [Toy.finalizer]
    assert found["status"]["observedGeneration"] == 1


def test_a_look_at_what_stands_costs_no_request(running, world, toy):
    world.settle("one")
    before = running.requests()
    for _ in range(20):
        running.look("InferencePolicy", world.namespace, "one")
    world.plane.wait(lambda: len(toy.calls) >= 2)
    time.sleep(QUIET_SECONDS)
    assert running.requests() == before


def test_a_new_process_writes_nothing_about_what_the_old_one_made(kars_plane, world):
    with Running(kars_plane, [Toy()]):
        world.settle("one")
        world.settle("two")
    toy = Toy()
    with Running(kars_plane, [toy]) as second:
        kars_plane.wait(lambda: len(toy.calls) >= 2)
        time.sleep(QUIET_SECONDS)
        assert second.requests() == {}


def test_a_changed_spec_is_brought_and_observed(running, world):
    world.settle("one")
    before = world.made("one")["data"]
    change = {"spec": {"modelPreference": {"primary": {"deployment": "other"}}}}
    world.api.merge(f"{world.policies}/one", change)
    world.plane.wait(lambda: world.made("one")["data"] != before)
    world.plane.wait(lambda: world.read("one")["status"]["observedGeneration"] == 2)


def test_an_edited_or_deleted_object_is_made_as_wanted_again(running, world):
    world.settle("one")
    wanted = world.made("one")
    world.api.merge(f"{world.config_maps}/toy-one", {"data": {"text": "edited"}})
    world.plane.wait(lambda: world.made("one")["data"] == wanted["data"])
    world.api.merge(f"{world.config_maps}/toy-one", {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}})
    world.plane.wait(lambda: world.made("one")["metadata"]["labels"] == wanted["metadata"]["labels"])
    world.api.delete(f"{world.config_maps}/toy-one")
    world.plane.wait(lambda: world.made("one"))


def test_what_others_add_to_an_object_is_left_alone(running, world, toy):
    world.settle("one")
    before = running.requests()
    world.api.merge(f"{world.config_maps}/toy-one", {"data": {"more": "x"}, "metadata": {"labels": {"mine": "y"}}})
    world.plane.wait(lambda: len(toy.calls) >= 2)
    time.sleep(QUIET_SECONDS)
    assert world.made("one")["data"]["more"] == "x"
    assert running.requests() == before


def test_status_that_others_write_beside_ours_wakes_nobody_and_stays(running, world, toy):
    world.settle("one")
    drift = {
        "type": "ConformanceDrift",
        "status": "False",
        "reason": "NoDrift",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    document = {
        "apiVersion": "kars.azure.com/v1alpha1",
        "kind": "InferencePolicy",
        "metadata": {"name": "one", "namespace": world.namespace},
        "status": {"conditions": [drift]},
    }
    world.api.apply(f"{world.policies}/one/status", document, manager="kars-controller/karseval-drift")
    time.sleep(QUIET_SECONDS)
    assert toy.calls == ["one"]
    world.api.merge(f"{world.policies}/one", {"spec": {"modelPreference": {"primary": {"deployment": "other"}}}})
    world.plane.wait(lambda: world.read("one")["status"]["observedGeneration"] == 2)
    assert {one["type"] for one in world.read("one")["status"]["conditions"]} == {"Ready", "ConformanceDrift"}


def test_status_of_an_earlier_controller_is_taken_over_and_what_is_stale_of_it_goes(kars_plane, world):
    world.create("one")
    stale = [
        {"type": kind, "status": "True", "reason": "Old", "message": "", "lastTransitionTime": "2020-01-01T00:00:00Z"}
        for kind in ("Ready", "Degraded")
    ]
    old = {"status": {"phase": "Degraded", "loadedDigest": "sha256:old", "conditions": stale}}
    world.api.request("PATCH", f"{world.policies}/one/status", old, content=MERGE, fieldManager="unknown")
    with Running(kars_plane, [Toy()]):
        kars_plane.wait(lambda: world.read("one")["status"].get("phase") == "Ready")
        status = world.read("one")["status"]
        assert "loadedDigest" not in status
        (ready,) = status["conditions"]
        assert (ready["type"], ready["reason"]) == ("Ready", "Reconciled")
        assert ready["lastTransitionTime"] == "2020-01-01T00:00:00Z"


def test_the_transition_time_moves_with_the_status_and_only_then(running, world, toy):
    world.settle("one")
    first = world.condition("one")["lastTransitionTime"]
    time.sleep(1.1)
    world.api.merge(f"{world.policies}/one", {"spec": {"modelPreference": {"primary": {"deployment": "other"}}}})
    world.plane.wait(lambda: world.condition("one")["observedGeneration"] == 2)
    assert world.condition("one")["lastTransitionTime"] == first


def test_deleting_takes_down_what_was_made_and_then_lets_go(running, world):
    world.settle("one")
    world.api.delete(f"{world.policies}/one")
    world.plane.wait(lambda: world.api.find(f"{world.policies}/one") is None)
    assert world.made("one") is None


def test_deleting_waits_until_the_reconciler_says_that_it_is_done_and_other_finalizers_stay(running, world, toy):
    world.settle("one")
    both = [Toy.finalizer, "example.com/other"]
    world.api.merge(f"{world.policies}/one", {"metadata": {"finalizers": both}})
    toy.hold = True
    world.api.delete(f"{world.policies}/one")
    time.sleep(QUIET_SECONDS)
    assert Toy.finalizer in world.read("one")["metadata"]["finalizers"]
    toy.hold = False
    running.look("InferencePolicy", world.namespace, "one")
    world.plane.wait(lambda: world.read("one")["metadata"]["finalizers"] == ["example.com/other"])
    time.sleep(QUIET_SECONDS)
    assert world.read("one")["metadata"]["finalizers"] == ["example.com/other"]
    world.api.merge(f"{world.policies}/one", {"metadata": {"finalizers": []}})
    world.plane.wait(lambda: world.api.find(f"{world.policies}/one") is None)


def test_an_end_that_takes_long_is_told_by_a_condition_and_an_event(running, world, toy, monkeypatch):
    world.settle("one")
    toy.hold = True
    world.api.delete(f"{world.policies}/one")
    later = timedelta(seconds=marks.STUCK_SECONDS + 1)
    monkeypatch.setattr(running.cluster, "now", lambda: datetime.now(UTC).replace(microsecond=0) + later)
    running.look("InferencePolicy", world.namespace, "one")
    world.plane.wait(lambda: world.condition("one", "Terminating"))
    assert world.condition("one", "Terminating")["reason"] == "FinalizerStuck"
    events = f"/apis/events.k8s.io/v1/namespaces/{world.namespace}/events"
    world.plane.wait(lambda: [one for one in world.api.items(events) if one["reason"] == "FinalizerStuck"])
    toy.hold = False
    running.look("InferencePolicy", world.namespace, "one")
    world.plane.wait(lambda: world.api.find(f"{world.policies}/one") is None)


@pytest.mark.parametrize(
    "error",
    [
        Temporary("soon", delay=0.05),
        Temporary("some time"),
        Busy("later", status=429, after=0.05),
        Busy("away", status=503),
        Conflict("changed", status=409),
        RuntimeError("a bug with s3cret words"),
        KeyError("another"),
        TimeoutError(),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_again_and_ends_nothing(running, world, toy, error):
    toy.errors = [error, error]
    world.create("one")
    world.ready("one")
    assert len(toy.calls) == 3
    assert world.condition("one", "Degraded") is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Forbidden("denied the request: no", status=403, reason="Forbidden"), "Forbidden"),
        (Invalid("spec.x: Invalid value", status=422, reason="Invalid"), "Invalid"),
    ],
)
def test_what_is_refused_becomes_a_condition_and_an_event_and_goes_when_it_passes(running, world, toy, error, reason):
    toy.errors = [error]
    world.create("one")
    world.ready("one", "False")
    degraded = world.condition("one", "Degraded")
    assert (degraded["status"], degraded["reason"], degraded["message"]) == ("True", reason, str(error))
    assert world.read("one")["status"]["phase"] == "Degraded"
    events = f"/apis/events.k8s.io/v1/namespaces/{world.namespace}/events"
    world.plane.wait(lambda: [one for one in world.api.items(events) if one["reason"] == reason])
    running.look("InferencePolicy", world.namespace, "one")
    world.ready("one")
    assert world.condition("one", "Degraded") is None


def test_a_reconciler_that_hangs_gives_its_worker_back(running, world, toy, monkeypatch):
    monkeypatch.setattr(engine, "LONGEST_RECONCILE", 0.2)
    toy.hang = True
    world.create("one")
    world.plane.wait(lambda: toy.calls)
    toy.hang = False
    world.ready("one")
    assert 'reconcile_errors_total{crd_kind="InferencePolicy",error_class="timeout"}' in running.scrape()


def test_a_bug_in_finding_out_who_is_touched_is_counted_and_ends_nothing(running, world, toy, monkeypatch):
    monkeypatch.setattr(toy, "touched", lambda *_: 1 / 0)
    world.create("one")
    world.ready("one")
    assert 'reconcile_errors_total{crd_kind="InferencePolicy",error_class="bug"}' in running.scrape()


def test_metrics_bear_the_names_that_dashboards_know(running, world):
    world.settle("one")
    text = running.scrape()
    for line in (
        'kars_controller_reconcile_total{crd_kind="InferencePolicy",outcome="success"} 1.0',
        'kars_controller_reconcile_duration_seconds_count{crd_kind="InferencePolicy",outcome="success"} 1.0',
        'kars_controller_conditions_transitions_total{condition_type="Ready",new_status="True"} 1.0',
        'kars_controller_queue_depth{crd_kind="InferencePolicy"} 0.0',
        'kars_controller_api_requests_total{code="200",kind="inferencepolicies",verb="PATCH"} 2.0',
        "kars_controller_leader 1.0",
    ):
        assert line in text, line
    assert "kars_controller_config_info{config_hash=" in text
    assert world.namespace not in text


def test_ready_once_everything_was_listed(running):
    assert running.fetch("/readyz") == (200, "ok")
    assert running.fetch("/healthz") == (200, "ok")


class Loose(Toy):
    """Reconciles KarsMemories, and makes nothing."""

    kind = KarsMemory
    finalizer = "kars.azure.com/karsmemory-cleanup"

    def wanted(self, resource):
        metadata = {"name": f"toy-{resource.metadata.name}", "namespace": resource.metadata.namespace}
        metadata["labels"] = {"app.kubernetes.io/managed-by": "kars-controller"}
        return stamp({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}})


def test_a_status_that_is_not_valid_is_written_anew(kars_plane, world, loosened):
    memories = f"/apis/kars.azure.com/v1alpha1/namespaces/{world.namespace}/karsmemories"
    document = {"apiVersion": "kars.azure.com/v1alpha1", "kind": "KarsMemory", "metadata": {"name": "old"}}
    spec = {"sandboxRef": {"name": "s"}, "storeName": "m", "scope": "agent"}
    kars_plane.wait(lambda: kars_plane.api.create(memories, {**document, "spec": spec}))
    odd = {"phase": "Overlay", "conditions": [{"type": "Ready"}, "text"], "more": {"x": 1}}
    path = f"{memories}/old/status"
    kars_plane.api.request("PATCH", path, {"status": odd}, content=MERGE, fieldManager="unknown")
    toy = Loose()
    with Running(kars_plane, [toy]):
        kars_plane.wait(lambda: kars_plane.api.get(f"{memories}/old")["status"]["phase"] == "Ready")
        status = kars_plane.api.get(f"{memories}/old")["status"]
        assert "more" not in status
        assert [(one["type"], one["status"]) for one in status["conditions"]] == [("Ready", "True")]
        kars_plane.api.delete(f"{memories}/old")
        kars_plane.wait(lambda: kars_plane.api.find(f"{memories}/old") is None)


@pytest.fixture
def loosened(kars_plane):
    """KarsMemories whose schema lets everything pass, as an older one might have; its own again afterwards."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/karsmemories.kars.azure.com"
    before = kars_plane.api.get(path)["spec"]["versions"]
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"openAPIV3Schema": {**anything, "properties": {"spec": anything, "status": anything}}}
    kars_plane.api.merge(path, {"spec": {"versions": [{**before[0], "schema": schema}]}})
    yield
    kars_plane.api.merge(path, {"spec": {"versions": before}})
    # Its fields are helm's again: the next upgrade would else write.
    kars_plane.helm("upgrade", "kars-crds", str(DEFINITIONS), "--namespace", "default")


def test_a_resource_that_is_not_valid_says_where_and_can_be_deleted(kars_plane, world, loosened):
    memories = f"/apis/kars.azure.com/v1alpha1/namespaces/{world.namespace}/karsmemories"
    document = {"apiVersion": "kars.azure.com/v1alpha1", "kind": "KarsMemory", "metadata": {"name": "odd"}}
    document["metadata"]["finalizers"] = [Loose.finalizer]

    def create():
        return kars_plane.api.create(memories, {**document, "spec": {"sandboxRef": {"name": 7}}})

    kars_plane.wait(create)
    toy = Loose()
    with Running(kars_plane, [toy]):
        kars_plane.wait(lambda: kars_plane.api.get(f"{memories}/odd").get("status"))
        conditions = {one["type"]: one for one in kars_plane.api.get(f"{memories}/odd")["status"]["conditions"]}
        assert conditions["Degraded"]["reason"] == "SpecInvalid"
        assert conditions["Degraded"]["message"].startswith("spec.sandboxRef.name: ")
        assert conditions["Ready"]["status"] == "False"
        assert toy.calls == []
        kars_plane.api.delete(f"{memories}/odd")
        kars_plane.wait(lambda: kars_plane.api.find(f"{memories}/odd") is None)
