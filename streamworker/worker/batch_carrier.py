"""The way of a batch: decode, run, judge each entry, acknowledge what went well in one go. The rest goes the way of a single delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, TypeAlias

from streamworker.batching import BatchContext
from streamworker.delivery import ACK, SUCCEEDED, Delivery, Failed, Interrupted, Interruption, Malformed, Outcome
from streamworker.errors import DecodeError
from streamworker.handlers import Handler
from streamworker.policies import judge_entry
from streamworker.worker.acks import Acks
from streamworker.worker.batches import Batch
from streamworker.worker.carrier import Carrier
from streamworker.worker.chain import WatchedBatch
from streamworker.worker.crew import Rest
from streamworker.worker.executor import Executor
from streamworker.worker.gates import Gates
from streamworker.worker.leases import LeaseKeeper
from streamworker.worker.places import wait_for_thread
from streamworker.worker.runs import Run
from streamworker.worker.trips import BatchedTrip, Start

LOST = Interrupted(Interruption.LEASE_LOST)
"""Of an entry that somebody else owns by now. Its handler may have left it out for that reason, so it is not even acknowledged."""

Left: TypeAlias = Callable[[Sequence[BatchedTrip], str], None]
HoldRoom: TypeAlias = Callable[[str, int], None]


class BatchCarrier:
    """Carries the batches of one consumer. `settled` is told how many entries that a handler has seen have ended."""

    def __init__(
        self,
        executor: Executor,
        leases: LeaseKeeper,
        acks: Acks,
        carrier: Carrier,
        gates: Gates,
        settled: Callable[[int], None],
        log: Any,
    ) -> None:
        self._executor = executor
        self._leases = leases
        self._acks = acks
        self._gates = gates
        self._settled = settled
        self._log = log
        self._carrier = carrier
        self._under_way: dict[Batch, Sequence[BatchedTrip]] = {}

    def connect(self, start: Start, left: Left, ended: Callable[[Batch], None], hold_room: HoldRoom) -> None:
        """Name those who go on: who settles one entry by itself, and who is told of places that are free, or held for longer."""
        self._start = start
        self._left = left
        self._ended = ended
        self._hold_room = hold_room

    def carry(self, batch: Batch) -> Rest | None:
        """Run and settle, as far as nothing has to be waited for; gives the rest, where something has."""
        batch.began = perf_counter()
        try:
            if self._leases.any_unfit([trip.delivery.lease for trip in batch.trips]):
                self._set_aside(batch, {trip: LOST for trip in batch.trips if trip.delivery.lease.lost})
            context = self._decode(batch)
            batch.taken = len(batch.trips)
            if context is None:
                self._end(batch)
                return None
            outcome = self._executor.begin_batch(context)
            if isinstance(outcome, Run):
                return self._guarded(batch, self._wait_and_settle(batch, context, outcome))
            self._settle(batch, context, outcome)
            if self._acks.is_behind or self._executor.overstays(batch):
                return self._guarded(batch, self._leave(batch))
            self._end(batch)
        except Exception as error:  # noqa: BLE001  # the last line of defence, as in `_guarded`
            self._broke_off(batch, error)
        return None

    async def run_alone(self, delivery: Delivery, handler: Handler) -> Outcome:
        """As `Executor.run`, where the handler may be one of batches: then the delivery is a batch of one."""
        if handler.batch is None:
            return await self._executor.run(delivery, handler)
        if delivery.lease.lost:
            return LOST
        body, outcome = _decoded(delivery, handler)
        if outcome is not None:
            return outcome
        context = self._context([delivery], handler, [body], delivery.lease)
        begun = self._executor.begin_batch(context)
        outcome = await self._executor.finish(begun) if isinstance(begun, Run) else begun
        return judge_entry(outcome, *context.said_of(0))

    def was_cancelled(self, batch: Batch) -> None:
        """The task of a batch was cancelled under it."""
        self._broke_off(batch, asyncio.CancelledError("the handler has cancelled its own task"))

    def let_go(self) -> None:
        """A lease was lost. A batch goes on for those entries that are still ours; one of which none is left is interrupted."""
        for batch, trips in list(self._under_way.items()):
            if all(trip.delivery.lease.lost for trip in trips):
                self._executor.interrupt(batch, Interruption.LEASE_LOST)

    async def _guarded(self, batch: Batch, rest: Rest) -> None:
        try:
            await rest
        except Exception as error:  # noqa: BLE001  # the last line of defence; what it was is in the log
            self._broke_off(batch, error)

    async def _wait_and_settle(self, batch: Batch, context: BatchContext, run: Run) -> None:
        self._under_way[batch] = batch.trips
        try:
            outcome = await self._executor.finish(run)
        finally:
            del self._under_way[batch]
        self._settle(batch, context, outcome)
        await self._leave(batch)

    async def _leave(self, batch: Batch) -> None:
        await self._acks.catch_up()
        if self._executor.overstays(batch):
            await self._wait_for_thread(batch)
        self._end(batch)

    def _context(self, deliveries: Sequence[Delivery], handler: Handler, bodies: list[Any], under: object) -> BatchContext:
        return WatchedBatch(deliveries, handler, bodies, self._executor.state, self._executor.publish, under)

    def _decode(self, batch: Batch) -> BatchContext | None:
        """The context of all entries that can be read; the others are set aside. `None` where there is nothing left."""
        handler, decode = batch.handler, batch.handler.decode
        try:
            bodies = [decode(trip.delivery.fields) for trip in batch.trips]
        except BaseException:  # noqa: BLE001  # which one it was, and with what, is looked for now
            bodies = []
            unreadable: dict[BatchedTrip, Outcome] = {}
            for trip in batch.trips:
                body, outcome = _decoded(trip.delivery, handler)
                if outcome is None:
                    bodies.append(body)
                else:
                    unreadable[trip] = outcome
            self._set_aside(batch, unreadable)
        return self._context([trip.delivery for trip in batch.trips], handler, bodies, batch) if bodies else None

    def _set_aside(self, batch: Batch, outcomes: Mapping[BatchedTrip, Outcome]) -> None:
        """Let entries that no handler is to see go their own way."""
        batch.trips = [trip for trip in batch.trips if trip not in outcomes]
        for trip, outcome in outcomes.items():
            self._part_with(trip, outcome, 0.0)

    def _settle(self, batch: Batch, context: BatchContext, outcome: Outcome) -> None:
        """Acknowledge what went well; every other entry goes its own way, with its own attempts."""
        seconds = perf_counter() - batch.began
        good = batch.trips
        if outcome is not SUCCEEDED or not context.is_all_good or context.lost:
            good = []
            for position, trip in enumerate(batch.trips):
                of_entry = LOST if trip.delivery.lease.lost else judge_entry(outcome, *context.said_of(position))
                if of_entry is SUCCEEDED:
                    good.append(trip)
                else:
                    self._part_with(trip, of_entry, seconds)
        if good:
            self._acks.gather_all([trip.delivery.lease for trip in good])
            for trip in good if self._carrier.tells_successes else ():
                self._carrier.tell(trip.delivery, batch.handler, SUCCEEDED, ACK, seconds)
            if batch.handler.kill_switch is not None:
                self._gates.note_good(batch.handler, batch.began, len(good))
            self._left(good, batch.handler.name)
        if batch.trips:
            self._settled(len(batch.trips))
        batch.trips = []

    def _part_with(self, trip: BatchedTrip, outcome: Outcome, seconds: float) -> None:
        trip.foregone, trip.ran_for = outcome, seconds
        self._start(trip)

    async def _wait_for_thread(self, batch: Batch) -> None:
        """The entries have gone, but what they took is taken until the thread has ended."""
        self._hold_room(batch.handler.name, batch.taken)
        await wait_for_thread(self._executor, batch, self._log.bind(handler=batch.handler.name, entries=batch.taken))
        self._hold_room(batch.handler.name, -batch.taken)

    def _broke_off(self, batch: Batch, error: BaseException) -> None:
        """It cannot be carried through: its entries have failed, each for itself, and must not go round for ever."""
        self._log.error("batch.unsettled", handler=batch.handler.name, entries=len(batch.trips), exc_info=error)
        unsettled = [trip for trip in batch.trips if trip.foregone is None and not trip.has_left]
        batch.trips = []
        for trip in unsettled:
            self._part_with(trip, Failed(error), perf_counter() - batch.began)
        self._end(batch)

    def _end(self, batch: Batch) -> None:
        """Its place is free; said twice, it counts once."""
        if not batch.has_ended:
            batch.has_ended = True
            self._ended(batch)


def _decoded(delivery: Delivery, handler: Handler) -> tuple[Any, Outcome | None]:
    """The body, or the outcome of an entry that has none."""
    try:
        return handler.decode(delivery.fields), None
    except DecodeError as error:
        return None, Malformed(error)
    except BaseException as error:  # noqa: BLE001  # a codec of the user's own may break its promise; that must not end the worker
        return None, Failed(error)
