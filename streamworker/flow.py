"""What a handler can say about how much of it may start: a rate that all processes keep together, and a kill switch. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import NamedTuple

from streamworker.errors import SetupError

MICROSECOND = timedelta(microseconds=1)

ON_ITS_WAY_US = 100_000
"""So much a permit may be late between Redis and the start of a handler: the burst must be able to take that in."""

SLOW_US = 500_000
"""From this interval on, single starts can be kept apart without any burst."""

LONGEST = timedelta(days=365)


class Timing(NamedTuple):
    """A rate as slots in time, in µs: how far apart they are, for how long after a slot it may still be given out, and may be used.

    Each start belongs to one slot, and comes at most `slack` after it. So over any time, no more start than there are slots in that time
    and the `slack` before it.
    """

    interval_us: int
    back_us: int
    slack_us: int

    @property
    def most_at_once(self) -> int:
        """How many may be asked for together, to start at one moment."""
        return self.back_us // self.interval_us + 1


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many deliveries of a handler may start in all processes together: `count` for each `per`, and up to `burst` at once.

    Over any time no more start than `count` for each `per` of it, and `burst` more; retries count too. Without `burst` it is `count`, or
    what the way from Redis to a handler needs, where that is more. Raises `SetupError` with the repair.
    """

    count: int
    per: timedelta = timedelta(seconds=1)
    burst: int | None = None

    def __post_init__(self) -> None:
        if not _is_count(self.count):
            raise SetupError(
                f"a rate limit's count is a whole number of at least 1, not {self.count!r}: to let nothing start, pause the handler"
            )
        if not isinstance(self.per, timedelta) or not timedelta(0) < self.per <= LONGEST:
            raise SetupError(f"per is a positive timedelta of at most {LONGEST.days} days, not {self.per!r}")
        if self.burst is None:
            object.__setattr__(self, "burst", max(self.count, self._least_burst))
        elif not _is_count(self.burst) or self.burst < self._least_burst:
            why = "" if self._least_burst == 1 else ": at this rate a permit's way from Redis to a handler takes in as many"
            raise SetupError(f"burst is a whole number of at least {self._least_burst}{why}, not {self.burst!r}")

    @property
    def timing(self) -> Timing:
        """The slots in time that this rate has."""
        interval, burst = self._interval_us, 1 if self.burst is None else self.burst
        if burst == 1:
            # What may start late must be late for the next one too, so that no two come closer than the interval.
            late = min(max(interval // 20, 50_000), 1_000_000)
            return Timing(interval + late, 0, late)
        slack = (burst - 1) * interval
        kept_back = min(slack // 2, max(ON_ITS_WAY_US, min(slack // 10, 1_000_000)))
        return Timing(interval, slack - kept_back, slack)

    @property
    def _interval_us(self) -> int:
        return max(1, ceil(self.per / MICROSECOND / self.count))

    @property
    def _least_burst(self) -> int:
        interval = self._interval_us
        return 1 if interval >= SLOW_US else ceil(ON_ITS_WAY_US / interval) + 1


@dataclass(frozen=True, slots=True)
class KillSwitch:
    """When a handler stops by itself because what it needs is down: of its last `after` results in a process, a `share` have failed.

    Then nothing of it starts in that process for `rest`; after that one is tried. Where that succeeds, all goes on; where it fails, the
    handler rests again. What counts as failed is an attempt that was spent: an error, a timeout, a `Retry`. Raises `SetupError` with the
    repair.
    """

    after: int = 20
    share: float = 0.5
    rest: timedelta = timedelta(seconds=30)

    def __post_init__(self) -> None:
        if not _is_count(self.after):
            raise SetupError(f"a kill switch's after is a whole number of at least 1, not {self.after!r}")
        if isinstance(self.share, bool) or not isinstance(self.share, (int, float)) or not 0 < self.share <= 1:
            raise SetupError(
                f"a kill switch's share is above 0 and at most 1, such as 0.5 for every second one, not {self.share!r}"
            )
        if not isinstance(self.rest, timedelta) or not timedelta(0) < self.rest <= LONGEST:
            raise SetupError(f"a kill switch's rest is a positive timedelta of at most {LONGEST.days} days, not {self.rest!r}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
