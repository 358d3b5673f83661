"""Publishes at a schedule's times. Every process does it, none leads: who comes first publishes, and the others find it done."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from random import uniform
from typing import Any

from streamworker.delivery import Outgoing
from streamworker.errors import ConnectionLost, HandlerTimeout, ServerError
from streamworker.handlers import is_async
from streamworker.observe.descriptions import describe
from streamworker.observe.troubles import Trouble
from streamworker.schedules import Schedule
from streamworker.streams import ticking
from streamworker.streams.faults import sentence
from streamworker.streams.link import Link
from streamworker.streams.ticking import Clock
from streamworker.ticks import due
from streamworker.worker.backoff import Tries
from streamworker.worker.waiting import is_cancelled

LOOK_AGAIN = timedelta(minutes=5)
"""At the latest then, because this machine's clock and the server's do not run alike."""

SPREAD = timedelta(milliseconds=250)
"""The processes of a fleet come to a tick within so long, so that most of them find it done and need not make its body."""

LONGEST_MAKING = timedelta(seconds=60)


class Ticker:
    """One schedule in this process."""

    def __init__(self, schedule: Schedule, link: Link, log: Any) -> None:
        self._schedule = schedule
        self._link = link
        self._log = log.bind(schedule=schedule.name, stream=schedule.stream)
        self._trouble = Trouble(log, "schedule", schedule=schedule.name, stream=schedule.stream)
        self._threads: ThreadPoolExecutor | None = None
        self._told_ms = 0

    async def run(self) -> None:
        """Publish until cancelled."""
        tries = Tries(self._link.recovery)
        try:
            while True:
                try:
                    wait = await self.turn()
                except ConnectionLost:
                    await tries.wait()  # the reader says it
                except ServerError as error:
                    self._trouble.strikes(sentence(error))
                    await tries.wait()
                except BaseException as error:  # the user's function may raise what it likes; it is asked again
                    if is_cancelled(error):
                        raise
                    self._trouble.strikes(describe(error))
                    await tries.wait()
                else:
                    tries.reset()
                    self._trouble.is_over()
                    await asyncio.sleep(wait)
        finally:
            self.close()

    def close(self) -> None:
        """End the thread, if there is one."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def following_ms(self, now_ms: int) -> int:
        """The first tick after this moment."""
        return self._schedule.ticks.following(now_ms)

    async def turn(self) -> float:
        """Publish what is due; answers for how many seconds nothing is. Raises what making the body raises."""
        schedule = self._schedule
        clock = await ticking.look(self._link, schedule.stream, schedule.name)
        tick, missed = due(schedule.ticks, schedule.missed, clock.last_ms, clock.now_ms)
        if tick is None:
            if missed is not None:
                self._tell_missed(missed, "it is left out")
            return self._seconds_to_next(clock)
        entry = await self._entry(tick)
        clock = await ticking.publish(self._link, schedule.stream, schedule.name, tick, entry)
        if clock.entry_id is not None:
            if missed is not None:
                self._tell_missed(missed, "it is published now")
            self._log.debug("schedule.ticked", entry_id=clock.entry_id, tick=schedule.moment(tick).isoformat())
        return self._seconds_to_next(clock)

    def _seconds_to_next(self, clock: Clock) -> float:
        following = self.following_ms(max(clock.now_ms, clock.last_ms))
        wait = (following - clock.now_ms) / 1000
        spread = min(SPREAD.total_seconds(), wait / 10)
        # S311: it spreads a fleet, and guards nothing.
        return min(wait + uniform(0, spread), LOOK_AGAIN.total_seconds())  # noqa: S311

    async def _entry(self, tick_ms: int) -> Outgoing | None:
        schedule = self._schedule
        if schedule.make is None:
            return schedule.entry(tick_ms, schedule.body)
        limit = asyncio.timeout(LONGEST_MAKING.total_seconds())
        try:
            async with limit:
                body = await self._made(tick_ms)
        except TimeoutError as error:
            if limit.expired():
                raise HandlerTimeout(f"{schedule.name} has not made its body within {LONGEST_MAKING}") from error
            raise
        return None if body is None else schedule.entry(tick_ms, body)

    async def _made(self, tick_ms: int) -> Any:
        schedule = self._schedule
        arguments = (schedule.moment(tick_ms),) if schedule.wants_tick else ()
        if schedule.make is None or is_async(schedule.make):
            return await schedule.make(*arguments) if schedule.make else None
        if self._threads is None:
            self._threads = ThreadPoolExecutor(1, thread_name_prefix="streamworker-schedule")
        made = await asyncio.get_running_loop().run_in_executor(self._threads, schedule.make, *arguments)
        return await made if inspect.isawaitable(made) else made

    def _tell_missed(self, tick_ms: int, what: str) -> None:
        if tick_ms > self._told_ms:
            self._told_ms = tick_ms
            self._log.warning(
                "schedule.missed", tick=self._schedule.moment(tick_ms).isoformat(), why=f"no worker was there; {what}"
            )
