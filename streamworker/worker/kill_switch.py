"""Whether a handler's last results let it go on. Pure: times are arguments."""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from streamworker.delivery import Ack, DeadLetter, Delivery, Reason, RetryLater, Verdict
from streamworker.flow import KillSwitch


class Change(StrEnum):
    """What a result has changed."""

    TRIPPED = "tripped"
    RESET = "reset"


class Switch:
    """One handler's kill switch in this process. It rests until `rests_until`; what began before `tried_at` does not count then."""

    def __init__(self, policy: KillSwitch) -> None:
        self._policy = policy
        self._results: deque[bool] = deque(maxlen=policy.after)
        self.rests_until: float | None = None
        self._tried_at: float | None = None

    @property
    def failed(self) -> int:
        """How many of the last results have failed."""
        return self._results.count(False)

    def may_start(self, now: float) -> int | None:
        """How many may start; `None`: as many as like."""
        if self.rests_until is None:
            return None
        return 1 if self._tried_at is None and now >= self.rests_until else 0

    def began(self, at: float) -> None:
        """One has started; while the switch is tripped, it is the one that is tried."""
        if self.rests_until is not None and self._tried_at is None:
            self._tried_at = at

    def note(self, good: bool | None, began: float, now: float) -> Change | None:
        """Take a result, of a delivery that began then; `None` for one that says nothing."""
        if self.rests_until is None:
            return self._count(good, now)
        if self._tried_at is None or began < self._tried_at:
            return None  # it was under way when the switch tripped
        if good is None:
            self._tried_at = None  # the next one is tried
            return None
        self._tried_at = None
        self._results.clear()
        if good:
            self.rests_until = None
            return Change.RESET
        self._results.append(False)
        self.rests_until = now + self._policy.rest.total_seconds()
        return Change.TRIPPED

    def _count(self, good: bool | None, now: float) -> Change | None:
        if good is None:
            return None
        self._results.append(good)
        if len(self._results) < self._policy.after or self.failed < self._policy.share * self._policy.after:
            return None
        self.rests_until = now + self._policy.rest.total_seconds()
        return Change.TRIPPED


def is_good(verdict: Verdict, delivery: Delivery) -> bool | None:
    """What a verdict says of the handler: that it works, that an attempt was spent in vain, or nothing.

    An entry that was rejected, or whose error is one of `give_up_on`, is at fault itself: the handler could tell.
    """
    match verdict:
        case Ack() | DeadLetter(Reason.REJECTED | Reason.UNRETRYABLE):
            return True
        case DeadLetter(Reason.EXHAUSTED):
            return False
        case RetryLater(history=history) if history.attempt > delivery.attempt:
            return False
        case _:
            return None
