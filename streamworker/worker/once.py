"""Keeps handlers with an `Idempotency` from doing again what has been done: looks before each run, and marks with the acknowledgement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from streamworker.delivery import SUCCEEDED, Delivery, Failed, Interrupted, Interruption, Outcome, Succeeded
from streamworker.effects import Idempotency
from streamworker.errors import ConnectionLost, DecodeError, ServerError
from streamworker.handlers import Handler
from streamworker.observe.troubles import Trouble
from streamworker.streams import marking
from streamworker.streams.faults import sentence
from streamworker.streams.keys import GroupKeys, done_marker
from streamworker.streams.link import Link
from streamworker.worker.backoff import Tries

LONGEST_KEY = 1_000


class Once:
    """The markers of one consumer. `ending` is set when a drain has begun."""

    def __init__(self, link: Link, keys: Mapping[str, GroupKeys], ending: asyncio.Event, log: Any) -> None:
        self._link = link
        self._keys = keys
        self._ending = ending
        self._log = log
        self._trouble = Trouble(log, "idempotency")

    async def run(
        self, delivery: Delivery, handler: Handler, wanted: Idempotency, work: Callable[[], Awaitable[Outcome]]
    ) -> Outcome:
        """What `work` comes to, with the marker to be written; success, where it was done before. Never raises."""
        try:
            key = delivery.id if wanted.key is None else _checked(wanted.key(handler.decode(delivery.fields)))
        except DecodeError:
            return await work()  # which finds the same, and says it
        except BaseException as error:  # noqa: BLE001  # a user's own function: whatever it raises is an outcome
            return Failed(error)
        marker = done_marker(delivery.stream, delivery.group, handler.name, key)
        match await self._begin(delivery, wanted, marker):
            case "begun":
                outcome = await work()
                if isinstance(outcome, Succeeded):
                    return replace(outcome, writes=(*outcome.writes, marking.done(marker, wanted.ttl)))
                return outcome
            case "done":
                self._log.info(
                    "delivery.skipped_as_done",
                    stream=delivery.stream,
                    entry_id=delivery.id,
                    handler=handler.name,
                    attempt=delivery.attempt,
                )
                return SUCCEEDED
            case "busy":
                return Interrupted(Interruption.TWIN_RUNS)
            case _:
                return Interrupted(Interruption.LEASE_LOST if delivery.lease.lost else Interruption.DRAIN)

    async def _begin(self, delivery: Delivery, wanted: Idempotency, marker: str) -> str | None:
        """Claim the marker, tried until the server answers; `None` when the entry is not ours any more, or nothing may begin here."""
        tries = Tries(self._link.recovery, self._ending)
        keys, lease = self._keys[delivery.stream], delivery.lease
        while not self._ending.is_set() and not lease.lost:
            try:
                answer = await marking.begin(self._link, delivery.group, keys, lease, marker, wanted.ttl)
            except (ConnectionLost, ServerError) as error:
                self._trouble.strikes(sentence(error))
                await tries.wait()
                continue
            self._trouble.is_over()
            # Nobody would interrupt what begins only after the drain has interrupted all.
            return None if lease.lost or (self._ending.is_set() and answer == "begun") else answer
        return None


def _checked(key: object) -> str:
    if not isinstance(key, str) or not key:
        raise TypeError(f"the key= of an Idempotency gives a text that is not empty, not a {type(key).__name__}")
    size = len(key.encode())
    if size > LONGEST_KEY:
        raise ValueError(f"the key= of an Idempotency gives at most {LONGEST_KEY:,} bytes, not {size:,}: hash what is longer")
    return key
