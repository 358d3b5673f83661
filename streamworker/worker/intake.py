"""Turns what was read, reclaimed or found again into deliveries that wait in their lanes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any

from streamworker.delivery import Crashed, Delivery, Interrupted, Interruption, Lease, Malformed, Outcome
from streamworker.entries import Entry, Fields
from streamworker.handlers import Handler
from streamworker.policies import is_crash_loop, is_suspect
from streamworker.streams import reading
from streamworker.streams.link import Link
from streamworker.streams.reading import Fresh, Page, Taken
from streamworker.worker.bindings import UNTOUCHED, Binding, receive, size_of
from streamworker.worker.gates import Gates
from streamworker.worker.gathering import Gathering
from streamworker.worker.ghosts import Ghosts
from streamworker.worker.latecomers import still_ours
from streamworker.worker.leases import LeaseKeeper
from streamworker.worker.lot_carrier import LotCarrier
from streamworker.worker.order import Order
from streamworker.worker.plan import Plan
from streamworker.worker.pools import Pool
from streamworker.worker.trips import BatchedTrip, Start, Trip

ALL = 1 << 50
"""More bytes than there are."""


class Intake:
    """The door through which every entry comes in, and the only place that knows which of them are held here already.

    `start` begins a delivery's trip; those of ordered handlers are started by `order`, and those of batch handlers by `gathering`.
    """

    def __init__(
        self,
        plan: Plan,
        link: Link,
        leases: LeaseKeeper,
        pools: Sequence[Pool],
        order: Order,
        gathering: Gathering,
        lots: LotCarrier,
        gates: Gates,
        start: Start,
        ghosts: Ghosts,
        log: Any,
    ) -> None:
        self._plan = plan
        self._link = link
        self._leases = leases
        self._pools = pools
        self.order: Order = order
        """Who keeps the order of what is taken in."""
        self._start = start
        self._gathering = gathering
        self._lots = lots
        self._ghosts = ghosts
        self._gates, self._refusal = gates.active, gates.refusal
        self._log = log
        self._pool_of = {binding.keys.stream: pool for pool in pools for binding in pool.bindings}
        self._binding_of = {key: b for b in plan.bindings for key in (b.keys.stream, b.keys.retry)}
        self._isolation = plan.isolation
        self._budget = plan.budget
        self._looked_at: set[str] = set()
        self._closed = False
        self.lock: asyncio.Lock = asyncio.Lock()
        """Held by sweeps and by reconciling: to either, the other's reply on its way would look like a lost one."""

    def close(self, *, start_batches: bool) -> None:
        """From now on, whatever still comes in is released; and so is what waits, but for batches that have a place."""
        self._closed = True
        if start_batches:
            self._gathering.close_all()
        self.give_back(Interruption.DRAIN)
        self.order.drain()

    def give_back(self, why: Interruption) -> None:
        """Release what waits for a place; but what has an order waits on, for it would lose that."""
        self._lots.break_up_all()
        for pool in self._pools:
            self.send_back(pool, pool.lanes.clear(), why)
        for batched in self._gathering.clear():
            batched.foregone = Interrupted(why)
            self._start(batched)

    def send_back(self, pool: Pool, waiting: Iterable[tuple[str, Trip]], why: Interruption) -> None:
        """Release what was taken out of a pool's lines."""
        for _, trip in waiting:
            trip.lane, trip.foregone = None, Interrupted(why)
            self._start_beside(pool, trip)

    @property
    def can_keep(self) -> bool:
        """Whether the leases of what is taken in can be renewed: a worker that only cannot do that would take up, for a while each time,
        what it has just given up, and keep it from all others for ever."""
        return self._leases.can_renew

    async def accept(self, taken: Sequence[Taken], sent_at: float) -> None:
        """Take in what a command sent at `sent_at` (monotonic seconds) has given us, and start what may start."""
        if taken and self._was_long_on_its_way(sent_at):
            taken, sent_at = await still_ours(self._link, self._plan, self._binding_of, taken)
        for one in taken:
            self._take_in(one, self._binding_of[one.key], sent_at)
        self.order.start_what_may()

    async def accept_fresh(self, fresh: Sequence[Fresh], sent_at: float) -> None:
        """As `accept`, for new entries as they came from the server."""
        if fresh and self._was_long_on_its_way(sent_at):
            await self.accept([one for of_key in fresh for one in of_key.as_taken()], sent_at)
            return
        for key, entries in fresh:
            binding = self._binding_of[key]
            if key == binding.keys.stream:
                if self._closed or not self._lots.admit(binding, entries, sent_at):
                    self._take_in_fresh(binding, entries, sent_at)
            else:
                for entry_id, fields in entries:
                    self._take_in(Taken(key, Entry(entry_id.decode(), fields), 1), binding, sent_at)
        self.order.start_what_may()

    async def accept_page(self, page: Page, sent_at: float) -> None:
        """Take in one page of a sweep, and say what it tells."""
        held = {entry_id for entry_id in page.trimmed if self._leases.find(page.key, entry_id) is not None}
        self._ghosts.of_ours(page.key, sorted(held))
        self._ghosts.of_others(page.key, [entry_id for entry_id in page.trimmed if entry_id not in held])
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
                # An order must know all that is earlier; it was read, and there was memory for it then.
                most_bytes=ALL if self.order else self._budget.left,
                witnesses=self._binding_of[key].keys.witnesses(key),
            )
            left |= left_some
            following = page.following
            if page.taken:
                why = "a reply was lost, or an earlier process of this name died"
                self._log.warning("entries.found_again", stream=key, entries=len(page.taken), why=why)
            await self.accept_page(page, sent_at)
        return not left

    def _take_in(self, taken: Taken, binding: Binding, sent_at: float) -> None:
        delivery, damage = receive(taken, binding, self._plan.consumer, sent_at)
        if self._is_held_already(delivery.lease):
            return
        if taken.key == binding.keys.stream:
            binding.knows(taken.entry.id)
        self._admit(delivery, binding, damage)

    def _take_in_fresh(self, binding: Binding, entries: Sequence[tuple[bytes, Fields]], sent_at: float) -> None:
        """What `_take_in` does, for entries of which nothing has to be found out."""
        stream, group, consumer = binding.keys.stream, binding.group, self._plan.consumer
        entry_id = ""
        for raw_id, fields in entries:
            entry_id = raw_id.decode()
            lease = Lease(stream, entry_id, consumer, 1, sent_at)
            if not self._is_held_already(lease):
                self._admit(Delivery(entry_id, stream, group, consumer, fields, UNTOUCHED, lease, size_of(fields)), binding)
        binding.knows(entry_id)

    def _is_held_already(self, lease: Lease) -> bool:
        """Hold it, where its entry is not held under another one.

        If it is, our own lease had lapsed on the server and we took it over from ourselves: it is not run twice, only counted anew. Where
        we gave it up as lost, its handler still has to end; then the consumer looks again.
        """
        held = self._leases.hold(lease)
        if held is lease:
            return False
        if not held.lost:
            held.turn, held.renewed_at = lease.turn, lease.renewed_at
        return True

    def _admit(self, delivery: Delivery, binding: Binding, damage: Exception | None = None) -> None:
        """Find its handler and its place, and start it where there is one."""
        self._budget.take(delivery.size)
        pool = self._pool_of[delivery.stream]
        handler = binding.route(delivery)
        if handler is not None and handler.key_of is not None and damage is None:
            trip = self.order.admit(delivery, handler)
            if trip is not None:
                self._start_beside(pool, trip)
            return
        simple = delivery.history is UNTOUCHED and damage is None and not self._closed
        # What was never delivered before need not be looked at for what it has been through.
        foregone = None if simple and self._may_start_in(pool) else self._foregone(delivery, handler, damage)
        if self._gates and foregone is None and handler is not None:
            foregone = self._refusal(delivery.stream, handler.name)
        if handler is None or foregone is not None or is_suspect(delivery):
            self._start_beside(pool, Trip(delivery, handler, foregone))
            return
        if handler.batch is not None:
            self._gathering.add(BatchedTrip(delivery, handler), handler.name)
            return
        trip = Trip(delivery, handler, None, handler.name)
        if pool.lanes.begin(handler.name):
            self._start(trip)
        else:
            pool.lanes.offer(handler.name, trip)

    def _may_start_in(self, pool: Pool) -> bool:
        return pool.lanes.room > 0 and not self._isolation.wanted

    def _start_beside(self, pool: Pool, trip: Trip) -> None:
        pool.lanes.enter_beside()
        self._start(trip)

    def _was_long_on_its_way(self, sent_at: float) -> bool:
        """Whether so much of the lease is over that it must be asked whether the entries are still ours."""
        return monotonic() - sent_at > self._plan.lease.total_seconds() / 6

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
        if self._pool_of[delivery.stream].room == 0 and not self._pool_of[delivery.stream].lanes.free(handler.name):
            return Interrupted(Interruption.NO_ROOM)
        return None
