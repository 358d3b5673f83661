"""Looks a few hundred times in a second of CPU at which module of ours is at work, and counts."""

from __future__ import annotations

import signal
from collections import Counter
from types import FrameType

INTERVAL = 0.002
HANDLERS = ("ours", "probe")
ELSEWHERE = "event loop and sockets"

_seen: Counter[str] = Counter()


def start() -> None:
    """Begin to look."""
    signal.signal(signal.SIGPROF, _look)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)


def stop() -> dict[str, int]:
    """How often each module was seen."""
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    return dict(_seen)


def _look(number: int, frame: FrameType | None) -> None:
    """Count the innermost module that is the framework's or the handler's: what it calls is at its expense."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("streamworker."):
            # What starts the loop is there all the time.
            _seen[ELSEWHERE if module.startswith("streamworker.cli") else module] += 1
            return
        if module.split(".")[-1] in HANDLERS:
            _seen["the handler, and the counting"] += 1
            return
        frame = frame.f_back
    _seen[ELSEWHERE] += 1
