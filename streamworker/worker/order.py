"""Keeps the deliveries of one key in the order of their entries, and its line closed while the first of them waits for its next attempt.

Such a delivery stays where it is: its entry pending, its lease renewed, its attempts in the delivery count (`streams/scripts/book.lua`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, TypeAlias

from streamworker.delivery import Crashed, Delivery, Interrupted, Interruption, Lease, Malformed, Outcome, RetryLater
from streamworker.errors import DecodeError
from streamworker.handlers import Handler
from streamworker.observe.troubles import Trouble
from streamworker.policies import is_crash_loop, is_suspect
from streamworker.streams.link import Link
from streamworker.worker.bindings import order_of
from streamworker.worker.book import Book, at_rest, told_in
from streamworker.worker.keyed_lanes import KeyedLanes
from streamworker.worker.leases import LeaseKeeper
from streamworker.worker.plan import Plan
from streamworker.worker.pools import Pool
from streamworker.worker.trips import Again, Start, Ticket, Trip

HELD_UP_PER_PLACE = 20
"""How many deliveries may be held up by earlier ones of their keys, for each that may run, before nothing more is read beside them."""

MOST_FAILED = 8_000_000
"""Of more failed attempts the server's scripts would not know the exact number any more."""

SAY_SO_EVERY_SECONDS = 60.0


class Timer(Protocol):
    """What will call somebody later."""

    def cancel(self) -> None:
        """Do not."""
        ...


CallLater: TypeAlias = Callable[[float, Callable[[], None]], Timer]
"""Calls a function in so many seconds."""


@dataclass(slots=True, eq=False)
class _Ordered:
    """A handler with an ordering key. `counted` is how many that are ready were told to the pool, `barred` whether it was closed."""

    handler: Handler
    pool: Pool
    most: int
    lanes: KeyedLanes[Trip] = field(default_factory=KeyedLanes)
    counted: int = 0
    barred: bool = False
    said_at: float | None = None


