"""How far ahead of its handlers a pool may read: what it works off in a moment, so that a fast one never waits for the server and a slow
one keeps nothing from other workers. Pure.
"""

from __future__ import annotations

MOMENT_SECONDS = 0.05
AHEAD, FAR_AHEAD = (250, 5), (1_000, 50)
"""At most, in all and for each place; far ahead where entries are read in lots, of which each costs little while it waits. What waits here
when a worker dies has to run alone, one after another."""

LEAST_INTERVAL_SECONDS, ROUNDS = 0.01, 8
"""Over less than that, how much was done says little, unless each place has been taken so many times."""


class Pace:
    """Measures how much is done, from looks at a counter; each look also takes away half of what the earlier ones said."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._looked_at: float | None = None
        self._done = 0

    def ahead(self, done: int, places: int, now: float, *, far: bool = False) -> int:
        """How many may wait here beside those that run; `done` is how many have ended so far, `places` how many run at once, `now` the
        time in seconds.
        """
        if self._looked_at is None:
            self._looked_at, self._done = now, done
        elif (passed := now - self._looked_at) >= LEAST_INTERVAL_SECONDS or (passed > 0 and done - self._done >= ROUNDS * places):
            rate = (done - self._done) / passed
            # The longer it is, the less of what was before still counts: after a moment, nothing.
            kept = max(0.0, 0.5 - passed / (2 * MOMENT_SECONDS))
            self._rate = self._rate * kept + rate * (1 - kept)
            self._looked_at, self._done = now, done
        most, of_a_place = FAR_AHEAD if far else AHEAD
        return min(most, of_a_place * places, int(self._rate * MOMENT_SECONDS))
