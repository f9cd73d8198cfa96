"""A controller that dies without warning in the middle of making and unmaking sandboxes."""

import random
import time

import pytest

from tests.cluster import unrest
from tests.cluster.trial import FULL

SANDBOXES = 30 if FULL else 8
DEATHS = 10 if FULL else 2


def die_often(trial, chance):
    """Kill one heir after another, at any moment of what it does; the last one lives."""
    # Whoever inherits may find that all is done already.
    trial.plane.wait(lambda: trial.leader().writes())
    for _ in range(DEATHS):
        time.sleep(chance.uniform(0, 0.4))
        trial.leader().kill()
        trial.heir().wait_leading()
    return time.monotonic()


@pytest.mark.timeout(600)
def test_a_controller_that_dies_again_and_again_loses_nothing_and_doubles_nothing(trial):
    chance = random.Random(11)
    trial.leader()
    names = trial.make(SANDBOXES, suspended=True)
    trial.settled(f"{DEATHS} deaths of the controller in creation", since=die_often(trial, chance))
    changed = {"spec": {"networkPolicy": {"allowedEndpoints": [{"host": "a.example.com", "port": 443}]}}}
    for name in names:
        trial.plane.api.merge(trial.path(name), changed)
    trial.settled(f"{DEATHS} deaths of the controller in changes", since=die_often(trial, chance))
    for name in names:
        trial.plane.api.delete(trial.path(name))
    trial.settled(f"{DEATHS} deaths of the controller in deletion", since=die_often(trial, chance), whole=True)
    assert trial.plane.api.items(unrest.SANDBOXES) == []
    spaces = [one["metadata"]["name"] for one in trial.plane.api.items("/api/v1/namespaces")]
    assert not {f"kars-{name}" for name in names} & set(spaces)
