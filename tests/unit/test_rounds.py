"""Many streams are asked a part at a time, as long as most of them have much: each has its turn, and never more is asked for than fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamworker.worker.pools import Pool, pools_of
from streamworker.worker.rounds import MOST_EACH, Rounds
from tests.factories import a_binding, a_handler


def a_pool(streams: int, places: int) -> Pool:
    """All streams for one handler that has so many places."""
    [pool] = pools_of([a_binding(str(number), a_handler(name="a")) for number in range(streams)], {"a": places})
    return pool


@given(streams=st.integers(2, 60), places=st.integers(1, 400), reads=st.integers(0, 20))
def test_each_stream_has_its_turn_and_never_more_is_asked_for_than_fits(streams: int, places: int, reads: int) -> None:
    """However many there are, whatever the room, and whatever they gave so far."""
    pool, rounds, asked = a_pool(streams, places), Rounds(), list[str]()
    for _ in range(reads):
        rounds.saw(1, 1)
    while len(asked) < streams and (part := rounds.part([pool])) is not None:
        names = [binding.keys.stream for binding in part.bindings]
        asked += names

        assert len(set(names)) == len(names) < streams
        assert 1 <= part.room // part.width <= MOST_EACH
        assert part.room <= pool.room

    assert not asked or {str(number) for number in range(streams)} == set(asked)


def test_what_gives_little_is_asked_as_a_whole() -> None:
    """A part is for those that give at least half of what they are asked for."""
    pool, rounds = a_pool(streams=50, places=20), Rounds()

    assert rounds.part([pool]) is None  # nobody knows yet
    rounds.saw(100, 50)
    assert rounds.part([pool]) is not None
    assert rounds.part([pool, pool]) is None  # they have rooms of their own
    rounds.saw(100, 49)
    assert rounds.part([pool]) is None
