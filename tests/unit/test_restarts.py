"""When a supervisor tries again, when it gives up, and what its exit code says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.observe.descriptions import in_words
from streamworker.supervisor.restarts import (
    LONGEST_PAUSE_SECONDS,
    MOST_EARLY_DEATHS,
    as_exit_code,
    ends_all,
    has_lived,
    is_crash_loop,
    pause_seconds,
    worst,
)
from streamworker.worker.exits import ExitCode


@given(deaths=st.integers(0, 10_000), random=st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_longer_than_the_longest(deaths: int, random: float) -> None:
    """However often children have died; and full jitter begins at nothing."""
    assert 0 <= pause_seconds(deaths, random) <= LONGEST_PAUSE_SECONDS
    assert 0 == pause_seconds(deaths, 0)


def test_pauses_grow() -> None:
    """Doubling, up to the longest."""
    assert [0.5, 0.5, 1, 2, 4, 8, 16, 30, 30] == [pause_seconds(deaths, 1) for deaths in range(9)]


def test_one_place_that_still_has_hope_is_no_crash_loop() -> None:
    """Somebody who lives keeps the others trying; nobody at all is no loop either."""
    assert is_crash_loop([MOST_EARLY_DEATHS, MOST_EARLY_DEATHS + 3])
    assert not is_crash_loop([MOST_EARLY_DEATHS, MOST_EARLY_DEATHS - 1])
    assert not is_crash_loop([100, 0])
    assert not is_crash_loop([])


def test_who_was_ready_for_long_has_lived() -> None:
    """Who never was has not, however long the start took."""
    assert has_lived(10.0)
    assert not has_lived(9.9)
    assert not has_lived(None)


@pytest.mark.parametrize(("code", "ready", "ends"), [(2, False, True), (3, False, True), (2, True, False), (1, False, False)])
def test_only_what_would_befall_every_child_ends_all(code: int, ready: bool, ends: bool) -> None:
    """Wrong usage or no server, before any child was ready."""
    assert ends == ends_all(code, anybody_was_ready=ready)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((), 0), ((0, 0), 0), ((0, 4), 4), ((4, 130, 0), 130), ((130, 1), 1), ((3, 0), 3), ((3, 2), 2), ((1, 2), 1)],
)
def test_the_worst_end_is_that_of_all(codes: tuple[int, ...], expected: int) -> None:
    """Not the greatest number: a failure is worse than an interrupt."""
    assert expected == worst(map(ExitCode, codes))


def test_a_childs_end_is_one_of_our_exit_codes() -> None:
    """A signal and a code of somebody else's are failures; whom we had to kill has overrun its grace."""
    assert [ExitCode.DONE, ExitCode.GRACE_EXCEEDED, ExitCode.FAILURE, ExitCode.FAILURE] == [
        as_exit_code(code, killed_by_us=False) for code in (0, 4, -11, 77)
    ]
    assert ExitCode.GRACE_EXCEEDED is as_exit_code(-9, killed_by_us=True)


def test_an_end_is_told_in_words() -> None:
    """Signals by their names."""
    assert ["exit code 1", "SIGKILL", "signal 63"] == [in_words(code) for code in (1, -9, -63)]
