"""What stands in front of a handler: how much of it may start now, and when to ask again. Pure: `now` is seconds by the caller's clock."""

from __future__ import annotations

from streamworker.handlers import Handler
from streamworker.worker.kill_switch import Switch
from streamworker.worker.permits import SOON_SECONDS, Permits

MANY = 1 << 40
"""As many as like."""

SHORTEST_WAIT, LONGEST_WAIT = 1.0, 24.0
"""For how long what was read all the same is put aside, where nobody knows when the gate opens: for as long as it has been shut, within
these bounds, so that little is done for what waits for long."""

LONGEST_TURN = 300.0
"""The same for what waits for its turn at a rate."""


class Gate:
    """One handler's, in one process. It is shut while nothing can start soon."""

    def __init__(self, handler: Handler) -> None:
        together = 1 if handler.batch is None else handler.batch.max_size
        self.permits: Permits | None = None if handler.rate_limit is None else Permits(handler.rate_limit.timing, together)
        self.switch: Switch | None = None if handler.kill_switch is None else Switch(handler.kill_switch)
        self._interval = 0.0 if handler.rate_limit is None else handler.rate_limit.timing.interval_us / 1e6
        self._paused_since: float | None = None
        self._turn_at = 0.0

    @property
    def is_needed(self) -> bool:
        """Whether there is anything that could keep the handler from starting."""
        return self.permits is not None or self.switch is not None or self.is_paused

    @property
    def is_paused(self) -> bool:
        """Whether somebody has paused the handler."""
        return self._paused_since is not None

    def pause(self, now: float) -> None:
        """Let nothing start until `resume`."""
        self._paused_since = now

    def resume(self) -> None:
        """End the pause."""
        self._paused_since = None

    def may_start(self, now: float) -> int:
        """How many may start now."""
        return 0 if self.is_paused else min(self._tried(now), MANY if self.permits is None else self.permits.usable(now))

    def lacks_permits(self, now: float) -> bool:
        """Whether permits are all that is missing."""
        return self.permits is not None and not self.is_paused and self._tried(now) > 0

    def soon(self, now: float) -> int:
        """How many could start soon."""
        return 0 if self.is_paused else min(self._tried(now), MANY if self.permits is None else self.permits.soon(now))

    def start(self, count: int, now: float, at: float) -> None:
        """So many start, of those that may; `at` is the time by which deliveries are measured."""
        if self.permits is not None:
            self.permits.use(count, now)
        if self.switch is not None:
            self.switch.began(at)

    def opens_at(self, now: float) -> float | None:
        """When to look again, where it is shut: `None` where no time opens it."""
        if self.is_paused:
            return None
        if self.switch is not None and self.switch.may_start(now) == 0:
            rests_until = self.switch.rests_until
            return rests_until if rests_until is not None and rests_until > now else None
        return None if self.permits is None else self.permits.next_at - SOON_SECONDS / 2

    def put_aside_for(self, now: float, random: float) -> float:
        """For how many seconds to put aside a delivery that was read though it cannot start soon; `random` is in [0, 1)."""
        if self.is_paused and self._paused_since is not None:
            wait = min(LONGEST_WAIT, max(SHORTEST_WAIT, now - self._paused_since))
        elif self.switch is not None and self.switch.may_start(now) == 0:
            wait = max(SHORTEST_WAIT, 0.0 if self.switch.rests_until is None else self.switch.rests_until - now)
        else:
            # Each gets a turn of its own, so that they do not come back together only to be put aside again.
            known = now if self.permits is None else max(now, self.permits.next_at)
            self._turn_at = min(now + LONGEST_TURN, max(known, self._turn_at) + self._interval)
            return max(SHORTEST_WAIT, self._turn_at - now)
        return wait * (1 + random / 4)

    def _tried(self, now: float) -> int:
        most = None if self.switch is None else self.switch.may_start(now)
        return MANY if most is None else most
