"""Carries trips in few tasks, because a task made for each delivery costs more than most deliveries.

A member of the crew carries trip after trip as long as none has to wait for anything. The one that has to wait keeps its member's task to
its end, and another member goes on with what is left. So a trip that waits has a task that nobody else is given, as user code expects that
keeps things by task, cancels, or is cancelled late; those that wait for nothing share one with others just before and after them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Any, Generic, TypeAlias, TypeVar

Item = TypeVar("Item")

SLICE_SECONDS = 0.005
"""How long trips may follow one another before the loop has its turn, so that a flood on one stream holds up nothing else."""

Rest: TypeAlias = Coroutine[Any, Any, None]
"""What is left of a trip that has to wait."""

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Crew(Generic[Item]):
    """Starts trips in order, each of a delivery or of a batch.

    `carry` takes one as far as it goes without waiting, and gives the rest, if there is one. `broken` is called with a trip whose task
    was cancelled under it. `spawn` makes the members' tasks. Neither `carry` nor its rest may raise anything but `CancelledError`.
    """

    def __init__(self, carry: Callable[[Item], Rest | None], broken: Callable[[Item], None], spawn: Spawn) -> None:
        self._carry = carry
        self._broken = broken
        self._spawn = spawn
        self._waiting: deque[Item] = deque()
        self._coming = 0
        self._at_work = False
        self._trips_wait = False
        self._under_way = 0
        self.empty: asyncio.Event = asyncio.Event()
        """Set while no trip waits or is under way."""
        self.empty.set()

    def start(self, trip: Item) -> None:
        """Begin a trip at the loop's next turn, or sooner where a member is at work."""
        if self._under_way == 0:
            self.empty.clear()
        self._under_way += 1
        self._waiting.append(trip)
        if not self._at_work and (self._coming == 0 or self._trips_wait):
            self._call_members()

    def go_on_with(self, trip: Item) -> None:
        """Begin what is left of the item that is being carried before anything else; said by `carry`."""
        self._under_way += 1
        self._waiting.appendleft(trip)

    def _call_members(self) -> None:
        """See that enough members come for what waits: one carries all that need no waiting; each that does keeps one."""
        wanted = len(self._waiting) if self._trips_wait else min(1, len(self._waiting))
        while self._coming < wanted:
            self._coming += 1
            self._spawn(self._work())

    async def _work(self) -> None:
        """One member's life: it ends with the first trip that has to wait, when a slice is over, or when nothing is left."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a member of the crew is a task")
        self._coming -= 1
        held_up = self._carry_on(task)
        self._call_members()
        if held_up is not None:
            await self._see_home(*held_up)

    def _carry_on(self, task: asyncio.Task[Any]) -> tuple[Item, Rest] | None:
        """Carry what waits, until nothing is left, a slice is over, the task is cancelled, or one trip has to wait: that one is given."""
        waiting, carry = self._waiting, self._carry
        until = perf_counter() + SLICE_SECONDS
        self._at_work = True
        try:
            while waiting:
                trip = waiting.popleft()
                rest = carry(trip)
                self._trips_wait = rest is not None
                if rest is not None:
                    return trip, rest
                self._ended()
                # A task that its handler has cancelled must not carry another one's.
                if task.cancelling() or perf_counter() > until:
                    break
        finally:
            self._at_work = False
        return None

    async def _see_home(self, trip: Item, rest: Rest) -> None:
        try:
            await rest
        except asyncio.CancelledError:
            self._ended()
            self._broken(trip)
            raise
        self._ended()

    def _ended(self) -> None:
        self._under_way -= 1
        if self._under_way == 0:
            self.empty.set()
