"""Keeps the delivery count of what is held here up to date: what it tells outlives this process (`streams/scripts/book.lua`)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic

from streamworker.delivery import Delivery, History, RetryLater
from streamworker.errors import ConnectionLost, ServerError
from streamworker.observe.descriptions import describe
from streamworker.observe.troubles import Trouble
from streamworker.streams import settling
from streamworker.streams.faults import sentence
from streamworker.streams.keys import keys_of
from streamworker.streams.link import Link
from streamworker.worker.backoff import Pauses
from streamworker.worker.isolation import Isolation
from streamworker.worker.waiting import happens_within


class Book:
    """Writes by `link`, again and again, until it is done, the entry is not ours any more, or the process ends."""

    def __init__(self, isolation: Isolation, link: Link, trouble: Trouble) -> None:
        self._isolation = isolation
        self._link = link
        self._trouble = trouble

    async def write(self, delivery: Delivery, turn: int, *, failed: int | None = None, outstayed: bool = False) -> bool:
        """Write down the turn, and how many attempts have failed in place; false when the entry is not ours any more, or the process
        ends before that was possible."""
        lease, pauses = delivery.lease, Pauses()
        failed = lease.failed if failed is None else failed
        keys = keys_of(delivery.stream, delivery.group)
        lease.recounting = lease.turn != turn  # the failures are not part of the fence
        try:
            while not lease.lost and (lease.turn != turn or lease.failed != failed):
                sent_at = monotonic()
                try:
                    ours = await settling.recount(self._link, delivery.group, keys, lease, turn, failed=failed, outstayed=outstayed)
                except (ConnectionLost, ServerError) as error:
                    self._trouble.strikes(sentence(error))
                    if await happens_within(self._isolation.ending, pauses.next()):
                        return False
                    continue
                self._trouble.is_over()
                if not ours:
                    return False
                lease.turn, lease.failed, lease.renewed_at = turn, failed, sent_at  # it was claimed anew with that
            return not lease.lost
        finally:
            lease.recounting = False


def at_rest(turn: int) -> int:
    """The turn of an entry that waits for its next attempt: if its worker dies meanwhile, it was not its doing."""
    return turn if turn == 1 else turn + turn % 2


def put_down(turn: int) -> int:
    """The turn of an entry that stays pending though nobody has it in hand any more: whoever takes it over counts no death."""
    return 0 if turn == 1 else turn + turn % 2


def told_in(verdict: RetryLater) -> History:
    """The history with which an entry is tried again, and what the failure adds to it."""
    history, error = verdict.history, verdict.error
    if error is None:
        return history
    failed_at = datetime.now(UTC) if history.first_failed_at is None else history.first_failed_at
    return replace(history, first_failed_at=failed_at, last_error=describe(error))
