"""What a test is told: deliveries and how they ended, and what is pending, waits, or was set aside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias, assert_never

from streamworker.delivery import (
    Abandon,
    Ack,
    Crashed,
    DeadLetter,
    Delivery,
    Failed,
    Interrupted,
    Malformed,
    Outcome,
    Release,
    RetryLater,
    Succeeded,
    Unroutable,
    Verdict,
)

OutcomeWord: TypeAlias = Literal["succeeded", "failed", "malformed", "unroutable", "crashed", "interrupted"]
VerdictWord: TypeAlias = Literal["ack", "retry", "release", "dead letter", "abandon"]


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """One delivery: what happened to it, and what was decided. `verdict` is `None` after a crash, for a crash is an end without one.

    `id` is the original entry's. `error` is what the handler raised, `reason` why it was set aside, `after` how long a retry waits;
    `at` is the test's time.
    """

    id: str
    stream: str
    group: str
    handler: str | None
    attempt: int
    crashes: int
    outcome: OutcomeWord
    verdict: VerdictWord | None
    error: BaseException | None
    reason: str | None
    after: timedelta | None
    at: datetime

    def __str__(self) -> str:
        error = "" if self.error is None else f" ({type(self.error).__name__}: {self.error})"
        verdict = "left pending" if self.verdict is None else self.verdict
        reason = "" if self.reason is None else f" {self.reason!r}"
        after = "" if self.after is None else f" after {self.after}"
        return f"{self.at:%H:%M:%S} {self.handler} attempt {self.attempt}: {self.outcome}{error} → {verdict}{reason}{after}"


@dataclass(frozen=True, slots=True)
class PendingRecord:
    """An entry that is delivered and not settled. `id` is the original entry's."""

    id: str
    stream: str
    group: str
    consumer: str


@dataclass(frozen=True, slots=True)
class WaitingRecord:
    """A retry that waits: its next attempt's number, in how long it is due, and what the last attempt ended with."""

    id: str
    stream: str
    group: str
    attempt: int
    due_in: timedelta
    error: str | None


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """An entry that was set aside: why, by which handler, after what, and its original fields."""

    id: str
    stream: str
    group: str
    reason: str
    error: str | None
    handler: str | None
    attempts: int
    crashes: int
    fields: Mapping[str, str]


def record_of(delivery: Delivery, handler: str | None, outcome: Outcome, verdict: Verdict | None, at: datetime) -> DeliveryRecord:
    """The record of one delivery; a verdict of `None` is a crash."""
    return DeliveryRecord(
        id=delivery.id,
        stream=delivery.stream,
        group=delivery.group,
        handler=handler,
        attempt=delivery.attempt,
        crashes=delivery.crashes,
        outcome="crashed" if verdict is None else _outcome_word(outcome),
        verdict=None if verdict is None else _verdict_word(verdict),
        error=outcome.error if isinstance(outcome, Failed | Malformed) else None,
        reason=verdict.reason.value if isinstance(verdict, DeadLetter) else None,
        after=verdict.after if isinstance(verdict, RetryLater) else None,
        at=at,
    )


def _outcome_word(outcome: Outcome) -> OutcomeWord:
    match outcome:
        case Succeeded():
            return "succeeded"
        case Failed():
            return "failed"
        case Malformed():
            return "malformed"
        case Unroutable():
            return "unroutable"
        case Crashed():
            return "crashed"
        case Interrupted():
            return "interrupted"
        case _:
            assert_never(outcome)


def _verdict_word(verdict: Verdict) -> VerdictWord:
    match verdict:
        case Ack():
            return "ack"
        case RetryLater():
            return "retry"
        case Release():
            return "release"
        case DeadLetter():
            return "dead letter"
        case Abandon():
            return "abandon"
        case _:
            assert_never(verdict)
