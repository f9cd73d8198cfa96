"""Leader election against a server that keeps one Lease under optimistic locking, and fails as told."""

import asyncio
import time

import pytest

from kars.kube.client import Client
from kars.kube.lease import Lease, Lost, now
from kars.kube.types import Key
from tests.unit.kube.server import broken, serve, silent, status

KEY = Key("kars-system", "kars-controller-leader")
DURATION, RENEW = 1.2, 0.3


class Leases:
    """The server: `fail` is what it answers instead, `lose` writes whose answers it does not send."""

    def __init__(self):
        self.lease = None
        self.fail = None
        self.lose = 0

    def __call__(self, asked):
        if self.fail is not None:
            return self.fail
        if asked.method == "GET":
            return (200, self.lease) if self.lease else (404, status(404))
        if asked.method == "POST" and self.lease:
            return 409, status(409, "AlreadyExists")
        wanted = asked.body["metadata"].get("resourceVersion")
        if self.lease and wanted != self.lease["metadata"]["resourceVersion"]:
            return 409, status(409, "Conflict")
        version = str(int(wanted or 0) + 1)
        self.lease = {**asked.body, "metadata": {**asked.body["metadata"], "resourceVersion": version}}
        if self.lose:
            self.lose -= 1
            return broken
        return 200, self.lease

    @property
    def holder(self):
        return self.lease["spec"]["holderIdentity"]


def play(folder, use):
    """Run `use(server, candidate)`; candidate(name) makes a Lease over one shared client."""

    async def main():
        server = Leases()
        async with serve(server, folder) as scripted, await Client.connect(kubeconfig=scripted.kubeconfig) as client:

            def candidate(name, duration=DURATION, renew=RENEW):
                return Lease(client, KEY, identity=name, duration=duration, renew=renew)

            await use(server, candidate)

    asyncio.run(main())


async def within(seconds, awaitable):
    async with asyncio.timeout(seconds):
        return await awaitable


def test_the_record_is_what_client_go_writes(tmp_path):
    async def use(server, candidate):
        one = candidate("one")
        await within(2, one.acquire())
        spec = server.lease["spec"]
        assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("one", 2, 0)
        assert len(spec["renewTime"]) == len("2006-01-02T15:04:05.000000Z")
        assert spec["acquireTime"] == spec["renewTime"]
        await one.release()
        assert (server.holder, server.lease["spec"]["leaseDurationSeconds"]) == ("", 1)
        two = candidate("two")
        await within(1, two.acquire())
        assert server.lease["spec"]["leaseTransitions"] == 1

    play(tmp_path, use)


def test_a_holder_that_renews_is_waited_for_whatever_its_clock_says(tmp_path):
    async def use(server, candidate):
        one, two = candidate("one"), candidate("two")
        await one.acquire()
        holding = asyncio.create_task(one.hold())
        with pytest.raises(TimeoutError):
            await within(3, two.acquire())
        server.lease["spec"]["renewTime"] = "1999-01-01T00:00:00.000000Z"
        assert one.leads()
        assert not two.leads()
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)

    play(tmp_path, use)


def test_a_holder_is_waited_for_although_somebody_sets_its_times_back_after_each_renewal(tmp_path):
    async def use(server, candidate):
        one, two = candidate("one"), candidate("two")
        await one.acquire()
        asyncio.get_running_loop().call_later(3, following.append, None)
        following.append(asyncio.create_task(two.acquire()))
        holding = asyncio.create_task(one.hold())
        while len(following) == 1 and not following[0].done():
            if server.lease["spec"]["renewTime"] != past:
                spec, version = server.lease["spec"], int(server.lease["metadata"]["resourceVersion"])
                server.lease = {
                    **server.lease,
                    "metadata": {**server.lease["metadata"], "resourceVersion": str(version + 1)},
                    "spec": {**spec, "renewTime": past},
                }
            await asyncio.sleep(0.002)
        assert one.leads()
        assert not two.leads()
        for task in (following[0], holding):
            task.cancel()
        await asyncio.gather(following[0], holding, return_exceptions=True)

    past, following = "2001-01-01T00:00:00.000000Z", []
    play(tmp_path, use)


