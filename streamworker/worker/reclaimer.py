"""Takes over entries whose lease ran out, because their worker died or lost sight of them.

One sweeper per group and interval is enough. The scan keeps its cursor, so that a long pending list is walked whole. What is reclaimed
needs no room among those that run, because it runs alone; so a busy worker sweeps as well as an idle one, and a busy fleet leaves nothing
of its dead behind. One at a time runs alone in each process, so nobody takes more than it can run soon: the rest is for others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from random import uniform
from time import monotonic
from typing import Any

from streamworker.errors import ConnectionLost, ServerError
from streamworker.observe.troubles import Trouble
from streamworker.streams import groups, reading
from streamworker.streams.faults import concerns_all, sentence
from streamworker.streams.link import Link
from streamworker.worker.bindings import Binding
from streamworker.worker.intake import Intake
from streamworker.worker.plan import Plan
from streamworker.worker.sweep_guard import SweepGuard
from streamworker.worker.waiting import happens_within

PAGE, PAGE_SECONDS = 16, 0.5
"""How many entries one round of sweeps takes at most, and for how long they may keep the process; the first one takes a single one."""

DEFERENCE = 3
"""How many leases longer a worker waits that cannot run anything alone at the moment: others may."""

SHORTEST_PAUSE_SECONDS = 0.05
CONSUMER_FORGOTTEN_AFTER = timedelta(minutes=5)
"""A consumer idle for so long, and for ten leases, with nothing pending, is taken for gone; one that lives is made again by Redis."""


class Reclaimer:
    """One group's sweeps, four per lease; what they give goes to `intake`. `doubt` is called when a sweep's reply may have been lost."""

    def __init__(self, plan: Plan, link: Link, intake: Intake, guard: SweepGuard, doubt: Callable[[], None], log: Any) -> None:
        self._link = link
        self._group = plan.group
        self._consumer = plan.consumer
        self._bindings = deque(plan.bindings)
        self._budget = plan.budget
        self._isolation = plan.isolation
        self._lease_ms = round(plan.lease / timedelta(milliseconds=1))
        self._intake = intake
        self._doubt = doubt
        self._log = log
        self._guard = guard
        self._page = self._room = 1
        self._paused = False
        self._troubles: dict[str, Trouble] = {}
        self._cursors: dict[str, str] = {}
        self._stopping = False
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Sweep until stopped."""
        interval = self._interval_seconds()
        pause = interval * uniform(0, 1)  # noqa: S311  # a fleet that starts together does not sweep together
        nobody_alone, began = True, 0.0
        while not await self._stopped_within(pause):
            if nobody_alone:
                began = monotonic()
            unfinished = await self._round()
            await asyncio.sleep(0)  # what was taken asks to be alone
            nobody_alone = await self._isolation.is_over(within=interval)
            if self._room < self._page:
                self._page = next_page(self._page, monotonic() - began) if nobody_alone else 1
            if not nobody_alone:
                pause = SHORTEST_PAUSE_SECONDS
            elif unfinished:
                # There is more, but what was read anew must have its turn as well: as long as those took which have run alone.
                pause = min(interval, max(SHORTEST_PAUSE_SECONDS, monotonic() - began))
            else:
                pause = interval * uniform(0.75, 1.25)  # noqa: S311

    def stop(self) -> None:
        """Begin nothing new; `run` returns when the sweep in hand has been taken in."""
        self._stopping = True
        self._woken.set()

    def sweep(self) -> None:
        """Sweep now. Who asks for it vouches that what looks abandoned is: nothing kept its worker from renewing."""
        self._guard.trust()
        self._woken.set()

    def pause(self) -> None:
        """Take nothing until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        self._paused = False

    async def _stopped_within(self, seconds: float) -> bool:
        if not self._stopping:
            self._woken.clear()
            await happens_within(self._woken, seconds)
        return self._stopping

    async def _round(self) -> bool:
        """Look after all streams, another one first each time; answers whether there was more than could be taken."""
        self._room = self._page
        self._bindings.rotate(-1)
        return any([binding.ready and await self._guarded(binding) for binding in self._bindings])

    async def _guarded(self, binding: Binding) -> bool:
        """Look after one stream; its trouble must not stop the others. Answers whether there was more than could be taken."""
        stream = binding.keys.stream
        trouble = self._troubles.setdefault(stream, Trouble(self._log, "reclaiming", stream=stream))
        unfinished = None
        try:
            await binding.note_position(self._link)
            unfinished = await self._look_after(binding)
        except ConnectionLost:
            self._doubt()  # the reader says it, and waits for the server
            self._guard.hold(monotonic())
        except ServerError as error:
            trouble.strikes(sentence(error))
            self._doubt()
            if concerns_all(error):  # one stream's trouble, such as a missing right, is no reason to leave the others alone
                self._guard.hold(monotonic())
        else:
            if unfinished is not None:  # that nothing was tried does not tell that it would go well again
                trouble.is_over()
        return bool(unfinished)

    async def _look_after(self, binding: Binding) -> bool | None:
        """Sweep one stream; answers whether there is more, or `None` where it was not the time to."""
        if self._must_not or self._guard.holds(monotonic()):
            return None
        if self._must_wait:
            return True
        if not await self._is_my_turn(binding):
            return None
        unfinished = False
        for key in (binding.keys.retry, binding.keys.stream):
            unfinished |= await self._sweep(key, binding.keys.witnesses(key))
        if not unfinished:
            await self._forget_the_gone(binding)
        return unfinished

    @property
    def _must_not(self) -> bool:
        """Whether nothing may be taken: we end, are paused, memory is full, or what is taken could not be kept."""
        return self._stopping or self._paused or self._budget.left == 0 or not self._intake.can_keep

    @property
    def _must_wait(self) -> bool:
        """Whether the next round may take what this one leaves: enough is taken, or somebody is to be alone here."""
        return self._room <= 0 or self._isolation.wanted

    async def _is_my_turn(self, binding: Binding) -> bool:
        if self._cursors.get(binding.keys.stream, "0-0") != "0-0" or self._cursors.get(binding.keys.retry, "0-0") != "0-0":
            return True  # it still is
        interval_ms = max(1, round(self._interval_seconds() * 750))
        try:
            return await reading.may_sweep(self._link, binding.keys.sweep, self._consumer, interval_ms=interval_ms)
        except ServerError as error:
            # Pacing is a courtesy: a full server refuses the SET, and must not stop the recovery of entries.
            if error.code == "OOM":
                return True
            raise

    async def _sweep(self, key: str, witnesses: Sequence[str]) -> bool:
        """Walk the pending list from where the last sweep ended, until it has given something; answers whether there is more."""
        while not (self._must_not or self._must_wait):
            async with self._intake.lock:
                sent_at = monotonic()
                page, server_ms = await reading.reclaim(
                    self._link,
                    key,
                    self._group,
                    self._consumer,
                    lease_ms=self._lease_ms * (DEFERENCE if self._isolation.rests else 1),
                    cursor=self._cursors.get(key, "0-0"),
                    count=self._room,
                    most_bytes=self._budget.left,
                    not_after_ms=self._guard.latest_ms(sent_at),
                    lost=self._intake.lost_of(key),
                    witnesses=witnesses,
                )
                if page is None:
                    if self._is_clock_trusted(server_ms):
                        continue
                    return False
                if page.taken:
                    self._log.info("entries.reclaimed", stream=key, entries=len(page.taken))
                await self._intake.accept_page(page, sent_at)
            # As it was when we asked, because a busy event loop may have kept the answer from us for a while.
            self._guard.saw(server_ms, sent_at)
            self._room -= len(page.taken)
            self._cursors[key] = "0-0" if page.following is None else page.following
            if page.following is None or page.taken:
                return page.following is not None
        return True

    def _is_clock_trusted(self, server_ms: int) -> bool:
        """After a refused sweep: true when the server's clock was only looked at for the first time."""
        first_look = not self._guard.has_seen
        moved = self._guard.saw(server_ms, monotonic())
        if first_look:
            return True
        self._guard.hold(monotonic())
        self._log.warning(
            "reclaiming.on_hold",
            clock_moved_s=round(moved.total_seconds(), 3),
            why="the server's clock has jumped, or the server stood still: workers that live get the time to renew their leases",
        )
        return False

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


def next_page(page: int, seconds: float) -> int:
    """How many entries to take, where taking and running `page` of them has kept the process for so long."""
    return max(1, min(PAGE, 2 * page, int(page * PAGE_SECONDS / max(seconds, 0.001))))
