"""Takes over entries whose lease ran out, because their worker died or lost sight of them.

One sweeper per group and interval is enough; a worker without room leaves the sweep to another. The scan keeps its cursor, so that a
long pending list is walked whole (XAUTOCLAIM looks at ten times COUNT entries and stops).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from random import uniform
from time import monotonic
from typing import Any

from streamworker.errors import ConnectionLost, ServerError
from streamworker.observe.troubles import Trouble
from streamworker.streams import groups, reading
from streamworker.streams.wire import Link
from streamworker.worker.bindings import Binding
from streamworker.worker.intake import Intake, Plan
from streamworker.worker.pools import Pool
from streamworker.worker.waiting import happens_within

PAGE = 50
CONSUMER_FORGOTTEN_AFTER = timedelta(minutes=5)
"""A consumer idle for so long, and for ten leases, with nothing pending, is taken for gone; one that lives is made again by Redis."""


class Reclaimer:
    """One group's sweeps, four per lease; what they give goes to `intake`. `doubt` is called when a sweep's reply may have been lost."""

    def __init__(self, plan: Plan, link: Link, pools: Sequence[Pool], intake: Intake, doubt: Callable[[], None], log: Any) -> None:
        self._link = link
        self._consumer = plan.consumer
        self._pools = pools
        self._lease_ms = round(plan.lease / timedelta(milliseconds=1))
        self._intake = intake
        self._doubt = doubt
        self._log = log
        self._troubles: dict[str, Trouble] = {}
        self._cursors: dict[str, str] = {}
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Sweep until stopped."""
        share = uniform(0, 1)  # noqa: S311  # a fleet that starts together does not sweep together
        while not await happens_within(self._stopping, self._interval_seconds() * share):
            share = uniform(0.75, 1.25)  # noqa: S311
            for pool in self._pools:
                for binding in pool.bindings:
                    if binding.ready and not self._stopping.is_set():
                        await self._guarded(pool, binding)

    async def _guarded(self, pool: Pool, binding: Binding) -> None:
        """Look after one stream; its trouble must not stop the others."""
        stream = binding.keys.stream
        trouble = self._troubles.setdefault(stream, Trouble(self._log, "reclaiming", stream=stream))
        try:
            await binding.note_position(self._link)
            await self._look_after(pool, binding)
        except ConnectionLost:
            self._doubt()  # the reader says it, and waits for the server
        except ServerError as error:
            trouble.strikes(str(error))
            self._doubt()
        else:
            trouble.is_over()

    def stop(self) -> None:
        """Begin nothing new; `run` returns when the sweep in hand has been taken in."""
        self._stopping.set()

    async def _look_after(self, pool: Pool, binding: Binding) -> None:
        if pool.room == 0 or not await self._is_my_turn(binding):
            return
        for key in (binding.keys.retry, binding.keys.stream):
            await self._sweep(pool, binding, key)
        await self._forget_the_gone(binding)

    async def _is_my_turn(self, binding: Binding) -> bool:
        interval_ms = max(1, round(self._interval_seconds() * 750))
        try:
            return await reading.may_sweep(self._link, binding.keys.sweep, self._consumer, interval_ms=interval_ms)
        except ServerError as error:
            # Pacing is a courtesy: a full server refuses the SET, and must not stop the recovery of entries.
            if error.code == "OOM":
                return True
            raise

    async def _sweep(self, pool: Pool, binding: Binding, key: str) -> None:
        while pool.room > 0 and not self._stopping.is_set():
            async with self._intake.lock:
                if pool.room == 0:
                    return  # it was taken while we waited for our turn
                sent_at = monotonic()
                page = await reading.reclaim(
                    self._link,
                    key,
                    binding.group,
                    self._consumer,
                    lease_ms=self._lease_ms,
                    cursor=self._cursors.get(key, "0-0"),
                    count=min(PAGE, pool.room),
                )
                await self._intake.accept_page(page, sent_at)
            self._cursors[key] = "0-0" if page.following is None else page.following
            if page.following is None:
                return

    async def _forget_the_gone(self, binding: Binding) -> None:
        """Names of workers that died pile up otherwise; a name with anything pending is never removed."""
        patience_ms = max(10 * self._lease_ms, CONSUMER_FORGOTTEN_AFTER // timedelta(milliseconds=1))
        for key in (binding.keys.retry, binding.keys.stream):
            for info in await groups.consumers(self._link, key, binding.group):
                gone = info.pending == 0 and info.idle_ms > patience_ms and info.name != self._consumer
                if gone and await groups.forget_consumer(self._link, key, binding.group, info.name):
                    self._log.debug("consumer.forgotten", stream=key, consumer=info.name)

    def _interval_seconds(self) -> float:
        return self._lease_ms / 4 / 1000
