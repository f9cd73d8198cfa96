"""What is on its way is told at a pace."""

import pytest

from kars.controller.pace import Pace


class Clock:
    """Time that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pace(clock):
    return Pace(first=1.0, between=5.0, clock=clock)


def test_the_first_step_waits(pace, clock):
    assert pace.wait("a") == 1.0
    clock.now += 0.75
    assert pace.wait("a") == 0.25
    clock.now += 0.25
    assert pace.wait("a") == 0.0


def test_steps_after_the_first_are_apart(pace, clock):
    pace.wait("a")
    clock.now += 1.0
    assert pace.wait("a") == 0.0
    clock.now += 2.0
    assert pace.wait("a") == 3.0
    clock.now += 3.0
    assert pace.wait("a") == 0.0


def test_a_step_that_comes_late_is_not_made_up_for(pace, clock):
    pace.wait("a")
    clock.now += 60.0
    assert pace.wait("a") == 0.0
    assert pace.wait("a") == 5.0


def test_each_has_its_own_pace_and_what_is_forgotten_begins_anew(pace, clock):
    pace.wait("a")
    clock.now += 1.0
    assert pace.wait("b") == 1.0
    pace.forget("a")
    assert pace.wait("a") == 1.0
    pace.forget("never seen")
