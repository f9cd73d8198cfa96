"""An API server that restarts, dies and hangs while people never rest: nothing is lost, nothing is there twice.

KARS_CHAOS=full restarts it fifty times; a few times otherwise.
"""

import random
import time

import pytest

from tests.cluster.trial import FULL
from tests.cluster.unrest import SANDBOXES, Unrest

RESTARTS = 50 if FULL else 4
# Between two restarts: long enough for watches to be back, and short enough for them not to be.
PAUSES = (0.2, 4.0)
LIMIT = 1500 if FULL else 150


@pytest.fixture
def unrest(trial):
    made = Unrest(trial.plane.api, seed=7, prefix=trial.name()).start(LIMIT)
    yield made
    made.stop()


def clean(trial):
    """No bug has shown itself to the controller."""
    for ruler in trial.rulers:
        if ruler.controller.process.ended() is None:
            assert ruler.controller.metric("kars_controller_reconcile_errors_total", error_class="bug") == 0
            assert ruler.controller.get("/healthz") == "ok"


@pytest.mark.timeout(LIMIT)
def test_an_api_server_that_restarts_over_and_over_loses_nothing_and_doubles_nothing(trial, unrest):
    leader, chance = trial.leader(), random.Random(3)
    for number in range(RESTARTS):
        time.sleep(chance.uniform(*PAUSES))
        if number % 2:
            trial.plane.kill_api()
            time.sleep(chance.uniform(0, 1.0))
            trial.plane.start_api()
        else:
            trial.plane.restart_api()
        if number % 10 == 9:
            unrest.pause()
            trial.settled(f"restart {number + 1}")
            unrest.resume()
    back = time.monotonic()
    unrest.stop()
    trial.settled(f"{RESTARTS} restarts with {sum(unrest.done.values())} changes", since=back)
    print(unrest.done, "failed:", unrest.failed)
    assert leader.controller.process.ended() is None
    assert min(unrest.done.get(deed, 0) for deed in ("create", "change", "delete", "spoil")) > 0
    clean(trial)
    unrest.clear()
    trial.settled("the end of every sandbox", whole=True)
    assert trial.plane.api.items(SANDBOXES) == []


@pytest.mark.timeout(120)
def test_an_api_server_that_is_killed_in_the_middle_of_writes_has_them_done_after_it_is_back(trial):
    leader = trial.leader()
    begun = len(leader.writes())
    trial.make(10)
    trial.plane.wait(lambda: len(leader.writes()) > begun + 20, what="writes")
    trial.plane.kill_api()
    time.sleep(1.0)
    trial.plane.start_api()
    trial.settled("death of the API server in mid-write", since=time.monotonic())
    assert leader.controller.process.ended() is None
    clean(trial)


@pytest.mark.timeout(120)
def test_an_api_server_that_hangs_for_longer_than_the_lease_finds_its_leader_again(trial):
    """The leader must give up after ten seconds, as another could see the API server; it takes up what it left."""
    leader = trial.leader()
    begun = len(leader.writes())
    names = trial.make(10)
    trial.plane.wait(lambda: len(leader.writes()) > begun + 20, what="writes")
    trial.plane.pause_api()
    time.sleep(15.0)
    assert not leader.leads()
    trial.plane.resume_api()
    back = time.monotonic()
    trial.plane.api.merge(trial.path(names[0]), {"metadata": {"labels": {"example.com/mood": "new"}}})
    trial.settled("15 s of silence of the API server", since=back)
    assert leader.leads()
    assert leader.controller.process.ended() is None
    clean(trial)
