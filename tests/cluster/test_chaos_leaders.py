"""Two controllers, one leader: killed, stopped, robbed of its lease. What each writes is what its proxy has seen."""

import itertools
import time

import pytest

from tests.cluster.trial import LEASE

SANDBOXES = 20


@pytest.fixture
def pair(trial):
    """A leader and a standby; whoever is left goes on alone."""
    leader, standby = trial.leader(), trial.rule()
    trial.plane.wait(standby.knows_leader, what="the standby looks at the lease")
    yield leader, standby
    for ruler in trial.rulers:
        ruler.resume()
        if not (ruler.controller.process.ended() is None and ruler.leads()):
            ruler.kill()


def reigns(*rulers):
    """Who wrote from when to when, in order."""
    spans = []
    for ruler in rulers:
        times = [one.began for one in ruler.writes()]
        if times:
            spans.append((min(times), max(times)))
    return sorted(spans)


def alone(*rulers):
    """Nobody has written while another did."""
    spans = reigns(*rulers)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(spans)), spans


def writing(trial, ruler, count):
    """Wait until a controller is in the middle of writing."""
    before = len(ruler.writes())
    trial.make(count)
    trial.plane.wait(lambda: len(ruler.writes()) > before + 3 * count, what="writes")


@pytest.mark.timeout(150)
def test_a_leader_that_was_stopped_is_followed_and_writes_nothing_when_it_goes_on(trial, pair):
    first, second = pair
    mark = time.monotonic()
    assert second.writes() == []
    writing(trial, first, SANDBOXES)
    first.pause()
    paused = time.monotonic()
    second.wait_leading()
    print(f"followed {time.monotonic() - paused:.1f} s after the leader was stopped")
    trial.settled("takeover from a stopped leader")
    resumed = time.monotonic()
    first.resume()
    trial.plane.wait(lambda: not first.leads(), what="the deposed leader stands by")
    time.sleep(3.0)
    assert first.writes(since=resumed) == []
    assert max(one.began for one in first.writes()) < min(one.began for one in second.writes(since=mark))
    # It stands by, warm: it is the next.
    assert first.controller.process.ended() is None
    writing(trial, second, SANDBOXES)
    second.kill()
    killed = time.monotonic()
    first.wait_leading()
    print(f"followed {time.monotonic() - killed:.1f} s after the leader was killed")
    trial.settled("takeover from a killed leader")
    assert max(one.began for one in second.writes()) < min(one.began for one in first.writes(since=resumed))


def test_a_lease_that_somebody_deletes_is_written_anew_by_its_holder(trial, pair):
    leader, standby = pair
    before = trial.plane.api.get(LEASE)["spec"]
    for _ in range(2):
        trial.plane.api.delete(LEASE)
        trial.plane.wait(lambda: trial.plane.api.find(LEASE), what="the lease")
        after = trial.plane.api.get(LEASE)["spec"]
        assert [after[name] for name in ("holderIdentity", "acquireTime")] == [
            before[name] for name in ("holderIdentity", "acquireTime")
        ]
    assert leader.leads() and not standby.leads()
    assert standby.writes() == []


@pytest.mark.parametrize(
    "change",
    [
        {"renewTime": "2001-01-01T00:00:00.000000Z"},
        {"renewTime": "2099-01-01T00:00:00.000000Z", "leaseDurationSeconds": 3600},
    ],
    ids=["past", "future"],
)
def test_a_lease_whose_times_are_of_another_clock_stays_with_its_holder(trial, pair, change):
    leader, standby = pair
    for _ in range(3):
        trial.plane.api.merge(LEASE, {"spec": change})
        trial.plane.wait(lambda: trial.plane.api.get(LEASE)["spec"]["renewTime"] != change["renewTime"])
    assert leader.leads() and not standby.leads()
    assert trial.plane.api.get(LEASE)["spec"]["leaseDurationSeconds"] == 15
    trial.make()
    trial.settled("another clock's times in the lease")
    assert standby.writes() == []
