"""A trouble is said when it begins, now and then while it lasts, and when it is over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from streamworker.observe.troubles import CALM, REMINDER, Trouble
from tests.factories import Clock, Recorder


@pytest.fixture
def log() -> Recorder:
    return Recorder()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trouble(log: Recorder, clock: Clock) -> Trouble:
    return Trouble(log, "reading", clock=clock, group="billing")


def test_the_first_failure_is_said_at_once(trouble: Trouble, log: Recorder) -> None:
    """With what it is about."""
    trouble.strikes("no connection", stream="orders")

    assert [
        ("error", "reading.failing", {"group": "billing", "error": "no connection", "failures": 1, "stream": "orders"})
    ] == log.lines


def test_a_trouble_that_lasts_is_said_once_a_minute(trouble: Trouble, log: Recorder, clock: Clock) -> None:
    """However often it strikes."""
    for _ in range(600):
        trouble.strikes("no connection")
        clock.advance(timedelta(milliseconds=500))

    assert [1, 121, 241, 361, 481] == [facts["failures"] for _, _, facts in log.lines]


def test_the_reminder_comes_after_its_time_and_not_before(trouble: Trouble, log: Recorder, clock: Clock) -> None:
    """To the instant."""
    trouble.strikes("no connection")
    clock.advance(REMINDER - timedelta(seconds=1))
    trouble.strikes("no connection")
    clock.advance(timedelta(seconds=1))
    trouble.strikes("no connection")

    assert [1, 3] == [facts["failures"] for _, _, facts in log.lines]


def test_another_trouble_of_the_same_thing_is_said_at_once(trouble: Trouble, log: Recorder) -> None:
    """It may want another repair; the count goes on."""
    trouble.strikes("no connection")
    trouble.strikes("no permission")
    trouble.strikes("no permission")

    assert [("no connection", 1), ("no permission", 2)] == [(facts["error"], facts["failures"]) for _, _, facts in log.lines]


def test_its_end_is_said_once(trouble: Trouble, log: Recorder, clock: Clock) -> None:
    """With how long it lasted, and how often it struck."""
    trouble.strikes("no connection")
    clock.advance(timedelta(seconds=90))
    trouble.strikes("no connection")
    clock.advance(timedelta(milliseconds=1500))
    trouble.is_over()
    trouble.is_over()

    assert ["reading.failing", "reading.failing", "reading.recovered"] == log.events
    assert ("info", {"group": "billing", "failures": 2, "seconds": 91.5}) == (log.lines[-1][0], log.lines[-1][2])


def test_what_never_went_wrong_has_no_end(trouble: Trouble, log: Recorder) -> None:
    """A sound worker says nothing."""
    trouble.is_over()

    assert [] == log.lines


def test_a_trouble_that_comes_back_after_a_calm_begins_anew(trouble: Trouble, log: Recorder, clock: Clock) -> None:
    """It is said at once, and counted from one."""
    trouble.strikes("no connection")
    trouble.strikes("no connection")
    trouble.is_over()
    clock.advance(CALM)
    trouble.strikes("no connection")

    assert ["reading.failing", "reading.recovered", "reading.failing"] == log.events
    assert 1 == log.lines[-1][2]["failures"]


def test_a_trouble_that_comes_and_goes_is_not_said_each_time(trouble: Trouble, log: Recorder, clock: Clock) -> None:
    """One step that fails between others that go well would flood the log otherwise; the reminder comes all the same."""
    for _ in range(100):
        trouble.strikes("no room")
        clock.advance(timedelta(milliseconds=10))
        trouble.is_over()
    clock.advance(REMINDER - timedelta(seconds=1))
    trouble.strikes("no room")

    assert ["reading.failing", "reading.recovered", "reading.failing"] == log.events


def test_it_is_known_whether_it_lasts(trouble: Trouble) -> None:
    """From its first strike to its end."""
    assert not trouble.lasts

    trouble.strikes("no connection")
    assert trouble.lasts

    trouble.is_over()
    assert not trouble.lasts
