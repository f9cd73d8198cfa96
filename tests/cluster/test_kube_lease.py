"""Candidates for one Lease, as processes on a real API server: killed, stopped, and asked to go."""

import os
import signal
import sys
import time
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from tests.cluster.process import Process

DURATION, RENEW = 3.0, 0.5


class Fight:
    """Some candidates, and who led when."""

    def __init__(self, plane, namespace, folder):
        self.plane = plane
        self.namespace = namespace
        self.folder = folder
        self.path = folder / "led"
        self.path.touch()
        self.candidates = {}

    def start(self, identity):
        command = [sys.executable, str(Path(__file__).parent / "candidate.py"), self.plane.admin, self.namespace]
        command += ["leader", identity, DURATION, RENEW, self.path]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.candidates[identity] = Process(command, log=self.folder / f"{identity}.log", env=env).start()

    def led(self):
        lines = [line.split() for line in self.path.read_text().splitlines()]
        return sorted((float(moment), identity) for moment, identity in lines if identity)

    def reigns(self):
        """Who led from when to when, in order; two that led at once show as reigns that alternate."""
        return [
            (identity, [moment for moment, _ in moments])
            for identity, moments in groupby(self.led(), key=lambda line: line[1])
        ]

    def leader(self, seconds=10.0, *, other_than=""):
        """Wait until somebody leads now; who."""

        def now():
            led = self.led()
            recent = bool(led) and time.monotonic() - led[-1][0] < 0.2 and led[-1][1] != other_than
            return led[-1][1] if recent else ""

        return self.plane.wait(now, seconds, what="a leader")

    def lease(self):
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/leader"
        return self.plane.api.get(path)["spec"]

    def check(self, number):
        """So many reigns, each by another than the one before, none beside another."""
        reigns = self.reigns()
        assert len(reigns) == number, [(identity, moments[0], moments[-1]) for identity, moments in reigns]
        assert all(one[0] != other[0] for one, other in pairwise(reigns))


@pytest.fixture
def fight(plane, namespace, tmp_path):
    made = Fight(plane, namespace, tmp_path)
    yield made
    for process in made.candidates.values():
        process.kill()


def gap(fight):
    """The seconds between the last moment of one leader and the first of the next, the last time that it changed."""
    (_, before), (_, after) = fight.reigns()[-2:]
    return after[0] - before[-1]


@pytest.mark.parametrize("number", [2, 3])
def test_a_killed_leader_is_followed_by_one_other_after_the_leases_duration(fight, number):
    for index in range(number):
        fight.start(f"c{index}")
    first = fight.leader()
    time.sleep(2 * RENEW)
    fight.candidates[first].kill()
    second = fight.leader(other_than=first)
    assert gap(fight) >= DURATION - RENEW - 0.3
    time.sleep(1.0)
    fight.check(2)
    lease = fight.lease()
    assert (lease["holderIdentity"], lease["leaseTransitions"]) == (second, 1)


def test_a_leader_that_goes_hands_over_at_once(fight):
    fight.start("one")
    assert fight.leader() == "one"
    fight.start("two")
    time.sleep(2.0)
    fight.candidates["one"].stop()
    assert fight.candidates["one"].ended() == 0, fight.candidates["one"].tail()
    assert fight.leader(other_than="one") == "two"
    assert gap(fight) < 2 * RENEW
    fight.check(2)


def test_a_leader_that_was_stopped_does_not_believe_that_it_leads_when_it_goes_on(fight):
    for identity in ("one", "two"):
        fight.start(identity)
    first = fight.leader()
    fight.candidates[first].send(signal.SIGSTOP)
    second = fight.leader(other_than=first)
    fight.candidates[first].send(signal.SIGCONT)
    time.sleep(1.5)
    assert fight.leader() == second
    fight.check(2)


def test_an_api_server_that_goes_and_comes_back_leaves_one_leader(make_plane, tmp_path):
    fight = Fight(make_plane(), "default", tmp_path)
    try:
        for identity in ("one", "two"):
            fight.start(identity)
        fight.leader()
        fight.plane.kill_api()
        time.sleep(DURATION + 0.5)
        led = fight.led()
        assert time.monotonic() - led[-1][0] > 0.5, "somebody leads without an API server"
        fight.plane.start_api()
        fight.leader(20.0)
        time.sleep(1.0)
        reigns = fight.reigns()
        assert len(reigns) <= 2
    finally:
        for process in fight.candidates.values():
            process.kill()
