"""A trouble that lasts is said once when it begins, once a minute while it lasts, and once when it is over: never a flood."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any

REMINDER = timedelta(minutes=1)
CALM = timedelta(seconds=5)
"""What was well for less counts as the same trouble: one that comes and goes with each delivery is not said each time."""


class Trouble:
    """One thing that may go wrong again and again, such as reading a group or writing dead letters."""

    def __init__(self, log: Any, event: str, *, clock: Callable[[], float] = monotonic, **facts: Any) -> None:
        self._log = log.bind(**facts)
        self._event = event
        self._clock = clock
        self._what: str | None = None
        self._well_at = -CALM.total_seconds()
        self._since = 0.0
        self._count = 0
        self._said: tuple[str, float] | None = None
        self._is_announced = False

    @property
    def lasts(self) -> bool:
        """Whether it went wrong at the last try."""
        return self._what is not None

    def strikes(self, what: str, **facts: Any) -> None:
        """It went wrong. `what` says how, in words without changing parts; a new `what` is said at once."""
        now = self._clock()
        if self._what is None:
            if now - self._well_at >= CALM.total_seconds():
                self._said = None
            self._since, self._count = now, 0
        self._what = what
        self._count += 1
        if self._said is None or self._said[0] != what or now - self._said[1] >= REMINDER.total_seconds():
            self._said = (what, now)
            self._is_announced = True
            self._log.error(f"{self._event}.failing", error=what, failures=self._count, **facts)

    def is_over(self) -> None:
        """It went well; says so if it had said that it went wrong."""
        if self._what is None:
            return
        self._what = None
        self._well_at = self._clock()
        if self._is_announced:
            self._is_announced = False
            self._log.info(f"{self._event}.recovered", failures=self._count, seconds=round(self._clock() - self._since, 3))
