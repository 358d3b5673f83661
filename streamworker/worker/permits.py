"""The permits of one handler in this process: what Redis has granted, until when each may be used, and how many to ask for next. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from streamworker.flow import Timing

SOON_SECONDS = 1.0
"""What can start within this time may be read and wait here; what cannot is left to others."""

AHEAD_SECONDS = 0.1
"""So much of what a rate lets through is read ahead, and always one: what waits here when a worker dies has to run alone."""

MOST_EXTRA = 1_000
"""At most so many are asked for beyond those that start at once; else twice as many as were used since the last question."""

FAST_SECONDS = 0.002
"""Up to this interval, permits are asked for ahead of those that need them."""

SHORTEST_PAUSE = 0.02
"""So long between two questions at least: meanwhile permits come together, and are fetched as one chunk."""


@dataclass(slots=True)
class _Lot:
    """Permits that were granted together. The first may be used until `until`, each later one for an `interval` longer."""

    since: float
    until: float
    count: int


class Permits:
    """`now` is seconds by the caller's clock, which runs as fast as the server's. Up to so many are used `together`, by a batch."""

    def __init__(self, timing: Timing, together: int = 1) -> None:
        self._timing = timing
        self._together = together
        self._interval = timing.interval_us / 1e6
        self._lots: deque[_Lot] = deque()
        self._extra = 0
        self._used = 0
        self._went_to_waste = False
        self.next_at: float = 0.0
        """When the server has the next one, as far as is known."""

    def grant(self, server_us: int, first_us: int, count: int, next_us: int, sent_at: float, came_at: float) -> None:
        """Take what the server has granted: `count` slots from `first_us` on, at its time `server_us`, which was between `sent_at` and
        `came_at` here. All of them may be used once the last slot's time has come."""
        self.next_at = came_at + max(0, next_us - server_us) / 1e6
        self._extra = self._extra // 2 if self._went_to_waste else min(MOST_EXTRA, 2 * self._used)
        self._used, self._went_to_waste = 0, False
        if count:
            last_us = first_us + (count - 1) * self._timing.interval_us
            until = sent_at + (first_us - server_us + self._timing.slack_us) / 1e6
            self._lots.append(_Lot(came_at + max(0, last_us - server_us) / 1e6, until, count))

    def usable(self, now: float) -> int:
        """How many may be used now."""
        self._forget_late(now)
        return sum(lot.count for lot in self._lots if lot.since <= now)

    def soon(self, now: float) -> int:
        """How many could start soon, if nobody else asked for them."""
        ready = self.usable(now)
        if self._together > 1:
            return max(ready, self._together)  # a batch is gathered first, and gets its turn then
        if self._interval <= SOON_SECONDS:
            return ready + max(1, int(AHEAD_SECONDS / self._interval))
        return ready if ready else int(self.next_at <= now + SOON_SECONDS)

    def use(self, count: int, now: float) -> None:
        """Use so many of those that are usable, the oldest first."""
        self._used += count
        for lot in self._lots:
            taken = min(count, lot.count) if lot.since <= now else 0
            lot.count -= taken
            lot.until += taken * self._interval
            count -= taken
        if count:
            raise ValueError("there are not so many permits")
        while self._lots and not self._lots[0].count:
            self._lots.popleft()

    def wanted(self, waiting: int, places: int, now: float) -> int:
        """How many to ask for, where so many wait and so many of them find a place: more than these, as long as none went to waste."""
        return max(min(waiting, places + self._extra), self.to_have_ready(now))

    def to_have_ready(self, now: float) -> int:
        """How many to ask for before anything waits for them: at a fast rate, so that the next ones need not wait for an answer."""
        if self._interval > FAST_SECONDS or self._together > 1:
            return 0
        usable = self.usable(now)
        return self._extra - usable if 4 * usable < self._extra else 0

    def ask_at(self, now: float) -> float:
        """When it is worth asking: once the server has something, or what is reserved has come."""
        reserved = min((lot.since for lot in self._lots if lot.since > now), default=None)
        return reserved if reserved is not None else self.next_at

    def _forget_late(self, now: float) -> None:
        for lot in self._lots:
            while lot.count and lot.until < now:
                late = min(lot.count, int((now - lot.until) / self._interval) + 1)
                lot.count -= late
                lot.until += late * self._interval
                self._went_to_waste = True
        self._lots = deque(lot for lot in self._lots if lot.count)
