"""Who has a place among those in flight, and when it is free again: once for each delivery, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from streamworker.observe.troubles import REMINDER
from streamworker.worker.executor import Executor
from streamworker.worker.trips import Trip


class Places:
    """The places of one consumer's deliveries. `freed` is called with each trip whose place is free again."""

    def __init__(self, executor: Executor, freed: Callable[[Trip], None], log: Any) -> None:
        self._executor = executor
        self._freed = freed
        self._log = log

    async def leave(self, trip: Trip) -> None:
        """A trip has been settled; a thread that overran its time keeps the place until it ends."""
        if self._executor.overstays(trip.delivery.lease):
            await self._wait_for_thread(trip)
        self.free(trip)

    def free(self, trip: Trip) -> None:
        """A trip has ended; said twice, it counts once."""
        if not trip.has_left:
            trip.has_left = True
            self._freed(trip)

    async def _wait_for_thread(self, trip: Trip) -> None:
        handler = None if trip.handler is None else trip.handler.name
        facts = {"stream": trip.delivery.stream, "entry_id": trip.delivery.id, "handler": handler}
        await wait_for_thread(self._executor, trip.delivery.lease, self._log.bind(**facts))


async def wait_for_thread(executor: Executor, under: object, log: Any) -> None:
    """Wait until the thread of this lease or batch ends, and say so now and then; `log` knows which handler it is."""
    since = perf_counter()
    while True:
        why = "its time is over and its entry settled, but its thread still runs and keeps its place"
        log.error("handler.overdue", seconds=round(perf_counter() - since), why=why)
        if await executor.vacated(under, REMINDER):
            return