def test_a_holder_that_stops_is_succeeded_only_after_its_duration_and_has_stopped_before(tmp_path):
    async def use(server, candidate):
        one, two = candidate("one", 2.0, 0.4), candidate("two", 2.0, 0.4)
        await one.acquire()
        began = time.monotonic()
        following = asyncio.create_task(two.acquire())
        while one.leads():
            await asyncio.sleep(0.01)
        stopped = time.monotonic() - began
        await within(5, following)
        assert stopped < 1.5
        assert time.monotonic() - began >= 1.9

    play(tmp_path, use)


def test_a_namesake_waits_like_anybody(tmp_path):
    async def use(server, candidate):
        one, two = candidate("same"), candidate("same")
        await one.acquire()
        holding = asyncio.create_task(one.hold())
        with pytest.raises(TimeoutError):
            await within(2, two.acquire())
        # One misses a renewal, and two has its turn.
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        await within(4, two.acquire())
        one.renewed = now()
        with pytest.raises(Lost, match="same holds"):
            await within(2, one.hold())

    play(tmp_path, use)


def test_another_holder_ends_the_hold(tmp_path):
    async def use(server, candidate):
        one = candidate("one")
        await one.acquire()
        server.lease = {
            **server.lease,
            "metadata": {**server.lease["metadata"], "resourceVersion": "77"},
            "spec": {**server.lease["spec"], "holderIdentity": "two"},
        }
        with pytest.raises(Lost, match="two holds"):
            await within(2, one.hold())
        assert not one.leads()
        await one.release()
        assert server.holder == "two"

    play(tmp_path, use)


@pytest.mark.parametrize("failure", [broken, silent, (500, status(500)), (403, status(403))])
def test_renewals_that_fail_end_the_hold_before_the_lease_runs_out(tmp_path, failure):
    async def use(server, candidate):
        one = candidate("one")
        await one.acquire()
        began = time.monotonic()
        server.fail = failure
        with pytest.raises(Lost, match="could not renew"):
            await within(3, one.hold())
        assert 0.6 < time.monotonic() - began < DURATION

    play(tmp_path, use)


def test_a_short_outage_is_survived(tmp_path):
    async def use(server, candidate):
        one = candidate("one", 3.0, 0.4)
        await one.acquire()
        holding = asyncio.create_task(one.hold())
        server.fail = (503, status(503))
        await asyncio.sleep(1.0)
        server.fail = None
        await asyncio.sleep(2.0)
        assert not holding.done()
        assert one.leads()
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)

    play(tmp_path, use)


def test_a_renewal_whose_answer_was_lost_is_known_as_our_own(tmp_path):
    async def use(server, candidate):
        one = candidate("one")
        server.lose = 1
        await within(2, one.acquire())
        holding = asyncio.create_task(one.hold())
        for _ in range(3):
            server.lose = 1
            await asyncio.sleep(0.6)
        assert not holding.done()
        assert one.leads()
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)

    play(tmp_path, use)


@pytest.mark.parametrize("number", [2, 3, 8])
def test_of_many_that_ask_at_once_one_leads(tmp_path, number):
    async def use(server, candidate):
        all_ = [candidate(f"c{index}", 6.0, 0.3) for index in range(number)]
        tasks = [asyncio.create_task(one.acquire()) for one in all_]
        await asyncio.sleep(0.8)
        assert sum(one.leads() for one in all_) == 1
        assert sum(task.done() for task in tasks) == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    play(tmp_path, use)


def test_a_claim_of_ages_is_bounded_and_nonsense_is_our_own_duration():
    from kars.kube import lease

    assert lease.claimed({"leaseDurationSeconds": 10**9}, 15.0) == lease.LONGEST
    assert lease.claimed({"leaseDurationSeconds": 0}, 15.0) == 15.0
    assert lease.claimed({}, 15.0) == 15.0


def test_giving_up_never_raises(tmp_path):
    async def use(server, candidate):
        one = candidate("one")
        await one.release()
        await one.acquire()
        server.fail = broken
        await one.release()
        assert not one.leads()

    play(tmp_path, use)


@pytest.mark.parametrize(("duration", "renew"), [(10.0, 6.0), (10.0, 0.0), (1.0, 1.0)])
def test_times_that_cannot_work_are_refused(duration, renew):
    with pytest.raises(ValueError, match="at most half"):
        Lease(None, KEY, identity="one", duration=duration, renew=renew)
