"""Runs entries whose worker died: each alone, so that the next death tells whose fault it was.

Redis's delivery count says what is known: an even count waits, an odd one may be running. A worker's death makes the next owner's count
one higher for an odd one, which then is even, and leaves an even one as it is. So whoever only waited when a worker died beside it is
never blamed for it: a new entry counts 1, after a death in company 2, while it runs alone 3, after a death of it 4.
"""

from __future__ import annotations

from typing import Any

from streamworker.delivery import Delivery, Interrupted, Interruption, Outcome
from streamworker.errors import ConnectionLost, ServerError
from streamworker.handlers import Handler
from streamworker.observe.troubles import Trouble
from streamworker.streams import settling
from streamworker.streams.faults import sentence
from streamworker.streams.keys import keys_of
from streamworker.streams.wire import Link
from streamworker.worker.backoff import Pauses
from streamworker.worker.executor import Executor
from streamworker.worker.isolation import Isolation
from streamworker.worker.waiting import happens_within


class Suspects:
    """The suspects of one consumer."""

    def __init__(self, isolation: Isolation, link: Link, executor: Executor, log: Any) -> None:
        self._isolation = isolation
        self._link = link
        self._executor = executor
        self._log = log
        self._trouble = Trouble(log, "isolation")

    async def run(self, delivery: Delivery, handler: Handler) -> Outcome:
        """What happened when `handler` was given `delivery` with nothing else in flight in this process."""
        lease = delivery.lease
        # That it waits is written down first, so that a death beside it is not laid at its door.
        if not await self._recount(delivery, _waiting(lease.count)):
            return self._stopped(delivery)
        async with self._isolation.solitude() as alone:
            if not alone:
                return self._not_alone(delivery)
            if not await self._recount(delivery, _running(lease.count)):
                return self._stopped(delivery)
            self._log.info(
                "delivery.runs_alone",
                stream=delivery.stream,
                entry_id=delivery.id,
                handler=handler.name,
                crashes=delivery.crashes,
                why="a worker died with it in its hands",
            )
            return await self._executor.run(delivery, handler)

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

    async def _recount(self, delivery: Delivery, count: int) -> bool:
        """Write the new delivery count down; false when the entry is not ours any more, or the process ends before that was possible."""
        lease, pauses = delivery.lease, Pauses()
        keys = keys_of(delivery.stream, delivery.group)
        lease.recounting = True
        try:
            while not lease.lost and lease.count != count:
                try:
                    ours = await settling.recount(self._link, delivery.group, keys, lease, count)
                except (ConnectionLost, ServerError) as error:
                    self._trouble.strikes(sentence(error))
                    if await happens_within(self._isolation.ending, pauses.next()):
                        return False
                    continue
                self._trouble.is_over()
                if not ours:
                    return False
                lease.count = count
            return not lease.lost
        finally:
            lease.recounting = False


def _waiting(count: int) -> int:
    """The even count of an entry that waits. One that came from the retry stream, where counts begin at 1, is put at 2 without blame."""
    return max(2, count - count % 2)


def _running(count: int) -> int:
    """The odd count of an entry that waited and runs now."""
    return _waiting(count) + 1
