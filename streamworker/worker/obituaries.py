"""What is written down of an entry that is set aside."""

from __future__ import annotations

from datetime import UTC, datetime

from streamworker.codecs.dead_letters import Obituary
from streamworker.delivery import DeadLetter, Delivery, Reason
from streamworker.handlers import Handler
from streamworker.observe.descriptions import describe, trace
from streamworker.policies import DeadLetterPolicy
from streamworker.version import VERSION


def obituary_of(delivery: Delivery, handler: Handler | None, policy: DeadLetterPolicy, verdict: DeadLetter) -> Obituary:
    """Why it is set aside now, and where its error came from."""
    error = verdict.error
    # A malformed entry failed in our own code, whose frames would tell the reader nothing; one that crashed left none.
    traced = error is not None and policy.traceback and verdict.reason not in (Reason.MALFORMED, Reason.CRASHED)
    return Obituary(
        reason=verdict.reason,
        handler=None if handler is None else handler.name,
        error=delivery.history.last_error if error is None else describe(error),
        traceback=trace(error) if error is not None and traced else None,
        failed_at=datetime.now(UTC),
        version=VERSION,
        crashes=verdict.crashes,
    )
