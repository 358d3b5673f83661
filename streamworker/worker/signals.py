"""What a worker process does on a signal, and the promise that it ends in time whatever its handlers do.

The handlers are installed with `signal.signal`, not with the loop's: one that blocks the event loop must not delay the watchdog.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any

from streamworker.worker.consumer import LAST_WORDS
from streamworker.worker.exits import ExitCode
from streamworker.worker.process import WorkerProcess

MARGIN = timedelta(seconds=2)


class Signals:
    """TERM or the first INT drains, the second INT stops at once, HUP rolls the process, USR1 pauses and resumes reading."""

    def __init__(self, process: WorkerProcess, grace: timedelta, log: Any) -> None:
        self._process = process
        self._grace = grace
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._interrupts = 0
        self._watchdog: threading.Timer | None = None
        self._has_terminal = sys.stdin is not None and sys.stdin.isatty()
        self.roll = False
        """Whether this process is to be followed by a fresh one."""

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle signals inside the block, as before outside of it."""
        actions: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: lambda: self._drain("SIGTERM"),
            signal.SIGINT: self._interrupt,
            signal.SIGHUP: self._hang_up,
            signal.SIGUSR1: self._process.toggle_pause,
            signal.SIGTTIN: self._explain_children,
            signal.SIGTTOU: self._explain_children,
        }
        before = {number: signal.signal(number, self._handler(actions[number])) for number in actions}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._watchdog is not None:
                self._watchdog.cancel()

    def _handler(self, action: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, _frame: FrameType | None) -> None:
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self._end_in_time(number)
            self._loop.call_soon_threadsafe(action)

        return handle

    def _drain(self, why: str) -> None:
        self._process.drain(why)

    def _interrupt(self) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            self._process.drain("SIGINT")
        else:
            self._process.hurry()

    def _hang_up(self) -> None:
        # When a terminal closes it sends HUP to what runs in it, and nobody wants that to live on.
        self.roll = not self._has_terminal
        self._process.drain("SIGHUP")

    def _explain_children(self) -> None:
        self._log.warning("signal.ignored", why="this worker is a single process and has no children to add or remove")

    def _end_in_time(self, number: int) -> None:
        """End the process hard if the drain does not: a handler may block the loop, or swallow its cancellation."""
        hurried = number == signal.SIGINT and self._watchdog is not None
        if self._watchdog is not None:
            if not hurried:
                return
            self._watchdog.cancel()
        grace = timedelta(0) if hurried else self._grace
        code = ExitCode.INTERRUPTED if hurried else ExitCode.GRACE_EXCEEDED
        self._watchdog = threading.Timer((grace + 3 * LAST_WORDS + MARGIN).total_seconds(), self._end_hard, (code,))
        self._watchdog.daemon = True
        self._watchdog.start()

    def _end_hard(self, code: ExitCode) -> None:
        self._log.error(
            "worker.ended_hard",
            why="a handler blocks the event loop or swallows its cancellation",
            left_pending=self._process.in_flight,
            exit_code=int(code),
        )
        logging.shutdown()
        os._exit(code)
