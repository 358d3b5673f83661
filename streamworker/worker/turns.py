"""What goes on when a place is free: in the lanes, in an order, or in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from streamworker.delivery import Interrupted
from streamworker.handlers import Handler
from streamworker.worker.entrance import Waiting
from streamworker.worker.gathering import Gathering
from streamworker.worker.lanes import Lanes
from streamworker.worker.order import CallLater, Order
from streamworker.worker.plan import Plan
from streamworker.worker.pools import Pool
from streamworker.worker.trips import Start, Trip


class Turns:
    """Whose turn it is among what was taken in. `start` begins a delivery's trip."""

    def __init__(self, plan: Plan, pools: Sequence[Pool], order: Order, gathering: Gathering, start: Start) -> None:
        self._pools = pools
        self._pool_of = {binding.keys.stream: pool for pool in pools for binding in pool.bindings}
        self._isolation = plan.isolation
        self._budget = plan.budget
        self._order = order
        self._gathering = gathering
        self._start = start

    def be_driven_by(self, clock: Callable[[], float], call_later: CallLater) -> None:
        """Take the time of batches and of what is retried in its place from these, and not from the event loop."""
        self._order.be_woken_by(call_later)
        self._gathering.be_driven_by(clock, call_later)

    @property
    def at_rest(self) -> int:
        """How many entries wait for the time of a retry in place, or of a batch."""
        return self._order.at_rest + self._gathering.at_rest

    def start_what_may(self) -> None:
        """Start every waiting delivery whose lane has a free place, unless somebody is to be alone."""
        if self._isolation.wanted:
            return
        for pool in self._pools:
            for _, trip in pool.lanes.ready():
                self._start(trip)
        self._gathering.start_what_may()
        self._order.start_what_may()

    def join_lane(self, trip: Trip) -> None:
        """A delivery that has run alone goes on in company, in its handler's lane; nothing else of that runs."""
        if trip.handler is not None and trip.handler.batch is not None:
            self._gathering.join(trip, trip.handler.name)
        elif trip.handler is not None and trip.lane is None:
            trip.lane = trip.handler.name
            self._pool_of[trip.delivery.stream].lanes.join(trip.lane)

    def leave(self, trip: Trip) -> Pool:
        """A delivery has ended, in its lane or beside them: start the next one; answers the pool in which there may be room again."""
        pool = self._pool_of[trip.delivery.stream]
        lanes = pool.lanes
        if trip.ticket is not None:
            self._leave_in_order(trip, lanes)
            return pool
        self._budget.give_back(trip.delivery.size)
        if trip.lane is None:
            lanes.leave_beside()
            self._gathering.leave(trip)
        elif self._isolation.wanted:
            lanes.release(trip.lane)
        else:
            following = lanes.follow(trip.lane)
            if following is not None:
                self._start(following)
        return pool

    def waiting(self, handler: Handler, pool: Pool) -> Waiting:
        """What waits for leave to start."""
        name, lanes = handler.name, pool.lanes
        if handler.batch is not None:
            batches = self._gathering
            return Waiting(lambda: batches.waiting(name), lambda: batches.due(name), lambda: batches.running(name))
        count = partial(self._order.ready if handler.key_of is not None else lanes.waiting, name)
        waiting = Waiting(count, lambda: min(count(), lanes.idle(name)), lambda: lanes.running(name))
        return waiting if handler.key_of is None else waiting._replace(behind=partial(self._order.behind_ready, name))

    def put_aside(self, handler: Handler, pool: Pool, outcome: Callable[[str], Interrupted]) -> None:
        """Let go what waits for this handler; but what has an order waits on, for it would lose that."""
        if handler.batch is not None:
            for trip in self._gathering.clear_one(handler.name):
                trip.foregone = outcome(trip.delivery.stream)
                self._start(trip)
        elif handler.key_of is None:
            if pool.break_up is not None:
                pool.break_up()
            for trip in pool.lanes.clear_one(handler.name):
                trip.lane, trip.foregone = None, outcome(trip.delivery.stream)
                pool.lanes.enter_beside()
                self._start(trip)

    def _leave_in_order(self, trip: Trip, lanes: Lanes[Trip]) -> None:
        if trip.again is None:
            self._budget.give_back(trip.delivery.size)
        if trip.lane is None:
            lanes.leave_beside()
        else:
            lanes.release(trip.lane)
        self._order.leave(trip)
