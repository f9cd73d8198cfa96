"""Keys that wait: the pure schedule against a slow model of it, and the queue with real waiting."""

import asyncio
import math

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kars.controller.queue import FIRST_PAUSE, LONGEST_PAUSE, Item, Queue, Schedule, jittered, pause
from kars.kube.types import Key

ITEMS = [Item(kind, Key("ns", f"n{number}")) for kind in ("A", "B", "C") for number in range(4)]
items = st.sampled_from(ITEMS)
delays = st.floats(0, 50, allow_nan=False)


class Model(RuleBasedStateMachine):
    """What a schedule means, said the slow way: one wanted time an item, and who is under way."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.schedule = Schedule(share=2)
        self.wanted = {}  # not under way: from when on
        self.active = {}  # under way: wanted again from when on, or None

    @rule(item=items, delay=delays)
    def add(self, item, delay):
        self.schedule.add_at(item, self.now + delay, self.now)
        at = self.now + delay
        if item in self.active:
            self.active[item] = min(at, math.inf if self.active[item] is None else self.active[item])
        else:
            self.wanted[item] = min(at, self.wanted.get(item, math.inf))

    @rule(delay=delays)
    def wait(self, delay):
        self.now += delay

    @rule()
    def take(self):
        busy = [one.kind for one in self.active]
        free = {item for item, at in self.wanted.items() if at <= self.now and busy.count(item.kind) < 2}
        item = self.schedule.take(self.now)
        if item is None:
            assert not free
        else:
            assert item in free
            del self.wanted[item]
            self.active[item] = None

    @precondition(lambda self: self.active)
    @rule(number=st.integers(0, 5))
    def done(self, number):
        item = sorted(self.active)[number % len(self.active)]
        self.schedule.done(item, self.now)
        again = self.active.pop(item)
        if again is not None:
            self.wanted[item] = again

    @invariant()
    def nothing_is_lost_and_nothing_grows(self):
        assert set(self.schedule.active) == set(self.active)
        assert set(self.schedule.since) | set(self.schedule.due) == set(self.wanted)
        assert not set(self.schedule.since) & set(self.schedule.due)
        assert len(self.schedule.heap) <= 2 * len(self.schedule.due) + 65
        assert self.schedule.known <= set(self.schedule.active) | set(self.wanted)

    @invariant()
    def the_alarm_is_never_late(self):
        due = self.schedule.next_due()
        waiting = [at for item, at in self.wanted.items() if item in self.schedule.due]
        assert (due is None and not waiting) or due <= min(waiting, default=math.inf)


TestSchedule = Model.TestCase


def test_kinds_take_turns_however_many_of_one_wait():
    schedule = Schedule(share=100)
    for number in range(50):
        schedule.add(Item("Many", Key("", f"m{number}")), 0.0)
    schedule.add(Item("Few", Key("", "f")), 0.0)
    assert [schedule.take(0.0).kind for _ in range(3)] == ["Many", "Few", "Many"]


def looked_at(schedule, items):
    """Have items looked at once and wanted again now."""
    for item in items:
        schedule.add(item, 0.0)
    assert [schedule.take(0.0) for _ in items] == items
    for item in items:
        schedule.add(item, 0.0)
        schedule.done(item, 0.0)


def test_what_was_begun_goes_before_what_is_new_but_for_every_fourth():
    schedule = Schedule(share=100)
    begun, new = ([Item("A", Key("ns", f"{sort}{number}")) for number in range(7)] for sort in ("begun", "new"))
    looked_at(schedule, begun)
    for item in new:
        schedule.add(item, 1.0)
    taken = [schedule.take(2.0).key.name for _ in range(14)]
    assert taken[:8] == ["begun0", "begun1", "begun2", "new0", "begun3", "begun4", "begun5", "new1"]
    assert taken[8:] == ["begun6", "new2", "new3", "new4", "new5", "new6"]
    assert schedule.take(2.0) is None


def test_what_is_gone_and_comes_back_is_new():
    schedule = Schedule(share=100)
    looked_at(schedule, [ITEMS[0]])
    schedule.done(schedule.take(0.0), 0.0)  # nobody wants it again
    schedule.add(ITEMS[1], 0.0)
    schedule.add(ITEMS[0], 0.0)
    assert [schedule.take(0.0), schedule.take(0.0)] == [ITEMS[1], ITEMS[0]]


def test_the_age_of_a_kind_is_that_of_its_oldest_of_either_sort():
    schedule = Schedule(share=100)
    looked_at(schedule, [ITEMS[4]])
    schedule.add(ITEMS[0], 1.0)
    schedule.add(ITEMS[5], 3.0)
    assert (schedule.age("A", 5.0), schedule.depth("A")) == (4.0, 1)
    assert (schedule.age("B", 5.0), schedule.depth("B")) == (5.0, 2)
    assert (schedule.age("C", 5.0), schedule.depth("C")) == (0.0, 0)


def test_a_kind_never_has_more_than_its_share_under_way():
    schedule = Schedule(share=2)
    for number in range(5):
        schedule.add(Item("Slow", Key("", f"s{number}")), 0.0)
    assert schedule.take(0.0)
    held = schedule.take(0.0)
    assert schedule.take(0.0) is None
    schedule.add(Item("Other", Key("", "o")), 0.0)
    assert schedule.take(0.0).kind == "Other"
    schedule.done(held, 0.0)
    assert schedule.take(0.0).kind == "Slow"


def test_superseded_delays_do_not_pile_up():
    schedule = Schedule(share=1)
    for number in range(10_000):
        schedule.add_at(ITEMS[0], 1e6 - number, 0.0)
    assert len(schedule.heap) < 100
    assert schedule.next_due() <= 1e6 - 9_999


@given(st.integers(0, 10_000))
def test_pauses_grow_are_jittered_and_bounded(failures):
    bound = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures, 50))
    assert bound / 10 <= pause(failures) <= bound


@given(st.floats(0.001, 1e4))
def test_a_jittered_time_is_within_a_fifth(seconds):
    assert 0.8 * seconds <= jittered(seconds) <= 1.2 * seconds


def run(test):
    return asyncio.run(asyncio.wait_for(test(), 10))


def test_a_worker_is_woken_by_an_item_and_by_its_time():
    async def test():
        queue = Queue(workers=4)
        worker = asyncio.create_task(queue.take())
        await asyncio.sleep(0)
        queue.add(ITEMS[0])
        assert await worker == ITEMS[0]
        queue.done(ITEMS[0])
        began = queue.clock()
        queue.add(ITEMS[1], after=30)
        queue.add(ITEMS[1], after=0.05)
        assert await queue.take() == ITEMS[1]
        assert 0.04 < queue.clock() - began < 5

    run(test)


def test_an_item_that_changes_while_under_way_is_handed_out_once_more_and_never_twice_at_once():
    async def test():
        queue = Queue(workers=4)
        queue.add(ITEMS[0])
        assert await queue.take() == ITEMS[0]
        for _ in range(5):
            queue.add(ITEMS[0])
        other = asyncio.create_task(queue.take())
        await asyncio.sleep(0.02)
        assert not other.done()
        queue.done(ITEMS[0])
        assert await other == ITEMS[0]
        queue.done(ITEMS[0])
        assert queue.schedule.depth("A") == 0

    run(test)


def test_every_waiting_worker_gets_one_of_many_items():
    async def test():
        queue = Queue(workers=12)
        workers = [asyncio.create_task(queue.take()) for _ in ITEMS]
        await asyncio.sleep(0)
        for item in ITEMS:
            queue.add(item)
        assert sorted(await asyncio.gather(*workers)) == sorted(ITEMS)

    run(test)


def test_a_worker_that_is_cancelled_while_it_is_woken_passes_that_on():
    async def test():
        queue = Queue(workers=4)
        first, second = asyncio.create_task(queue.take()), asyncio.create_task(queue.take())
        await asyncio.sleep(0)
        queue.add(ITEMS[0])
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second == ITEMS[0]

    run(test)


def test_closing_lets_everyone_go_and_hands_nothing_out():
    async def test():
        queue = Queue(workers=4)
        workers = [asyncio.create_task(queue.take()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.close()
        assert await asyncio.gather(*workers) == [None, None, None]
        queue.add(ITEMS[0])
        assert await queue.take() is None
        assert queue.timer is None

    run(test)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_an_alarm_for_what_is_due_at_this_moment_can_be_set_again(loop):
    """uvloop makes no timer of a time that is up, and what it makes instead does not say when."""

    async def test():
        queue = Queue(workers=1)
        queue.schedule.add_at(ITEMS[0], queue.clock() + 0.0003, queue.clock())
        for _ in range(3):
            queue.arm()
        assert await queue.take() == ITEMS[0]
        queue.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(test())


def test_what_fails_waits_longer_where_much_does():
    async def test():
        queue = Queue(workers=1)
        assert queue.crowded(8.0, rate=20.0) == 8.0
        for number in range(400):
            queue.retry(Item("A", Key("", str(number))), after=60)
        assert queue.crowded(8.0, rate=20.0) == 20.0
        assert max(queue.retry(ITEMS[0], longest=2.0) for _ in range(60)) <= 2.0
        queue.close()

    run(test)


def test_failures_in_a_row_are_counted_until_one_succeeds():
    async def test():
        queue = Queue(workers=1)
        longest = [max(queue.retry(ITEMS[0]) for _ in range(1)) for _ in range(60)]
        assert max(longest) <= LONGEST_PAUSE
        assert queue.failures[ITEMS[0]] == 20
        queue.forget(ITEMS[0])
        assert queue.retry(ITEMS[0]) <= FIRST_PAUSE
        assert 48 <= queue.retry(ITEMS[1], after=60) <= 72
        queue.close()

    run(test)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_alarm_whose_time_has_come_does_not_keep_others_from_being_set(loop):
    """As on a busy loop, whose clock is past what was due when the alarm is set; uvloop gives no timer then."""

    async def test():
        began = asyncio.get_running_loop().time() - 1.0
        queue = Queue(workers=4, clock=lambda: began)
        queue.add(ITEMS[0], after=0.5)
        queue.add(ITEMS[1], after=0.4)
        queue.add(ITEMS[2], after=100.0)
        queue.clock = asyncio.get_running_loop().time
        async with asyncio.timeout(5):
            assert [await queue.take(), await queue.take()] == [ITEMS[1], ITEMS[0]]
        queue.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(test())


def test_ten_thousand_items_pass_through_without_a_quadratic_step():
    async def test():
        queue = Queue(workers=16)
        many = [Item("A", Key("", str(number))) for number in range(10_000)]
        for number, item in enumerate(many):
            queue.add(item, after=0 if number % 2 else 0.001)
        seen = 0

        async def work():
            nonlocal seen
            while (item := await queue.take()) is not None:
                seen += 1
                queue.add(item, after=300)
                queue.done(item)
                if seen == len(many):
                    queue.close()

        await asyncio.gather(*(work() for _ in range(16)))
        assert seen == len(many)
        assert len(queue.schedule.heap) <= 2 * len(many) + 64

    run(test)
