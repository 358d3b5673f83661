"""The way of a delivery: run, decide, settle, release the lane. What happened, what should be done and doing it are three things."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import random
from time import perf_counter
from typing import Any, TypeAlias

from streamworker.delivery import (
    ACK,
    SUCCEEDED,
    Ack,
    Delivery,
    Failed,
    Interrupted,
    Interruption,
    Outcome,
    RetryLater,
    Unroutable,
    Verdict,
)
from streamworker.effects import Idempotency
from streamworker.errors import CommitRefused
from streamworker.handlers import Handler
from streamworker.observe.deliveries import log_verdict, tells_successes
from streamworker.policies import decide
from streamworker.worker.crew import Rest
from streamworker.worker.executor import Executor
from streamworker.worker.gates import Gates
from streamworker.worker.leases import LeaseKeeper
from streamworker.worker.once import Once
from streamworker.worker.order import Order
from streamworker.worker.places import Places
from streamworker.worker.plan import Plan
from streamworker.worker.runs import Run
from streamworker.worker.settlement import Settlement
from streamworker.worker.suspects import Suspects
from streamworker.worker.trips import BatchedTrip, Start, Trip

Witness: TypeAlias = Callable[[Delivery, Handler | None, Outcome, Verdict], None]
"""Is told of every delivery what happened and what was decided."""


class Carrier:
    """Carries the trips of one consumer. `settled` is told how many deliveries that a handler has seen have ended."""

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        leases: LeaseKeeper,
        settlement: Settlement,
        gates: Gates,
        settled: Callable[[int], None],
        log: Any,
    ) -> None:
        self._plan = plan
        self._executor = executor
        self._leases = leases
        self._settlement = settlement
        self._acks = settlement.acks
        self._gates = gates
        self._settled = settled
        self._log = log
        self._types_of = {binding.keys.stream: binding.known_types for binding in plan.bindings}
        self.tells_successes: bool = tells_successes(log)
        """Whether somebody is told of each delivery that has succeeded."""
        self._witness: Witness | None = None
        self._closed = False

    def be_seen_by(self, witness: Witness) -> None:
        """Tell `witness` what happened to every delivery, and what was decided about it."""
        self._witness = witness
        self.tells_successes = True

    def connect(self, suspects: Suspects, once: Once, order: Order, start: Start, freed: Callable[[Trip], None]) -> None:
        """Name those who need the carrier themselves, or a consumer's parts that are made after it.

        Who runs suspects, who looks whether a thing was done before, who keeps the order, who begins a trip anew, and who is told that a
        place is free.
        """
        self._suspects = suspects
        self._once = once
        self._order = order
        self._start = start
        self._freed = freed
        self._places = Places(self._executor, freed, self._log)

    def carry(self, trip: Trip) -> Rest | None:
        """Run, decide, settle, release the lane, as far as nothing has to be waited for; gives the rest, where something has."""
        trip.began = perf_counter()
        try:
            if trip.lane is None or trip.handler is None or trip.foregone is not None:
                return self._guarded(trip, self._beside_the_lanes(trip))
            delivery, handler = trip.delivery, trip.handler
            if not self._leases.is_good(delivery.lease):
                return self._guarded(trip, self._settle_and_leave(trip, Interrupted(Interruption.LEASE_LOST)))
            if handler.idempotency is not None:
                return self._guarded(trip, self._run_once(trip, handler, handler.idempotency))
            outcome = self._executor.begin(delivery, handler)
            if isinstance(outcome, Run):
                return self._guarded(trip, self._wait_and_settle(trip, outcome))
            if outcome is not SUCCEEDED or self._acks.is_behind:
                return self._guarded(trip, self._settle_and_leave(trip, outcome))
            # By far the most frequent end: nothing is left to do that could fail or has to be waited for, and no thread was needed.
            self._acks.gather(delivery.lease)
            if handler.kill_switch is not None:
                self._gates.note(delivery, handler, ACK, trip.began)
            if self.tells_successes:
                self.tell(trip.delivery, trip.handler, SUCCEEDED, ACK, perf_counter() - trip.began)
            trip.has_left = True
            self._freed(trip)
            self._settled(1)
        except Exception as error:  # noqa: BLE001  # the last line of defence, as in `_guarded`
            self._broke_off(trip, error)
        return None

    def was_cancelled(self, trip: Trip) -> None:
        """The task of a trip was cancelled under it."""
        self._log.error("delivery.cancelled", stream=trip.delivery.stream, entry_id=trip.delivery.id)
        self._fail(trip, asyncio.CancelledError("the handler has cancelled its own task"))

    def go_on(self, trip: Trip, outcome: Outcome | Run) -> Rest:
        """What is left to do for a trip that has begun elsewhere, and has its place."""
        if isinstance(outcome, Run):
            return self._guarded(trip, self._wait_and_settle(trip, outcome))
        return self._guarded(trip, self._settle_and_leave(trip, outcome))

    def tell_success(self, trip: Trip) -> None:
        """Tell that a trip has succeeded that was carried elsewhere."""
        self.tell(trip.delivery, trip.handler, SUCCEEDED, ACK, perf_counter() - trip.began)

    def close(self) -> None:
        """The drain has begun: what breaks off now is left pending."""
        self._closed = True

    async def _guarded(self, trip: Trip, rest: Rest) -> None:
        """One delivery that cannot be carried through, whatever the reason, must not take the others with it."""
        try:
            await rest
        except Exception as error:  # noqa: BLE001  # the last line of defence; what it was is in the log
            self._broke_off(trip, error)

    async def _beside_the_lanes(self, trip: Trip) -> None:
        await self._settle_and_leave(trip, await self._outcome(trip))

    async def _wait_and_settle(self, trip: Trip, run: Run) -> None:
        await self._settle_and_leave(trip, await self._executor.finish(run))

    async def _run_once(self, trip: Trip, handler: Handler, idempotency: Idempotency) -> None:
        delivery = trip.delivery
        outcome = await self._once.run(delivery, handler, idempotency, lambda: self._executor.run(delivery, handler))
        await self._settle_and_leave(trip, outcome)

    async def _settle_and_leave(self, trip: Trip, outcome: Outcome) -> None:
        switch = None if trip.handler is None else trip.handler.kill_switch
        if outcome is SUCCEEDED and switch is None and not self.tells_successes:
            # What `decide` says of it is known, and nobody wants to hear it.
            self._acks.gather(trip.delivery.lease)
            await self._acks.catch_up()
        else:
            try:
                await self._decide_and_settle(trip, outcome)
            except CommitRefused as refused:
                await self._decide_and_settle(trip, Failed(refused))
        await self._places.leave(trip)
        if trip.reaches_a_handler:
            self._settled(1)

    async def _outcome(self, trip: Trip) -> Outcome:
        """What happens to a delivery that has no place in a lane."""
        delivery, handler = trip.delivery, trip.handler
        if trip.foregone is not None:
            trip.began -= trip.ran_for if isinstance(trip, BatchedTrip) else 0.0
            return trip.foregone
        if handler is None:
            return Unroutable(delivery.headers.get("type"), self._types_of[delivery.stream])
        if not self._leases.is_good(delivery.lease):
            return Interrupted(Interruption.LEASE_LOST)
        if handler.idempotency is not None:
            return await self._once.run(delivery, handler, handler.idempotency, lambda: self._suspects.run(trip, handler))
        return await self._suspects.run(trip, handler)

    async def _decide_and_settle(self, trip: Trip, outcome: Outcome) -> None:
        delivery, handler = trip.delivery, trip.handler
        retry, dead_letter = self._policies(handler)
        crowded = self._order.is_crowded(trip)
        verdict = decide(outcome, delivery, retry, random(), crowded=crowded)  # noqa: S311  # jitter
        seconds = perf_counter() - trip.began
        if trip.ticket is not None and isinstance(verdict, RetryLater):
            done = await self._order.stay(trip, verdict)
        else:
            done = await self._settlement.settle(delivery, handler, dead_letter, verdict)
        if done and (self.tells_successes or not isinstance(verdict, Ack)):  # only now, for it may be refused
            self.tell(delivery, handler, outcome, verdict, seconds)
        if handler is not None and handler.kill_switch is not None:
            self._gates.note(delivery, handler, verdict, trip.began)

    def tell(self, delivery: Delivery, handler: Handler | None, outcome: Outcome, verdict: Verdict, seconds: float) -> None:
        """Say in the log how a delivery ended that took so long, and to whoever wants to see all of them."""
        held_back = isinstance(outcome, Interrupted) and outcome.why is Interruption.HELD_BACK
        log_verdict(self._log, delivery, handler, verdict, seconds, held_back=held_back)
        if self._witness is not None:
            self._witness(delivery, handler, outcome, verdict)

    def _broke_off(self, trip: Trip, error: Exception) -> None:
        self._log.error("delivery.unsettled", stream=trip.delivery.stream, entry_id=trip.delivery.id, exc_info=error)
        self._fail(trip, error)

    def _fail(self, trip: Trip, error: BaseException) -> None:
        """A trip has broken off: settle its delivery as failed, once, so that it cannot go round for ever."""
        if trip.foregone is None and not self._closed:
            trip.foregone = Failed(error)
            self._start(trip)
            return
        # Nobody settles the entry now, so nobody here may keep its lease or its place.
        self._leases.drop(trip.delivery.lease)
        self._places.free(trip)

    def _policies(self, handler: Handler | None) -> tuple[Any, Any]:
        source = self._plan if handler is None else handler
        return source.retry, source.dead_letter
