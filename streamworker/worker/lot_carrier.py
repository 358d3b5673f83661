"""The way of new entries that need nothing special: run one after another, acknowledge together. Whoever needs more goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from streamworker.delivery import Delivery, Lease, Outcome
from streamworker.entries import Fields
from streamworker.streams.keys import Removal
from streamworker.worker.acks import Acks
from streamworker.worker.bindings import UNTOUCHED, Binding, size_of
from streamworker.worker.carrier import Carrier
from streamworker.worker.crew import SLICE_SECONDS, Rest
from streamworker.worker.executor import Executor
from streamworker.worker.leases import LeaseKeeper
from streamworker.worker.lots import Done, Lot, is_plain
from streamworker.worker.plain import Waits, run_through
from streamworker.worker.plan import Plan
from streamworker.worker.pools import Pool
from streamworker.worker.replies import succeeded
from streamworker.worker.runs import Prepared, Run
from streamworker.worker.steps import Returned
from streamworker.worker.trips import Trip

LARGE = 4_096
"""Bytes of an entry above which it does not matter what else it costs, but exactly how large it is."""


class LotCarrier:
    """The lots of one consumer. `settled` is told how many deliveries of a handler have ended, `freed` in which pool there is room."""

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        leases: LeaseKeeper,
        acks: Acks,
        carrier: Carrier,
        pools: Sequence[Pool],
        settled: Callable[[int], None],
        freed: Callable[[Pool], None],
        log: Any,
    ) -> None:
        self._consumer = plan.consumer
        self._isolation = plan.isolation
        self._budget = plan.budget
        self._executor = executor
        self._leases = leases
        self._acks = acks
        self._carrier = carrier
        self._settled = settled
        self._freed = freed
        self._log = log
        self._lots: dict[Lot, None] = {}
        self._of: dict[str, tuple[Pool, Prepared]] = {}
        for pool in pools:
            pool.break_up = self.break_up_all
            for binding in pool.bindings:
                self._prepare(pool, binding)

    def connect(self, start: Callable[[Lot], None], go_on_with: Callable[[Lot], None], start_what_may: Callable[[], None]) -> None:
        """Name who begins lots, who goes on with one at once, and who starts what waits in the lines."""
        self._start = start
        self._go_on_with = go_on_with
        self._start_what_may = start_what_may

    def admit(self, binding: Binding, entries: list[tuple[bytes, Fields]], sent_at: float) -> bool:
        """Take new entries in as a lot, held and begun; false where they cannot be one, and nothing was done."""
        key = binding.keys.stream
        if key not in self._of or self._isolation.wanted or not entries:
            return False
        pool, prepared = self._of[key]
        handler = prepared.handler
        # What is newer than all that was ever here is not held already.
        if not binding.is_news(entries[0][0].decode()) or not pool.lanes.has_place(handler.name):
            return False
        lot = Lot(key, binding.group, self._consumer, handler, entries, sent_at)
        if lot.size > LARGE * len(entries) or not pool.lanes.enter_lot(handler.name, len(entries)):
            return False
        self._budget.take_many(lot.size, len(entries))
        self._leases.holdings.hold_lot(lot)
        binding.knows(entries[-1][0].decode())
        self._lots[lot] = None
        self._start(lot)
        return True

    def carry(self, lot: Lot) -> Rest | None:
        """Run what can be run without waiting, in one slice; gives the rest of an entry that has to wait for something."""
        pool, prepared = self._of[lot.key]
        try:
            if not lot.has_more:
                return None
            seconds = self._leases.good_for(lot)
            if lot.leases is not None or seconds <= 0 or not pool.lanes.has_place(lot.handler.name):
                self._break_up(lot)
                self._start_what_may()
                return None
            return self._carry(lot, pool, prepared, min(SLICE_SECONDS, seconds))
        except Exception as error:  # noqa: BLE001  # the last line of defence, as in `Carrier`
            self._log.error("lot.unsettled", stream=lot.key, entries=lot.left, exc_info=error)
            self._break_up(lot)
            # Nobody settles the rest now, so nobody here may keep its leases or its places.
            self._leases.holdings.abandon(lot)
            pool.lanes.leave_lot(lot.counted)
            self._start_what_may()
        return None

    def break_up_all(self) -> None:
        """Put all that has not begun into the lines, each entry by itself."""
        for lot in list(self._lots):
            self._break_up(lot)

    def _prepare(self, pool: Pool, binding: Binding) -> None:
        """A stream with one handler that is plain and has nothing around it can be read in lots."""
        handler = binding.only
        if handler is not None and is_plain(handler) and binding.keys.removal is not Removal.WHEN_ACKED:
            prepared = self._executor.prepared(handler, binding.keys.stream, binding.group)
            if prepared.chain is None:
                self._of[binding.keys.stream] = pool, prepared
                pool.in_lots = True

    def _carry(self, lot: Lot, pool: Pool, prepared: Prepared, seconds: float) -> Rest | None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a handler runs in a task")
        first = lot.at
        if self._carrier.tells_successes:
            seconds = 0.0  # one at a time
        stop, told = run_through(lot, prepared, task, perf_counter() + seconds)
        rest = None
        if told is not None:
            trip = self._take_out(lot, stop)
            lot.counted -= 1
            pool.lanes.leave_lot_for_lane(lot.handler.name)
            trip.lane = lot.handler.name
            rest = self._see_home(trip, self._outcome(trip, prepared, told))
        if stop > first:
            self._end(lot, pool, first, stop)
        if not lot.has_more:
            self._lots.pop(lot, None)
        elif self._acks.is_behind and rest is None:
            rest = self._wait_for_acks(lot)
        else:
            self._go_on_with(lot)
        return rest

    def _end(self, lot: Lot, pool: Pool, first: int, stop: int) -> None:
        """These have succeeded, and are acknowledged together."""
        if self._carrier.tells_successes:
            for entry in lot.entries[first:stop]:
                self._carrier.tell_success(_trip(lot, entry, lot.lease_of(entry[0])))
        self._budget.give_back(lot.end(first, stop))
        self._acks.gather_done(Done(lot, first, stop))
        lot.counted -= stop - first
        pool.lanes.leave_lot(stop - first)
        self._freed(pool)
        self._settled(stop - first)

    def _outcome(self, trip: Trip, prepared: Prepared, told: Outcome | Returned | Waits) -> Outcome | Run:
        delivery = trip.delivery
        if isinstance(told, Waits):
            return Run(delivery.lease, delivery, prepared, None, told.variables, told.work, told.waits_for, steps=told.steps)
        return succeeded(delivery, prepared.handler, None, told.value) if isinstance(told, Returned) else told

    async def _see_home(self, trip: Trip, outcome: Outcome | Run) -> None:
        try:
            await self._carrier.go_on(trip, outcome)
        except asyncio.CancelledError:
            self._carrier.was_cancelled(trip)
            raise

    async def _wait_for_acks(self, lot: Lot) -> None:
        await self._acks.catch_up()
        self._start(lot)

    def _break_up(self, lot: Lot) -> None:
        """Put what has not begun into its line."""
        self._lots.pop(lot, None)
        pool, _ = self._of[lot.key]
        first, lot.at = lot.at, len(lot.entries)
        for position in range(first, lot.at):
            trip = self._take_out(lot, position)
            trip.lane = lot.handler.name
            lot.counted -= 1
            pool.lanes.leave_lot_for_line(trip.lane, trip)

    def _take_out(self, lot: Lot, position: int) -> Trip:
        """The trip of one entry, which goes on by itself."""
        entry = lot.entries[position]
        lease = self._leases.holdings.take_out(lot, position)
        trip = _trip(lot, entry, lease)
        lot.size -= trip.delivery.size
        return trip


def _trip(lot: Lot, entry: tuple[bytes, Fields], lease: Lease) -> Trip:
    entry_id, fields = entry
    delivery = Delivery(entry_id.decode(), lot.key, lot.group, lot.consumer, fields, UNTOUCHED, lease, size_of(fields))
    return Trip(delivery, lot.handler, began=lot.began)


def nothing_broken(_: Lot) -> None:
    """Whose task was cancelled was not the lot: each of its entries that has to wait sees to itself."""
