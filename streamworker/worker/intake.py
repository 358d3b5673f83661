"""Turns what was read, reclaimed or found again into deliveries that wait in their lanes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any

from streamworker.delivery import Crashed, Delivery, Interrupted, Interruption, Malformed, Outcome
from streamworker.handlers import Handler
from streamworker.policies import DeadLetterPolicy, RetryPolicy, is_crash_loop, is_suspect
from streamworker.streams import reading, settling
from streamworker.streams.connections import Endpoint
from streamworker.streams.reading import Page, Taken
from streamworker.streams.wire import Link
from streamworker.worker.bindings import Binding, lease_of, receive
from streamworker.worker.budget import ByteBudget
from streamworker.worker.isolation import Isolation
from streamworker.worker.leases import LeaseKeeper
from streamworker.worker.pools import Pool
from streamworker.worker.trips import Start, Trip


@dataclass(frozen=True, slots=True)
class Plan:
    """What a consumer is made from. `retry` and `dead_letter` apply where no handler's own do: to entries of unknown type.

    `isolation` and `budget` are shared by all consumers of the process. `give_up` ends it, with the reason, where going on would do
    harm. `named` says that a user has given the consumer its name.
    """

    endpoint: Endpoint
    group: str
    consumer: str
    bindings: Sequence[Binding]
    limits: Mapping[str, int]
    lease: timedelta
    retry: RetryPolicy
    dead_letter: DeadLetterPolicy
    isolation: Isolation
    budget: ByteBudget
    give_up: Callable[[str], None]
    named: bool = False


class Intake:
    """The door through which every entry comes in, and the only place that knows which of them are held here already.

    `start` begins a delivery's trip.
    """

    def __init__(self, plan: Plan, link: Link, leases: LeaseKeeper, pools: Sequence[Pool], start: Start, log: Any) -> None:
        self._plan = plan
        self._link = link
        self._leases = leases
        self._pools = pools
        self._start = start
        self._log = log
        self._pool_of = {binding.keys.stream: pool for pool in pools for binding in pool.bindings}
        self._binding_of = {key: b for b in plan.bindings for key in (b.keys.stream, b.keys.retry)}
        self._isolation = plan.isolation
        self._budget = plan.budget
        self._looked_at: set[str] = set()
        self._closed = False
        self.lock: asyncio.Lock = asyncio.Lock()
        """Held by sweeps and by reconciling: to either, the other's reply on its way would look like a lost one."""

    def close(self) -> None:
        """From now on, whatever still comes in is released; and so is what waits."""
        self._closed = True
        self.give_back(Interruption.DRAIN)

    def give_back(self, why: Interruption) -> None:
        """Release what waits for a place."""
        for pool in self._pools:
            for _, (delivery, handler) in pool.lanes.clear():
                self._start_beside(Trip(delivery, handler, Interrupted(why)))

    @property
    def can_keep(self) -> bool:
        """Whether the leases of what is taken in can be renewed: a worker that only cannot do that would take up, for a while each time,
        what it has just given up, and keep it from all others for ever."""
        return self._leases.can_renew

    async def accept(self, taken: Sequence[Taken], sent_at: float) -> None:
        """Take in what a command sent at `sent_at` (monotonic seconds) has given us, and start what may start."""
        if taken and monotonic() - sent_at > self._plan.lease.total_seconds() / 6:
            taken, sent_at = await self._still_ours(taken)
        for one in taken:
            self._take_in(one, self._binding_of[one.key], sent_at)
        self.start_what_may()

    async def accept_page(self, page: Page, sent_at: float) -> None:
        """Take in one page of a sweep, and say what it tells."""
        trimmed = [entry_id for entry_id in page.trimmed if self._leases.find(page.key, entry_id) is None]
        if trimmed:
            self._log.error(
                "entries.trimmed_while_pending",
                stream=page.key,
                entries=len(trimmed),
                first=trimmed[0],
                why="a worker that runs one of them still finishes it; what a dead worker held is lost: trim later, or not at all",
            )
        if page.taken:
            self._log.info("entries.reclaimed", stream=page.key, entries=len(page.taken))
        await self.accept(page.taken, sent_at)

    async def reconcile(self) -> bool:
        """Take up what is pending under our name without our knowledge, because a reply was lost; false when memory was full before
        all of it was here.

        At the very first look it is an earlier run's of the same name, which died with it.
        """
        complete = True
        async with self.lock:
            for binding in self._plan.bindings:
                for key in (binding.keys.retry, binding.keys.stream) if binding.ready else ():
                    complete &= await self._reconcile(key, binding.group)
                    self._looked_at.add(key)
        return complete

    def held_of(self, binding: Binding) -> list[str]:
        """What is held here of a stream."""
        return self._leases.entry_ids(binding.keys.stream)

    def lost_of(self, key: str) -> list[str]:
        """What is held here of it though its lease is lost: its handlers have not ended yet."""
        return self._leases.lost_ids(key)

    def start_what_may(self) -> None:
        """Start every waiting delivery whose lane has a free place, unless somebody is to be alone."""
        if self._isolation.wanted:
            return
        for pool in self._pools:
            for lane, (delivery, handler) in pool.lanes.ready():
                self._start(Trip(delivery, handler, lane=lane))

    def leave(self, trip: Trip) -> Pool | None:
        """A delivery has ended, in its lane or beside them: start the next one; answers the pool when it has room again."""
        self._budget.give_back(trip.delivery.size)
        pool = self._pool_of[trip.delivery.stream]
        if trip.lane is None:
            pool.lanes.leave_beside()
        else:
            pool.lanes.release(trip.lane)
        self.start_what_may()
        return pool if pool.room > 0 else None

    async def _reconcile(self, key: str, group: str) -> bool:
        """Page by page, so that no more is here than there is memory for; only that somebody died is written down to the end."""
        died = key not in self._looked_at
        following: str | None = "-"
        left = False
        while following is not None and (died or not left):
            sent_at = monotonic()
            page, left_some = await reading.reconcile(
                self._link,
                key,
                group,
                self._plan.consumer,
                cursor=following,
                held=self._leases.entry_ids(key),
                died=died,
                most_bytes=self._budget.left,
            )
            left |= left_some
            following = page.following
            if page.taken:
                why = "a reply was lost, or an earlier process of this name died"
                self._log.warning("entries.found_again", stream=key, entries=len(page.taken), why=why)
            await self.accept_page(page, sent_at)
        return not left

    def _take_in(self, taken: Taken, binding: Binding, sent_at: float) -> None:
        held = self._leases.find(taken.key, taken.entry.id)
        if held is not None:
            # Our own lease had lapsed on the server and we took it over from ourselves: it is not run twice, only counted anew. Where we
            # gave it up as lost, its handler still has to end; then the consumer looks again.
            if not held.lost:
                held.count, held.renewed_at = taken.count, sent_at
            return
        arrival = receive(taken, binding, self._plan.consumer, sent_at)
        delivery = arrival.delivery
        if taken.key == binding.keys.stream:
            binding.knows(taken.entry.id)
        self._leases.hold(delivery.lease)
        self._budget.take(delivery.size)
        handler = binding.route(delivery)
        foregone = self._foregone(delivery, handler, arrival.damage)
        if handler is None or foregone is not None or is_suspect(delivery):
            self._start_beside(Trip(delivery, handler, foregone))
        else:
            self._pool_of[delivery.stream].lanes.offer(handler.name, (delivery, handler))

    def _start_beside(self, trip: Trip) -> None:
        self._pool_of[trip.delivery.stream].lanes.enter_beside()
        self._start(trip)

    def _foregone(self, delivery: Delivery, handler: Handler | None, damage: Exception | None) -> Outcome | None:
        """The outcome of a delivery that no user code may see, or that has no place here."""
        if is_crash_loop(delivery, self._plan.retry if handler is None else handler.retry):
            return Crashed()
        if damage is not None:
            return Malformed(damage)
        if self._closed:
            return Interrupted(Interruption.DRAIN)
        if handler is None or is_suspect(delivery):
            return None
        if self._isolation.wanted:
            return Interrupted(Interruption.MAKES_ROOM)
        if self._pool_of[delivery.stream].room == 0:
            return Interrupted(Interruption.NO_ROOM)
        return None

    async def _still_ours(self, taken: Sequence[Taken]) -> tuple[Sequence[Taken], float]:
        """Of entries whose reply was long on its way, those that nobody has taken over meanwhile."""
        by_key: dict[str, list[Taken]] = defaultdict(list)
        for one in taken:
            by_key[one.key].append(one)
        sent_at = monotonic()
        kept: list[Taken] = []
        for key, ones in by_key.items():
            leases = [lease_of(one, self._binding_of[key], self._plan.consumer, sent_at) for one in ones]
            lost = await settling.renew(self._link, self._plan.group, leases)
            kept += [one for one in ones if one.entry.id not in lost]
        return kept, sent_at
