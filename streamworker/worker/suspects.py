"""Runs entries whose worker died: each alone, so that the next death tells whose fault it was.

Redis's delivery count says what is known (`streams/scripts/book.lua`): with an even turn an entry waits, with an odd one it may be running.
A worker's death is counted against an entry that ran alone, and against no other: a new entry has turn 1, after a death in company 2, while
it runs alone 3. One that runs for longer than it may be alone goes on in company with turn 4, as if it waited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from time import perf_counter
from typing import Any, TypeAlias

from streamworker.delivery import Delivery, Interrupted, Interruption, Outcome, Succeeded
from streamworker.errors import ConnectionLost, ServerError
from streamworker.handlers import Handler
from streamworker.observe.troubles import Trouble
from streamworker.streams import settling
from streamworker.streams.faults import sentence
from streamworker.streams.link import Link
from streamworker.worker.backoff import Pauses
from streamworker.worker.book import Book
from streamworker.worker.gates import Gates
from streamworker.worker.isolation import Isolation
from streamworker.worker.trips import Trip
from streamworker.worker.waiting import happens_within

RunOne: TypeAlias = Callable[[Delivery, Handler], Coroutine[Any, Any, Outcome]]


class Suspects:
    """The suspects of one consumer, run by `run_one`. `joins_lane` gives one that goes on in company its place in its handler's lane."""

    def __init__(
        self, isolation: Isolation, link: Link, gates: Gates, run_one: RunOne, joins_lane: Callable[[Trip], None], log: Any
    ) -> None:
        self._isolation = isolation
        self._gates = gates
        self._link = link
        self._run_one = run_one
        self._joins_lane = joins_lane
        self._log = log
        self._trouble = Trouble(log, "isolation")
        self._book = Book(isolation, link, self._trouble)

    async def run(self, trip: Trip, handler: Handler) -> Outcome:
        """What happened when `handler` was given the delivery with nothing else in flight in this process, at least for a while."""
        delivery, lease = trip.delivery, trip.delivery.lease
        # That it waits is written down first, so that a death beside it is not laid at its door.
        if not await self._book.write(delivery, _waiting(lease.turn)):
            return self._stopped(delivery)
        async with self._isolation.solitude() as alone:
            if not alone:
                return self._not_alone(delivery)
            if (held_back := await self._gates.enter_alone(handler)) is not None:
                return held_back
            # Nobody would interrupt what begins only after the drain has interrupted all.
            if not await self._book.write(delivery, _waiting(lease.turn) + 1) or self._isolation.ending.is_set():
                return self._stopped(delivery)
            self._log.info(
                "delivery.runs_alone",
                stream=delivery.stream,
                entry_id=delivery.id,
                handler=handler.name,
                crashes=delivery.crashes,
                why="a worker died with it in its hands",
            )
            trip.began = perf_counter()
            running = asyncio.create_task(self._run_one(delivery, handler))
            if not await self._ends_alone(running, delivery):
                self._goes_on_in_company(trip, handler)
        outcome = await running
        if lease.lost and not _waits(lease.turn) and not isinstance(outcome, Succeeded):
            await self._take_blame_back(delivery)
        return outcome

    async def _ends_alone(self, running: asyncio.Task[Outcome], delivery: Delivery) -> bool:
        """Wait for its end as long as it may be alone; after that it is written down that a death is not its own any more."""
        time = self._isolation.patience_with(delivery.lease.outstayed)
        try:
            await asyncio.wait({running}, timeout=time.total_seconds())
            if not running.done():
                await self._book.write(delivery, _waiting(delivery.lease.turn), outstayed=True)
        except asyncio.CancelledError:
            running.cancel()
            raise
        return running.done()

    def _goes_on_in_company(self, trip: Trip, handler: Handler) -> None:
        seconds = perf_counter() - trip.began
        self._isolation.rest(timedelta(seconds=seconds))
        self._joins_lane(trip)
        self._log.warning(
            "delivery.outstays",
            stream=trip.delivery.stream,
            entry_id=trip.delivery.id,
            handler=handler.name,
            seconds=round(seconds, 1),
            why="it has run alone for so long that others start beside it now: give the handler a timeout",
        )

    async def _take_blame_back(self, delivery: Delivery) -> None:
        """Who has taken it over had to take us for dead. Said as soon as the server can be reached; a process that ends cannot wait."""
        pauses = Pauses()
        while True:
            try:
                if await settling.pardon(self._link, delivery.group, delivery.lease):
                    self._log.info("delivery.pardoned", stream=delivery.stream, entry_id=delivery.id, why="its worker had not died")
            except ConnectionLost:
                if not await happens_within(self._isolation.ending, pauses.next()):
                    continue
            except ServerError as error:
                self._trouble.strikes(sentence(error))
            return

    def _stopped(self, delivery: Delivery) -> Outcome:
        ending = self._isolation.ending.is_set() and not delivery.lease.lost
        return Interrupted(Interruption.DRAIN if ending else Interruption.LEASE_LOST)

    def _not_alone(self, delivery: Delivery) -> Outcome:
        if self._isolation.ending.is_set():
            return Interrupted(Interruption.DRAIN)
        self._log.warning(
            "delivery.postponed",
            stream=delivery.stream,
            entry_id=delivery.id,
            why="it must run alone, because a worker died with it in its hands, but other handlers here do not end: give them a timeout",
        )
        return Interrupted(Interruption.NOT_ALONE)


def _waits(turn: int) -> bool:
    return turn % 2 == 0


def _waiting(turn: int) -> int:
    """The even turn of an entry that waits. One that came from the retry stream, where turns begin at 1, is put at 2 without blame."""
    return max(2, turn + turn % 2)
