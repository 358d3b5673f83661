"""When it is safe to take entries for abandoned."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from streamworker.worker.sweep_guard import SweepGuard

LEASE = timedelta(seconds=30)


def test_it_begins_with_a_hold():
    """Nobody knows what went on before; two thirds of a lease are enough for everybody who lives to renew."""
    guard = SweepGuard(LEASE, now=100)

    assert guard.holds(119.9)
    assert not guard.holds(120)


def test_trouble_makes_it_hold_again():
    """From the last trouble on."""
    guard = SweepGuard(LEASE, now=0)
    guard.hold(100)
    guard.hold(90)

    assert guard.holds(119.9)
    assert not guard.holds(120)


def test_before_the_first_look_no_time_is_early_enough():
    """So that the first sweep only looks at the clock."""
    assert 0 == SweepGuard(LEASE, now=0).latest_ms(5)


@given(st.integers(0, 2**45), st.floats(0, 1e6), st.floats(0, 1e5))
def test_a_sweep_may_be_a_quarter_of_a_lease_late(server_ms: int, at: float, later: float):
    """By the server's clock as it was seen last, and ours since."""
    guard = SweepGuard(LEASE, now=0)
    guard.saw(server_ms, at)

    assert abs(guard.latest_ms(at + later) - (server_ms + later * 1000 + 7_500)) <= 1


@given(st.integers(2**40, 2**45), st.integers(-(2**32), 2**32))
def test_a_jump_is_told(server_ms: int, jump_ms: int):
    """Forward or backward; and the next look begins from there."""
    guard = SweepGuard(LEASE, now=0)

    first = guard.saw(server_ms, 10)
    moved = guard.saw(server_ms + 1_000 + jump_ms, 11)
    settled = guard.saw(server_ms + 2_000 + jump_ms, 12)

    assert (timedelta(0), timedelta(milliseconds=jump_ms), timedelta(0)) == (first, moved, settled)