class Order:
    """The ordered handlers of one consumer. `start` begins a trip."""

    def __init__(self, plan: Plan, link: Link, leases: LeaseKeeper, pools: Sequence[Pool], start: Start, log: Any) -> None:
        self._isolation = plan.isolation
        self._book = Book(plan.isolation, link, Trouble(log, "retry"))
        self._leases = leases
        self._budget = plan.budget
        self._start = start
        self._log = log
        self._of = {
            handler.name: _Ordered(handler, pool, HELD_UP_PER_PLACE * plan.limits[handler.name])
            for handler, pool in _ordered(pools)
        }
        self._resting: dict[int, tuple[Timer, _Ordered, Trip]] = {}
        self._call_later: CallLater = asyncio.get_running_loop().call_later
        self._draining = False

    def __bool__(self) -> bool:
        """Whether there is an ordered handler at all."""
        return bool(self._of)

    @property
    def waiting(self) -> int:
        """How many deliveries wait here; nothing of them runs."""
        return sum(ordered.lanes.waiting for ordered in self._of.values())

    @property
    def at_rest(self) -> int:
        """How many of them wait for the time of a retry to come, their own or that of an earlier one of their key."""
        return sum(ordered.lanes.at_rest for ordered in self._of.values())

    def ready(self, name: str) -> int:
        """How many deliveries of a handler wait for nothing but leave to start."""
        return self._of[name].lanes.ready

    def behind_ready(self, name: str) -> int:
        """How many deliveries of a handler wait for earlier ones of their key that wait for nothing but leave to start."""
        return self._of[name].lanes.behind_ready

    def be_woken_by(self, call_later: CallLater) -> None:
        """Have this call when a retry is due, in place of the event loop."""
        self._call_later = call_later

    def is_crowded(self, trip: Trip) -> bool:
        """Whether so many are held up that nothing more can be read, so that a key that never gets on would hold up all others too."""
        if trip.ticket is None or trip.handler is None:
            return False
        ordered = self._of[trip.handler.name]
        # Where it stays, it is held up itself.
        return ordered.lanes.held_up + 1 >= ordered.most or self._budget.left == 0

    def admit(self, delivery: Delivery, handler: Handler) -> Trip | None:
        """Put a delivery in its key's line, from which `start_what_may` takes it; gives the trip that has no key to be told."""
        foregone: Outcome | None = Crashed() if is_crash_loop(delivery, handler.retry) else None
        try:
            key: Hashable = None if handler.key_of is None else handler.key_of(delivery)
        except DecodeError as error:
            return Trip(delivery, handler, Malformed(error) if foregone is None else foregone)
        if self._draining and foregone is None:
            foregone = Interrupted(Interruption.DRAIN)
        # Without a key it has a line of its own.
        ticket = Ticket(object() if key is None else key, order_of(delivery.id))
        ordered = self._of[handler.name]
        if is_suspect(delivery) and ordered.lanes.has_earlier(*ticket):
            # It had not begun when its worker died, for what is before it had not ended.
            delivery = replace(delivery, history=replace(delivery.history, suspect=False))
        self._line_up(ordered, Trip(delivery, handler, foregone, ticket=ticket), ticket)
        return None

    def start_what_may(self) -> None:
        """Start every delivery whose turn in its key's line has come, where there is a place for it."""
        for ordered in self._of.values():
            self._start_of(ordered)

    async def stay(self, trip: Trip, verdict: RetryLater) -> bool:
        """Have it tried again in its place, so that nothing of its key goes before it: it stays ours, and what counts is written down.

        False where it is not ours any more.
        """
        lease, history = trip.delivery.lease, told_in(verdict)
        failed = min(MOST_FAILED, lease.failed + history.attempt - trip.delivery.attempt)
        if await self._book.write(trip.delivery, at_rest(lease.turn), failed=failed) or self._isolation.ending.is_set():
            trip.again = Again(verdict.after, history)
            return True
        lease.lost = True
        self._leases.drop(lease)
        return False

    def leave(self, trip: Trip) -> None:
        """A delivery has ended here, and its place is free; or it stays for its next attempt, and its key stays closed."""
        if trip.ticket is None or trip.handler is None:
            return
        ordered = self._of[trip.handler.name]
        ordered.lanes.end(trip.ticket.key)
        if trip.again is not None:
            self._rest(ordered, trip, trip.again)
            self._isolation.changed()
        self._start_of(ordered)

    def lost(self, lease: Lease) -> None:
        """The lease of an entry that does not run is lost; where it holds up others, it makes way for them now."""
        found = self._resting.get(id(lease))
        if found is not None:
            found[0].cancel()
            self._wake(found[1], found[2])

    def doubt(self) -> None:
        """Earlier entries than those that are here may be pending under our name without our knowledge: begin nothing until `trust`."""
        for ordered in self._of.values():
            ordered.lanes.closed = not self._draining

    def trust(self) -> None:
        """Nothing is."""
        for ordered in self._of.values():
            ordered.lanes.closed = False
        self.start_what_may()

    def drain(self) -> None:
        """Begin nothing any more: what waits is released, key by key in its order, each after the one before it has ended."""
        self._draining = True
        for timer, _, _ in self._resting.values():
            timer.cancel()
        self._resting.clear()
        for ordered in self._of.values():
            for trip in ordered.lanes.let_all_go():
                if trip.foregone is None:
                    trip.foregone = Interrupted(Interruption.DRAIN)
            self._start_of(ordered)

    def _line_up(self, ordered: _Ordered, trip: Trip, ticket: Ticket, *, resting: bool = False) -> None:
        beside = trip.foregone is not None or is_suspect(trip.delivery)
        ordered.lanes.offer(ticket.key, ticket.place, trip, beside=beside, resting=resting)

    def _rest(self, ordered: _Ordered, trip: Trip, again: Again) -> None:
        ticket = trip.ticket
        if ticket is None:
            return
        delivery = replace(trip.delivery, history=again.history)
        next_one = Trip(delivery, trip.handler, ticket=ticket)
        if self._draining:
            next_one.foregone = Interrupted(Interruption.DRAIN)
            self._line_up(ordered, next_one, ticket)
            return
        resting = not delivery.lease.lost and again.after > timedelta(0)
        self._line_up(ordered, next_one, ticket, resting=resting)
        if resting:
            timer = self._call_later(again.after.total_seconds(), partial(self._wake, ordered, next_one))
            self._resting[id(delivery.lease)] = timer, ordered, next_one

    def _wake(self, ordered: _Ordered, trip: Trip) -> None:
        self._resting.pop(id(trip.delivery.lease), None)
        if trip.ticket is not None:
            ordered.lanes.wake(trip.ticket.key, trip)
        self._start_of(ordered)

    def _start_of(self, ordered: _Ordered) -> None:
        while (trip := ordered.lanes.take_beside()) is not None:
            ordered.pool.lanes.enter_beside()
            self._start(trip)
        while (trip := self._take(ordered)) is not None:
            trip.lane = ordered.handler.name
            self._start(trip)
        self._tell(ordered)

    def _take(self, ordered: _Ordered) -> Trip | None:
        """The next one that may start, where there is a place for it."""
        lanes = ordered.lanes
        if not lanes.ready or lanes.closed or self._isolation.wanted or not ordered.pool.lanes.begin(ordered.handler.name):
            return None
        return lanes.take()

    def _tell(self, ordered: _Ordered) -> None:
        """What is ready takes room; what is held up takes none, so that other keys find some, until it is too much."""
        lanes, places = ordered.lanes, ordered.pool.lanes
        places.held += lanes.ready - ordered.counted
        ordered.counted = lanes.ready
        barred = lanes.held_up >= ordered.most
        if barred is not ordered.barred:
            ordered.barred = barred
            places.bar(1 if barred else -1)
            if barred:
                self._say_so(ordered)

    def _say_so(self, ordered: _Ordered) -> None:
        now = asyncio.get_running_loop().time()
        if ordered.said_at is None or now - ordered.said_at > SAY_SO_EVERY_SECONDS:
            ordered.said_at = now
            self._log.warning(
                "order.crowded",
                handler=ordered.handler.name,
                entries=ordered.lanes.held_up,
                why="they wait for earlier ones of their keys, and nothing more is read beside so many: see which key does not get on",
            )


def _ordered(pools: Sequence[Pool]) -> Iterator[tuple[Handler, Pool]]:
    for pool in pools:
        for handler in {handler.name: handler for binding in pool.bindings for handler in binding.handlers}.values():
            if handler.key_of is not None:
                yield handler, pool
