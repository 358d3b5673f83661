"""Whose turn it is among streams of different weights: simulated reads from backlogs that are full, run dry and fill again."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from streamworker.worker.shares import Shares

WEIGHTS = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 20), min_size=2)
ROOMS = st.lists(st.integers(1, 50), min_size=20, max_size=60)


def read(shares: Shares, backlog: dict[str, int], room: int) -> Counter[str]:
    """One read as the server does it: from stream to stream, until the room is full."""
    taken = Counter[str]()
    for stream in shares.order(backlog):
        taken[stream] = min(backlog[stream], room - taken.total())
        backlog[stream] -= taken[stream]
    shares.took(+taken)
    return taken


@given(WEIGHTS, ROOMS)
def test_full_backlogs_give_in_the_ratio_of_their_weights(weights: dict[str, int], rooms: list[int]) -> None:
    """At any moment, each is at most one full read by its weight ahead of, or behind, each other."""
    shares, backlog, total = Shares(weights), dict.fromkeys(weights, 10**9), Counter[str]()

    for room in rooms:
        total += read(shares, backlog, room)
        served = {stream: total[stream] / weights[stream] for stream in weights}
        assert max(served.values()) - min(served.values()) <= max(rooms) / min(weights.values()) + 1e-6


@given(WEIGHTS, ROOMS, st.data())
def test_no_room_is_left_while_anything_waits(weights: dict[str, int], rooms: list[int], data: st.DataObject) -> None:
    """What one has not is given to the others at once."""
    shares, backlog = Shares(weights), dict.fromkeys(weights, 0)

    for room in rooms:
        backlog[data.draw(st.sampled_from(sorted(weights)))] += data.draw(st.integers(0, 60))
        waiting = sum(backlog.values())
        assert min(room, waiting) == read(shares, backlog, room).total()


@given(WEIGHTS, ROOMS, st.data())
def test_none_waits_longer_than_a_round(weights: dict[str, int], rooms: list[int], data: st.DataObject) -> None:
    """However many come to the others: one that has something is asked first after as many reads as the weights allow the others."""
    shares, backlog = Shares(weights), dict.fromkeys(weights, 10**9)
    poor = data.draw(st.sampled_from(sorted(weights)))
    backlog[poor] = 0
    for room in rooms:
        read(shares, backlog, room)

    backlog[poor] = 1
    others, reads = sum(weights.values()) - weights[poor], 0
    while read(shares, backlog, 1)[poor] == 0:
        reads += 1
        assert reads <= others * max(rooms) / min(weights.values()) + len(weights)


@given(WEIGHTS, ROOMS, ROOMS, st.data())
def test_who_had_nothing_has_saved_nothing_up(
    weights: dict[str, int], idle: list[int], busy: list[int], data: st.DataObject
) -> None:
    """After a long time without entries, a stream takes its share, and not what it did not take before."""
    shares, backlog, total = Shares(weights), dict.fromkeys(weights, 10**9), Counter[str]()
    late = data.draw(st.sampled_from(sorted(weights)))
    backlog[late] = 0
    for room in idle:
        read(shares, backlog, room)

    backlog[late] = 10**9
    for room in busy:
        total += read(shares, backlog, room)
    for stream in weights.keys() - {late}:
        most = total[stream] / weights[stream] + 2 * max(*idle, *busy) / min(weights.values())
        assert total[late] / weights[late] <= most


def test_the_heavier_one_comes_first_where_none_has_had_more() -> None:
    """At the beginning, and when all backlogs are gone."""
    shares = Shares({"low": 1, "high": 3})

    assert ["high", "low"] == shares.order(["low", "high"])


def test_a_stream_that_could_not_be_read_does_not_make_up_for_it() -> None:
    """Its handlers were paused, or its key was of another type."""
    shares, backlog = Shares({"a": 1, "b": 1}), {"a": 10**9, "b": 10**9}
    for _ in range(100):
        shares.order(["a"])
        shares.took({"a": 10})

    taken = sum((read(shares, backlog, 10) for _ in range(10)), Counter[str]())

    assert {"a": 50, "b": 50} == taken
