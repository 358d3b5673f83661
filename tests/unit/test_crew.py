"""Trips are carried in order, each one to its end, whatever becomes of the tasks that carry them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from time import perf_counter
from typing import Any

import pytest

from streamworker.worker.crew import SLICE_SECONDS, Crew, Rest
from streamworker.worker.trips import Trip
from tests.factories import a_delivery

Carry = Callable[[Trip], Rest | None]


class Stage:
    """A crew whose trips do what a test says, and what became of them."""

    def __init__(self) -> None:
        self.carry: Carry = lambda trip: None
        self.begun: list[str] = []
        self.broken: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.crew = Crew(self._carry, lambda trip: self.broken.append(trip.delivery.id), self._spawn)

    def start(self, *numbers: int) -> None:
        for number in numbers:
            self.crew.start(Trip(a_delivery(id=str(number)), None))

    async def all_home(self) -> None:
        await asyncio.wait_for(self.crew.empty.wait(), 5)

    def _carry(self, trip: Trip) -> Rest | None:
        self.begun.append(trip.delivery.id)
        return self.carry(trip)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    await asyncio.gather(*stage.tasks, return_exceptions=True)


def names(*numbers: int) -> list[str]:
    return [str(number) for number in numbers]


async def test_trips_that_wait_for_nothing_share_a_task(stage: Stage) -> None:
    """And begin in order."""
    seen = set()
    stage.carry = lambda trip: seen.add(asyncio.current_task())
    stage.start(*range(50))
    await stage.all_home()

    assert names(*range(50)) == stage.begun
    assert 1 == len(seen)


async def test_trips_that_wait_have_tasks_of_their_own(stage: Stage) -> None:
    """Nobody else is ever given them, so what is kept by task stays with its delivery."""
    seen: list[asyncio.Task[Any] | None] = []

    async def rest() -> None:
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    stage.carry = lambda trip: rest()
    for _ in range(3):
        stage.start(*range(20))
        await stage.all_home()

    assert 60 == len(seen) == len(set(seen))


async def test_one_that_waits_holds_up_nobody(stage: Stage) -> None:
    """What is behind it begins at once."""
    gate, last = asyncio.Event(), asyncio.Event()

    async def rest() -> None:
        await gate.wait()

    def carry(trip: Trip) -> Rest | None:
        if trip.delivery.id == "9":
            last.set()
        return rest() if trip.delivery.id == "0" else None

    stage.carry = carry
    stage.start(*range(10))
    await asyncio.wait_for(last.wait(), 5)
    assert not stage.crew.empty.is_set()
    gate.set()
    await stage.all_home()


async def test_the_loop_has_its_turn_in_a_flood(stage: Stage) -> None:
    """After each slice."""
    turns = 0

    def busy(trip: Trip) -> None:
        until = perf_counter() + SLICE_SECONDS
        while perf_counter() < until:
            pass

    async def count() -> None:
        nonlocal turns
        while not stage.crew.empty.is_set():
            turns += 1
            await asyncio.sleep(0)

    stage.carry = busy
    stage.start(*range(10))
    await count()

    assert turns >= 9


@pytest.mark.parametrize("way", ["now", "soon", "later", "taken back"])
async def test_a_task_that_a_handler_cancels_takes_nobody_else_along(stage: Stage, way: str) -> None:
    """While it carries a trip, at the end of a slice, or when that trip is over: every other trip is carried."""
    loop = asyncio.get_running_loop()

    def cancel(trip: Trip) -> None:
        if trip.delivery.id != "0":
            return
        task = asyncio.current_task()
        assert task is not None
        match way:
            case "now":
                task.cancel()
            case "soon":
                loop.call_soon(task.cancel)
            case "later":
                loop.call_later(0.001, task.cancel)
            case _:
                task.cancel()
                task.uncancel()
        until = perf_counter() + SLICE_SECONDS
        while perf_counter() < until:
            pass

    stage.carry = cancel
    stage.start(*range(20))
    await stage.all_home()
    stage.start(20)
    await stage.all_home()

    assert names(*range(21)) == stage.begun
    assert [] == stage.broken


async def test_a_trip_whose_task_is_cancelled_under_it_is_told(stage: Stage) -> None:
    """And no other."""

    async def rest(trip: Trip) -> None:
        if trip.delivery.id == "1":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await asyncio.sleep(0)

    stage.carry = rest
    stage.start(0, 1, 2)
    await stage.all_home()

    assert names(1) == stage.broken
