"""Calls by the time of a test, in place of the event loop's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil


@dataclass(slots=True, eq=False)
class Alarm:
    """A call that is still to be made."""

    due_ms: int
    call: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        """Do not make it."""
        self.cancelled = True


class Alarms:
    """What is to be called when the test's time has come to it. `now_ms` is that time; whoever moves it moves it by `ring`."""

    def __init__(self) -> None:
        self.now_ms: int = 0
        self._alarms: list[Alarm] = []

    def seconds(self) -> float:
        """The test's time in seconds."""
        return self.now_ms / 1000

    def call_later(self, seconds: float, call: Callable[[], None]) -> Alarm:
        """Call in so many seconds of the test's time."""
        alarm = Alarm(self.now_ms + ceil(round(seconds * 1000, 6)), call)
        self._alarms.append(alarm)
        return alarm

    def next_due_ms(self) -> int | None:
        """When the next call is to be made."""
        return min((alarm.due_ms for alarm in self._alarms if not alarm.cancelled), default=None)

    def ring(self, now_ms: int) -> None:
        """Let it be that time, and make the calls that are due, the earliest first."""
        self.now_ms = now_ms
        due = sorted((alarm for alarm in self._alarms if alarm.due_ms <= now_ms), key=lambda alarm: alarm.due_ms)
        self._alarms = [alarm for alarm in self._alarms if alarm.due_ms > now_ms and not alarm.cancelled]
        for alarm in due:
            if not alarm.cancelled:
                alarm.call()
