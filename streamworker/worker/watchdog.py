"""Ends the process hard when a drain does not come to its end: a handler may block the event loop, or swallow its cancellation.

It runs in a thread of its own, because neither the loop nor the main thread can be relied on then.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from streamworker.worker.consumer import LAST_WORDS
from streamworker.worker.exits import ExitCode

MARGIN = 3 * LAST_WORDS + timedelta(seconds=1)
"""What an orderly end may take beyond the grace; with the default grace the process is gone within the 30 s that Kubernetes gives."""


class Watchdog:
    """One process's watchdog. `in_flight` tells how many entries stay pending when it has to bite."""

    def __init__(self, grace: timedelta, in_flight: Callable[[], int], log: Any) -> None:
        self._grace = grace
        self._in_flight = in_flight
        self._log = log
        self._timer: threading.Timer | None = None
        self._hurried = False

    def watch(self) -> None:
        """The drain has begun; it must be over soon after the grace. Only the first call counts."""
        if self._timer is None:
            self._start(self._grace + MARGIN, ExitCode.GRACE_EXCEEDED)

    def hurry(self) -> None:
        """There is no grace any more."""
        if not self._hurried:
            self._hurried = True
            self.leave()
            self._start(MARGIN, ExitCode.INTERRUPTED)

    def leave(self) -> None:
        """The process has ended in order."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _start(self, within: timedelta, code: ExitCode) -> None:
        self._timer = threading.Timer(within.total_seconds(), self._end_hard, (code,))
        self._timer.daemon = True
        self._timer.start()

    def _end_hard(self, code: ExitCode) -> None:
        # Nobody may be reading the log: then whoever writes a line waits, perhaps for ever, and so would this one.
        last_means = threading.Timer(LAST_WORDS.total_seconds(), os._exit, (code,))
        last_means.daemon = True
        last_means.start()
        self._log.error(
            "worker.ended_hard",
            why="a handler or the lifespan blocks the loop, swallows its cancellation or does not end, or the server does not answer",
            left_pending=self._in_flight(),
            exit_code=int(code),
        )
        logging.shutdown()
        os._exit(code)
