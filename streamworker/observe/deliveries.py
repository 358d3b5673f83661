"""One log line per delivery: what was decided about it, and how long it took."""

from __future__ import annotations

import logging
from typing import Any, assert_never

from streamworker.delivery import Abandon, Ack, DeadLetter, Delivery, Release, RetryLater, Verdict
from streamworker.handlers import Handler
from streamworker.observe.descriptions import cap, describe

LINE_LIMIT = 500
"""Of an error in a log line; the dead letter holds more of it."""


def tells_successes(log: Any) -> bool:
    """Whether this log shows debug lines. One that cannot say so is given them."""
    is_enabled_for = getattr(log, "is_enabled_for", None)
    return is_enabled_for is None or bool(is_enabled_for(logging.DEBUG))


def log_verdict(
    log: Any, delivery: Delivery, handler: Handler | None, verdict: Verdict, seconds: float, *, held_back: bool = False
) -> None:
    """Say what becomes of this delivery. Successes are debug lines, so that a fast worker is not slowed by its log, and so is what was
    `held_back` because nothing of its handler may start now."""
    facts = {
        "stream": delivery.stream,
        "entry_id": delivery.id,
        "handler": None if handler is None else handler.name,
        "attempt": delivery.attempt,
        "duration_ms": round(seconds * 1000, 1),
    }
    match verdict:
        case Ack():
            log.debug("delivery.acked", **facts)
        case RetryLater() | Release() if held_back:
            after_s = round(verdict.after.total_seconds(), 3) if isinstance(verdict, RetryLater) else None
            log.debug("delivery.held_back", **facts, after_s=after_s)
        case RetryLater(after=after, error=error):
            error_text = None if error is None else cap(describe(error), LINE_LIMIT)
            log.warning("delivery.retrying", **facts, after_s=round(after.total_seconds(), 3), error=error_text)
        case DeadLetter(reason=reason, error=error):
            error_text = None if error is None else cap(describe(error), LINE_LIMIT)
            log.error("delivery.dead_lettered", **facts, reason=reason.value, crashes=delivery.crashes, error=error_text)
        case Release():
            log.debug("delivery.released", **facts)
        case Abandon():
            log.warning("delivery.abandoned", **facts, why="its lease was lost")
        case _:
            assert_never(verdict)
