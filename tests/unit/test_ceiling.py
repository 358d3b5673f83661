"""Places that all handlers of a process share: simulated handlers with lines of their own."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from streamworker.worker.ceiling import Ceiling, places


@dataclass(eq=False)
class Hungry:
    """A handler with something in its line."""

    name: str
    ceiling: Ceiling
    waiting: int = 0
    running: int = 0
    begun: list[Hungry] = field(default_factory=list)
    """All that have started, in order; shared."""
    stuck: bool = False
    """It says that it could start, and never does."""

    @property
    def could_start(self) -> bool:
        return self.waiting > 0 or self.stuck

    def start_what_may(self) -> None:
        while self.waiting and self.ceiling.admits(self):
            self.waiting -= 1
            self.running += 1
            self.ceiling.began(self)
            self.begun.append(self)

    def end_one(self) -> None:

        self.running -= 1
        self.ceiling.freed()


def a_ceiling(limit: int, **waiting: int) -> tuple[Ceiling, list[Hungry]]:
    ceiling = Ceiling(limit)
    begun: list[Hungry] = []
    all_of_them = [Hungry(name, ceiling, count, begun=begun) for name, count in waiting.items()]
    for one in all_of_them:
        ceiling.join(one)
        ceiling.start_by(one.start_what_may)
    ceiling.freed()
    return ceiling, all_of_them


async def a_turn() -> None:
    """What was scheduled is done after this."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_places_are_full_and_shared_evenly(limit: int) -> None:
    """While all have something and take equally long: nobody is more starts ahead than there are places, and no place is free."""
    _, all_of_them = a_ceiling(limit, a=1_000, b=1_000, c=1_000)
    done = Counter[str]()

    for _ in range(60):
        await a_turn()
        assert limit == sum(one.running for one in all_of_them)
        ended = all_of_them[0].begun.pop(0)
        ended.end_one()
        done[ended.name] += 1

    assert max(done.values()) - min(done.get(name, 0) for name in "abc") <= limit


async def test_whoever_is_alone_has_all_places() -> None:
    """And gives them back one by one when another one comes."""
    _, [a, b] = a_ceiling(4, a=100, b=0)
    await a_turn()
    assert (4, 0) == (a.running, b.running)

    b.waiting = 100
    for _ in range(2):
        a.end_one()
        await a_turn()

    assert (2, 2) == (a.running, b.running)


async def test_one_that_never_starts_holds_nobody_up() -> None:
    """Whose turn it is says so itself, and may be wrong."""
    ceiling, [a, b] = a_ceiling(2, a=10, b=0)
    b.stuck = True
    await a_turn()

    assert (2, 0) == (a.running, b.running)
    a.end_one()
    a.start_what_may()
    await a_turn()
    assert 2 == a.running
    assert ceiling.admits(b) is False


async def test_what_runs_alone_waits_for_nobodys_turn() -> None:
    """Only for a place."""
    ceiling, [a, b] = a_ceiling(1, a=0, b=5)
    b.start_what_may()
    assert not ceiling.admits(a, in_turn=False)

    b.running = 0

    assert ceiling.admits(a, in_turn=False)


@pytest.mark.parametrize(
    ("own", "default", "limit", "expected"), [(None, 10, 4, 4), (50, 10, 20, 20), (5, 10, 20, 5), (None, 7, 99, 7)]
)
def test_a_handler_has_no_more_places_than_all_together(own: int | None, default: int, limit: int, expected: int) -> None:
    """Or it would hold entries that cannot start."""
    assert expected == places(own, default, Ceiling(limit))
