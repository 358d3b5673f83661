"""Gathers entries into batches, and starts each when it is full or its time has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from streamworker.worker.batches import Batch, Line
from streamworker.worker.gates import Gates
from streamworker.worker.order import CallLater, Timer
from streamworker.worker.plan import Plan
from streamworker.worker.pools import Pool
from streamworker.worker.trips import BatchedTrip, Trip

StartBatch: TypeAlias = Callable[[Batch], None]


class Gathering:
    """The batches of one consumer. Entries that wait in one are held under their leases, as all that waits here."""

    def __init__(self, plan: Plan, pools: Sequence[Pool], gates: Gates, start: StartBatch) -> None:
        self._pool_of = {handler.name: pool for pool in pools for binding in pool.bindings for handler in binding.handlers}
        handlers = {handler.name: handler for binding in plan.bindings for handler in binding.handlers}
        self._lines = {
            name: Line(handler, handler.batch, plan.limits[name]) for name, handler in handlers.items() if handler.batch is not None
        }
        self._gates = gates.active
        self._ceiling = plan.ceiling
        self._start = start
        self._isolation = plan.isolation
        self._budget = plan.budget
        self._loop = asyncio.get_running_loop()
        self._clock: Callable[[], float] = self._loop.time
        self._call_later: CallLater = self._loop.call_later
        self._timers: dict[str, Timer] = {}
        self._joined: set[Trip] = set()

    def be_driven_by(self, clock: Callable[[], float], call_later: CallLater) -> None:
        """Take the time from these, in place of the event loop."""
        self._clock, self._call_later = clock, call_later

    def add(self, trip: BatchedTrip, name: str) -> None:
        """Put a delivery into its handler's batch."""
        self._pool_of[name].lanes.enter_beside()
        line = self._lines[name]
        now = self._clock()
        if line.put(trip, now):
            self._start_what_may(name, line, now)
        if self._budget.left == 0 and line.hasten(now):
            self._look_at(name, now)  # it would wait for entries that there is no memory for

    def start_what_may(self) -> None:
        """Start every batch that has a place and need not wait any longer."""
        now = self._clock()
        for name, line in self._lines.items():
            self._start_what_may(name, line, now)

    def ended(self, batch: Batch) -> None:
        """A batch has ended: its place is free for the next one."""
        self._release(batch.handler.name)

    def join(self, trip: Trip, name: str) -> None:
        """A delivery that has run alone, as a batch of one, goes on in company."""
        self._joined.add(trip)
        self._lines[name].join()

    def leave(self, trip: Trip) -> None:
        """Such a delivery has ended, or another one of which nothing is known here."""
        if trip in self._joined and trip.handler is not None:
            self._joined.discard(trip)
            self._release(trip.handler.name)

    def leave_together(self, trips: Sequence[Trip], name: str) -> Pool:
        """Entries of one batch have ended, each as one that is beside the lanes; answers the pool in which there is room again."""
        self._budget.give_back(sum([trip.delivery.size for trip in trips]))
        for trip in trips:
            trip.has_left = True
        pool = self._pool_of[name]
        pool.lanes.leave_beside(len(trips))
        pool.lanes.ended += len(trips)
        return pool

    def hold_room(self, name: str, entries: int) -> None:
        """Count so many more entries as held though they have left, or, below 0, so many less."""
        lanes = self._pool_of[name].lanes
        if entries > 0:
            lanes.enter_beside(entries)
        else:
            lanes.leave_beside(-entries)

    def close_all(self) -> None:
        """Start what has a place, full or not: nothing more will come."""
        for line in self._lines.values():
            line.close()
        self.start_what_may()

    def clear(self) -> Sequence[Trip]:
        """Take out everything that waits."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        return [trip for line in self._lines.values() for trip in line.clear()]

    def clear_one(self, name: str) -> Sequence[Trip]:
        """Take out everything that waits for one handler."""
        return self._lines[name].clear()

    def waiting(self, name: str) -> int:
        """How many entries wait for this handler."""
        return self._lines[name].waiting

    def running(self, name: str) -> int:
        """How many batches of this handler run."""
        return self._lines[name].running

    def due(self, name: str) -> int:
        """How many of them wait for nothing but leave to start, together."""
        return self._lines[name].due(self._clock())

    @property
    def at_rest(self) -> int:
        """How many entries wait for nothing but the time of the batch that they are in; those behind a gate that is at rest count there."""
        now, gates = self._clock(), self._gates
        open_ones = ((gates.get(name), line.filling(now)) for name, line in self._lines.items())
        return sum(entries for gate, entries in open_ones if gate is None or not gate.is_at_rest)

    def _release(self, name: str) -> None:
        line = self._lines[name]
        line.release()
        if self._ceiling is not None:
            self._ceiling.freed()
        self._start_what_may(name, line, self._clock())

    def _start_what_may(self, name: str, line: Line, now: float) -> None:
        if self._isolation.wanted:
            return
        # What has just been read is still coming in: an open batch starts at the loop's next turn at the earliest.
        gate = self._gates.get(name) if self._gates else None
        while (batch := line.take(now, None if gate is None else gate.most())) is not None:
            if gate is not None:
                gate.start(len(batch.trips))
            self._start(batch)
        due_at = line.due_at(now)
        if due_at is not None and name not in self._timers:
            self._look_at(name, due_at)

    def _look_at(self, name: str, due_at: float) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        look, seconds = partial(self._look, name, due_at), round(due_at - self._clock(), 6)
        self._timers[name] = self._call_later(seconds, look) if seconds > 0 else self._loop.call_soon(look)

    def _look(self, name: str, due_at: float) -> None:
        """A timer that was set for a batch which has gone by now serves the next one."""
        del self._timers[name]
        self._lines[name].ripen(due_at)
        self._start_what_may(name, self._lines[name], self._clock())
