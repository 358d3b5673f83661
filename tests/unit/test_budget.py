"""How many bytes of entries a process holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamworker.worker.budget import EXPECTED_AT_FIRST, ByteBudget


@given(st.integers(1, 10_000), st.lists(st.integers(0, 5_000)))
def test_what_is_taken_comes_back(limit: int, sizes: list[int]):
    """Whatever the order; overdrawn or not, nothing is left that is less than nothing."""
    budget = ByteBudget(limit)

    for size in sizes:
        budget.take(size)
        assert 0 <= budget.left <= limit
    during = budget.left
    for size in sizes:
        budget.give_back(size)

    assert max(0, limit - sum(sizes)) == during
    assert limit == budget.left


def test_who_waits_for_room_is_called_when_there_is_some_again():
    """Once, not at every entry that goes."""
    budget, calls = ByteBudget(10), []
    budget.listen(lambda: calls.append(budget.left))

    for size in (6, 6, 3):
        budget.take(size)
    for size in (3, 6, 6):
        budget.give_back(size)

    assert [4] == calls


def test_the_next_entry_is_expected_to_be_as_large_as_the_largest_of_late():
    """A large one is remembered for a while, and forgotten in time."""
    budget = ByteBudget(10**9)
    at_first = budget.expected
    budget.take(1_000_000)
    soon = budget.expected
    for _ in range(500):
        budget.take(100)

    assert (EXPECTED_AT_FIRST, 1_000_000) == (at_first, soon)
    assert 100 <= budget.expected < 1_000
