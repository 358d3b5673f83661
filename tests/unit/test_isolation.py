"""Being alone in a process: waiting for those in flight, taking turns, and giving it up in time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from streamworker.worker.isolation import Isolation


class Members:
    """A consumer that holds what the test says."""

    def __init__(self, busy: int = 0, is_still: bool = True) -> None:
        self.busy = busy
        self.is_still = is_still
        self.calls: list[str] = []

    def step_aside(self) -> None:
        self.calls.append("aside")

    def go_on(self) -> None:
        self.calls.append("on")


def an_isolation(*members: Members, patience: timedelta = timedelta(minutes=1)) -> Isolation:
    isolation = Isolation(patience)
    for member in members:
        isolation.join(member)
    return isolation


async def run_alone(isolation: Isolation, story: list[str], name: str, ends: asyncio.Event) -> bool:
    async with isolation.solitude() as alone:
        story.append(f"{name} begins")
        await ends.wait()
        story.append(f"{name} ends")
        return alone


async def let_others_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_waits_until_nothing_else_is_in_flight():
    """In any consumer of the process; the one that waits is in flight itself."""
    first, second = Members(busy=3), Members(busy=1)
    isolation, story, ends = an_isolation(first, second), [], asyncio.Event()

    task = asyncio.create_task(run_alone(isolation, story, "a", ends))
    await let_others_run()
    before = list(story)
    first.busy, second.busy = 1, 0
    isolation.changed()
    await let_others_run()
    during = list(story)
    ends.set()

    assert await task
    assert ([], ["a begins"]) == (before, during)
    assert [["aside", "on"]] * 2 == [first.calls, second.calls]


async def test_it_waits_for_a_read_that_is_on_its_way():
    """What it brings would be in flight."""
    member = Members(busy=1, is_still=False)
    isolation, story, ends = an_isolation(member), [], asyncio.Event()

    task = asyncio.create_task(run_alone(isolation, story, "a", ends))
    await let_others_run()
    before = list(story)
    member.is_still = True
    isolation.changed()
    ends.set()

    assert await task
    assert [] == before


async def test_several_take_turns():
    """The others may be in flight, as they only wait; nobody goes on before the last has ended."""
    member = Members(busy=2)
    isolation, story, ends = an_isolation(member), [], asyncio.Event()

    tasks = [asyncio.create_task(run_alone(isolation, story, name, ends)) for name in "ab"]
    await let_others_run()
    wanted = isolation.wanted
    ends.set()
    await tasks[0]
    member.busy = 1
    isolation.changed()

    assert [True, True] == await asyncio.gather(*tasks)
    assert ["a begins", "a ends", "b begins", "b ends"] == story
    assert (True, False) == (wanted, isolation.wanted)
    assert ["aside", "on"] == member.calls


async def test_it_is_given_up_where_the_others_do_not_end():
    """For all who wait, and for a while, so that one handler that never ends does not keep a process from its work."""
    member = Members(busy=5)
    isolation = an_isolation(member, patience=timedelta(milliseconds=1))

    async def ask() -> bool:
        async with isolation.solitude() as alone:
            return alone

    together = await asyncio.gather(ask(), ask())
    isolation._rests_until = asyncio.get_running_loop().time() + 60
    later = await ask()

    assert [False, False] == together
    assert not later
    assert isolation.rests
    assert ["aside", "on"] == member.calls


async def test_the_end_of_the_process_ends_the_waiting():
    """Who waits is told that it was not alone."""
    isolation = an_isolation(Members(busy=5))

    async def ask() -> bool:
        async with isolation.solitude() as alone:
            return alone

    task = asyncio.create_task(ask())
    await let_others_run()
    isolation.close()

    assert not await task
    assert not await ask()
