"""Which entries are handled together, and which batch may start now. Pure: the time is an argument, and nothing is awaited."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf

from streamworker.handlers import Handler
from streamworker.policies import BatchLimits
from streamworker.worker.trips import BatchedTrip


class Batch:
    """Trips that are handled together.

    `closes_at` is when it starts though it is not full, `began` when it did (`perf_counter`), `taken` how many its handler was given.
    """

    __slots__ = ("began", "closes_at", "handler", "has_ended", "size", "taken", "trips")

    def __init__(self, handler: Handler, closes_at: float) -> None:
        self.handler: Handler = handler
        self.closes_at: float = closes_at
        self.trips: list[BatchedTrip] = []
        self.size: int = 0
        self.began: float = 0.0
        self.taken: int = 0
        self.has_ended: bool = False

    def without_first(self, count: int) -> Batch:
        """Keep the first entries, and give the rest as a batch of its own."""
        rest = Batch(self.handler, self.closes_at)
        rest.trips, self.trips = self.trips[count:], self.trips[:count]
        rest.size = sum(trip.delivery.size for trip in rest.trips)
        self.size -= rest.size
        return rest


class Line:
    """One handler's batches: the open one, those that are closed and wait for a place, and how many run.

    An open batch whose time has come goes on taking entries for as long as there is no place for it.
    """

    def __init__(self, handler: Handler, limits: BatchLimits, places: int) -> None:
        self._handler = handler
        self._limits = limits
        self._wait = limits.max_wait.total_seconds()
        self._places = places
        self.running: int = 0
        """How many batches run."""
        self._closed: deque[Batch] = deque()
        self._open: Batch | None = None

    def put(self, trip: BatchedTrip, now: float) -> bool:
        """Add a trip; answers whether something is new that has to be looked after: a batch that was opened or closed."""
        size, limits, batch = trip.delivery.size, self._limits, self._open
        is_new = False
        if batch is not None and limits.max_bytes is not None and batch.size + size > limits.max_bytes:
            self._closed.append(batch)
            batch = None
        if batch is None:
            batch = self._open = Batch(self._handler, now + self._wait)
            is_new = True
        batch.trips.append(trip)
        batch.size += size
        if len(batch.trips) >= limits.max_size or (limits.max_bytes is not None and batch.size >= limits.max_bytes):
            self._closed.append(batch)
            self._open = None
            return True
        return is_new

    def take(self, now: float, most: int | None = None) -> Batch | None:
        """A batch that may start now, if there is one; it counts as running from here on. Of `most` entries, the rest of it waits on."""
        batch = self._next(now)
        if batch is None or self.running >= self._places or most == 0:
            return None
        if batch is self._open:
            self._open = None
        else:
            self._closed.popleft()
        self.running += 1
        if most is not None and most < len(batch.trips):
            self._closed.appendleft(batch.without_first(most))
        return batch

    @property
    def waiting(self) -> int:
        """How many entries wait here."""
        return sum(len(batch.trips) for batch in self._closed) + (0 if self._open is None else len(self._open.trips))

    def due(self, now: float) -> int:
        """How many entries the next batch has that waits for nothing but leave to start; 0 where there is none."""
        batch = self._next(now)
        return 0 if batch is None or self.running >= self._places else len(batch.trips)

    def filling(self, now: float) -> int:
        """How many entries wait for nothing but the time of the open batch, or for others that fill it up."""
        return 0 if self._closed or self._open is None or self._open.closes_at <= now else len(self._open.trips)

    def ripen(self, at: float) -> None:
        """That time has come, whatever a clock says that is coarser than this number."""
        if self._open is not None and self._open.closes_at <= at:
            self._open.closes_at = -inf

    def hasten(self, now: float) -> bool:
        """Let the open batch wait no longer than until now; false where there is none that would."""
        if self._open is None or self._open.closes_at <= now:
            return False
        self._open.closes_at = now
        return True

    def close(self) -> None:
        """Let the open batch wait for nothing more."""
        if self._open is not None:
            self._closed.append(self._open)
            self._open = None

    def join(self) -> None:
        """Something runs that did not wait here."""
        self.running += 1

    def release(self) -> None:
        """A batch of this line has ended."""
        if self.running == 0:
            raise ValueError("no batch runs")
        self.running -= 1

    def due_at(self, now: float) -> float | None:
        """When the open batch has to be looked at; `None` where there is none, or nothing will happen by time alone."""
        return None if self._open is None or self._open.closes_at < now else self._open.closes_at

    def _next(self, now: float) -> Batch | None:
        if self._closed:
            return self._closed[0]
        return self._open if self._open is not None and self._open.closes_at < now else None

    def clear(self) -> Sequence[BatchedTrip]:
        """Take out everything that waits."""
        self.close()
        waiting = [trip for batch in self._closed for trip in batch.trips]
        self._closed.clear()
        return waiting
