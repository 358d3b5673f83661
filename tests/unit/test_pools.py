"""Which streams share their room, and what is read first."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from streamworker.policies import BatchLimits
from streamworker.worker.bindings import Binding
from streamworker.worker.pools import Pool, pools_of
from tests.factories import a_binding, a_delivery, a_handler

NAMES = "abcdef"
LIMITS = {name: number for number, name in enumerate(NAMES, 1)}


def _binding(stream: str, *names: str) -> Binding:
    return a_binding(stream, *(a_handler(name=name, type=None if number == 0 else name) for number, name in enumerate(names)))


def _streams(pools: list[Pool]) -> set[frozenset[str]]:
    return {frozenset(binding.keys.stream for binding in pool.bindings) for pool in pools}


def test_streams_without_a_common_handler_are_apart() -> None:
    """A full one must not hold up the other."""
    pools = pools_of([_binding("orders", "a"), _binding("clicks", "b")], LIMITS)

    assert {frozenset({"orders"}), frozenset({"clicks"})} == _streams(pools)


def test_streams_of_one_handler_share_its_room() -> None:
    """Or together they would be read for more than it can run."""
    pools = pools_of([_binding("orders", "a"), _binding("clicks", "a")], LIMITS)

    assert {frozenset({"orders", "clicks"})} == _streams(pools)
    assert 1 == pools[0].room


def test_streams_that_overlap_through_a_third_share_their_room() -> None:
    """Also where the one that joins them comes last, or first."""
    apart = [_binding("1", "a"), _binding("2", "b")]
    joining = _binding("3", "a", "b")

    assert {frozenset("123")} == _streams(pools_of([*apart, joining], LIMITS))
    assert {frozenset("123")} == _streams(pools_of([joining, *apart], LIMITS))


def test_a_pool_has_as_much_room_as_its_handlers_together() -> None:
    """Less what is held."""
    [pool] = pools_of([_binding("orders", "b", "c")], LIMITS)

    pool.lanes.offer("b", (a_delivery(), a_handler()))

    assert 2 + 3 - 1 == pool.room


def test_all_retry_streams_are_read_before_any_stream() -> None:
    """What waits longest goes first."""
    [pool] = pools_of([_binding("orders", "a"), _binding("clicks", "a")], LIMITS)

    assert ("{orders}:retry:billing", "{clicks}:retry:billing", "orders", "clicks") == pool.ready_keys()


def test_a_stream_that_is_not_ready_is_not_read() -> None:
    """The others go on."""
    troubled = _binding("orders", "a")
    troubled.ready = False
    [pool] = pools_of([troubled, _binding("clicks", "a")], LIMITS)

    assert ("{clicks}:retry:billing", "clicks") == pool.ready_keys()


@given(st.lists(st.sets(st.sampled_from(NAMES), min_size=1), min_size=1, max_size=6))
def test_pools_are_the_connected_parts(handlers_of: list[set[str]]) -> None:
    """Every stream is in one pool, no handler is in two, and no pool could be parted further."""
    bindings = [_binding(f"stream-{number}", *sorted(names)) for number, names in enumerate(handlers_of)]

    pools = pools_of(bindings, LIMITS)

    names_of = [{handler.name for binding in pool.bindings for handler in binding.handlers} for pool in pools]
    assert sorted(map(id, bindings)) == sorted(id(binding) for pool in pools for binding in pool.bindings)
    assert sum(map(len, names_of)) == len(set().union(*names_of))
    for pool, names in zip(pools, names_of, strict=True):
        assert sum(LIMITS[name] for name in names) == pool.room
        assert names == _reachable(pool.bindings[0], pool)


def _reachable(binding: Binding, pool: Pool) -> set[str]:
    """The handlers that are reached from one stream by way of common handlers."""
    found = {handler.name for handler in binding.handlers}
    while True:
        touching = [other for other in pool.bindings if found & {handler.name for handler in other.handlers}]
        more = {handler.name for other in touching for handler in other.handlers}
        if more == found:
            return found
        found = more


def test_a_handler_of_batches_has_room_for_its_batches_and_no_lane_of_its_own() -> None:
    """So a pool that is full is not read in part for it; what others have free still is."""
    batched = a_handler(name="a", batch=BatchLimits(10, timedelta(seconds=1)))
    both = a_binding("orders", batched, a_handler(name="b", type="b"))
    [pool] = pools_of([both, _binding("clicks", "b")], {"a": 3, "b": 2})

    assert 3 * 10 + 2 == pool.room
    pool.lanes.enter_beside(3 * 10 + 2)
    part = pool.part_with_room()

    assert 0 == pool.room
    assert part is not None
    assert (["clicks"], 2) == ([binding.keys.stream for binding in part.bindings], part.room)


class Gated:
    """A gate that lets so many more start soon."""

    def __init__(self, room: int, *, shut: bool = False) -> None:
        self.room, self.is_shut = room, shut

    def admit(self) -> bool:
        return False


def test_nothing_is_read_that_may_not_start() -> None:
    """Not the streams of which every handler is shut; and for handlers that all have gates, no more than these let through soon."""
    [pool] = pools_of([_binding("1", "c"), _binding("2", "c", "d")], LIMITS)
    for binding in pool.bindings:
        binding.ready = True
    streams = lambda: {binding.keys.stream for binding in pool.readable}  # noqa: E731

    assert ({"1", "2"}, 7) == (streams(), pool.room)
    pool.lanes.gates = {"c": Gated(0, shut=True)}
    assert ({"2"}, 4, True, 2) == (streams(), pool.room, pool.is_worth_reading, pool.width)
    assert pool.ready_keys() == ("{2}:retry:billing", "2")
    pool.lanes.gates = {"c": Gated(2), "d": Gated(1)}
    assert ({"1", "2"}, 3) == (streams(), pool.room)
    pool.lanes.gates = {"c": Gated(0, shut=True), "d": Gated(0, shut=True)}
    assert (set(), 0, False) == (streams(), pool.room, pool.is_worth_reading)
