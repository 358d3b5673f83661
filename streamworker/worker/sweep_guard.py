"""When it is safe to take entries for abandoned. Pure.

The idle time of an entry is told by the server's clock, and means that its worker is dead only if that worker could have renewed. When
the clock jumps, the server stands still or nobody reaches it, every entry looks abandoned, and a live fleet would take from itself.
"""

from __future__ import annotations

from datetime import timedelta

HOLD_FOR, TOLERANCE = 2 / 3, 1 / 4
"""Shares of a lease: how long workers get to renew after something went wrong (they do so at a third, and try again soon), and by how
much the server's clock and ours may differ from one sweep to the next. A renewed entry's idle time is below three quarters of a lease."""


class SweepGuard:
    """Says whether to sweep now. A worker begins with a hold as well: it cannot know what went on before. `now` is monotonic seconds."""

    def __init__(self, lease: timedelta, now: float) -> None:
        self._lease = lease.total_seconds()
        self._held_until = now + self._lease * HOLD_FOR
        self._seen: tuple[int, float] | None = None

    @property
    def has_seen(self) -> bool:
        """Whether the server's clock was ever looked at."""
        return self._seen is not None

    def hold(self, now: float) -> None:
        """Something went wrong: give every worker the time to renew what is its own."""
        self._held_until = max(self._held_until, now + self._lease * HOLD_FOR)

    def trust(self) -> None:
        """Somebody knows better: end the hold."""
        self._held_until = 0.0

    def holds(self, now: float) -> bool:
        """Whether it is too early to sweep."""
        return now < self._held_until

    def saw(self, server_ms: int, now: float) -> timedelta:
        """Note the server's clock; answers by how much it has moved more than ours since the last look."""
        expected_ms = self._expected_ms(now)
        self._seen = (server_ms, now)
        return timedelta(milliseconds=0 if expected_ms is None else server_ms - expected_ms)

    def latest_ms(self, now: float) -> int:
        """The latest server time at which a sweep that is sent now may be carried out; 0, which is never, before the first look."""
        expected_ms = self._expected_ms(now)
        return 0 if expected_ms is None else expected_ms + round(self._lease * TOLERANCE * 1000)

    def _expected_ms(self, now: float) -> int | None:
        if self._seen is None:
            return None
        server_ms, at = self._seen
        return server_ms + round((now - at) * 1000)
