"""Everything that a network and a busy API server do to requests and watches, while people change what there is."""

import itertools
import threading
import time

import pytest

from tests.cluster import chaos, unrest
from tests.cluster.installation import NAMESPACE

# How long a fault lasts.
SECONDS = 1.5
ALL = "."
WATCHES = "^WATCH"
WRITES = "^(POST|PUT|PATCH|APPLY|DELETE) (?!.*/leases)"
READS = "^(GET|LIST) (?!.*/leases)"


def fault(pattern, answer=None, stream=None):
    return [(pattern, answer, stream)]


FAULTS = {
    "410 at the start of every watch": fault(WATCHES, chaos.gone()),
    "410 in the middle of every watch": fault(WATCHES, stream=chaos.gone_in_stream(1)),
    "409 to every write": fault(WRITES, chaos.conflict()),
    "429 to everything, come back in a second": fault(ALL, chaos.busy(1)),
    "500 to everything": fault(ALL, chaos.failing(500)),
    "503 to everything": fault(ALL, chaos.failing(503)),
    "answers that trickle": fault(READS, stream=chaos.trickle(256, 0.02)) + fault(ALL, stream=chaos.trickle(256, 0.02)),
    "half-open watches": fault(WATCHES, stream=chaos.half_open()),
    "resets in the middle of watches": fault(WATCHES, stream=chaos.reset(900)),
    "resets in the middle of answers": fault(ALL, stream=chaos.reset(300)),
    "truncated JSON in watches": fault(WATCHES, stream=chaos.truncate(900)),
    "truncated JSON in answers": fault(ALL, stream=chaos.truncate(300)),
    "watches that tell old things and in disorder": fault(WATCHES, stream=chaos.disorder()),
    "watches with nothing but bookmarks": fault(WATCHES, stream=chaos.bookmarks()),
    "no answer to anything": fault(ALL, chaos.silent()),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_happens_during_a_fault_is_done_after_it(trial, name):
    stays, goes = trial.make(2)
    trial.settled("creation")
    proxy = trial.leader().proxy
    for pattern, answer, stream in FAULTS[name]:
        proxy.inject(pattern, answer, stream=stream)
    # Watches that stand were there before the fault.
    proxy.drop()
    time.sleep(SECONDS / 3)
    trial.make(2)
    trial.plane.api.delete(trial.path(goes))
    trial.plane.api.merge(trial.path(stays), {"spec": {"networkPolicy": {"allowedEndpoints": [HOST]}}})
    trial.plane.api.delete(f"/apis/networking.k8s.io/v1/namespaces/kars-{stays}/networkpolicies/sandbox-policy")
    tokens = {"spec": {"tokenBudget": {"dailyTokens": int(time.monotonic())}}}
    trial.plane.api.merge(f"{unrest.POLICIES}/{unrest.MODELS}", tokens)
    time.sleep(SECONDS)
    hits = sum(one.hits for one in proxy.faults)
    proxy.lift()
    proxy.drop()
    trial.settled(name, since=time.monotonic())
    assert hits, "nothing was faulty"
    assert trial.leader().controller.metric("kars_controller_reconcile_errors_total", error_class="bug") == 0


HOST = {"host": "a.example.com", "port": 443}


class Meddler:
    """Another writer who changes labels, finalizers and status of sandboxes all the time."""

    def __init__(self, trial, names):
        self.trial = trial
        self.names = names
        self.count = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(10)

    def run(self):
        for number in itertools.count():
            if self.stopping.wait(0.01):
                return
            path = self.trial.path(self.names[number % len(self.names)])
            self.trial.attempt(lambda path=path, number=number: self.meddle(path, number))

    def meddle(self, path, number):
        api = self.trial.plane.api
        found = api.get(path)["metadata"]
        mine = f"example.com/f{number % 3}"
        kept = [one for one in found.get("finalizers", []) if not one.startswith("example.com/")]
        patch = {
            "resourceVersion": found["resourceVersion"],
            "labels": {"example.com/n": str(number)},
            "finalizers": [*kept, mine],
        }
        api.merge(path, {"metadata": patch})
        drift = {"type": "Weather", "status": "True", "reason": "Fine", "message": str(number)}
        condition = {**drift, "lastTransitionTime": "2026-01-01T00:00:00Z"}
        document = {"apiVersion": unrest.API, "kind": "KarsSandbox", "metadata": {"name": path.rpartition("/")[2]}}
        document["metadata"]["namespace"] = NAMESPACE
        api.apply(f"{path}/status", {**document, "status": {"conditions": [condition]}}, manager="weather")
        self.count += 1


def test_a_writer_who_changes_labels_finalizers_and_status_all_the_time_holds_nothing_up(trial):
    names = [trial.name() for _ in range(4)]
    with Meddler(trial, names) as meddler:
        for name in names:
            trial.create(name)
        trial.plane.wait(lambda: meddler.count > 30)
        trial.plane.api.merge(trial.path(names[0]), {"spec": {"networkPolicy": {"allowedEndpoints": [HOST]}}})
        trial.settled("creation beside another writer")
        began = time.monotonic()
        trial.plane.api.delete(trial.path(names[1]))
        trial.settled("deletion beside another writer", since=began)
    for name in names:
        finalizers = (trial.plane.api.find(trial.path(name)) or {"metadata": {}})["metadata"].get("finalizers", ())
        rest = [one for one in finalizers if not one.startswith("example.com/")]
        trial.attempt(
            lambda name=name, rest=rest: trial.plane.api.merge(trial.path(name), {"metadata": {"finalizers": rest}})
        )
    trial.settled("the end of another writer", whole=True)
    assert trial.plane.api.find(trial.path(names[1])) is None
