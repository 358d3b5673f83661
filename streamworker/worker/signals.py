"""What a worker process does on a signal.

The handlers are installed with `signal.signal`, not with the loop's: a user's handler that blocks the loop must not delay the watchdog.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from types import FrameType
from typing import Any

from streamworker.worker.exits import DRAINS_ALREADY, ENDS_WITH_ITS_TERMINAL
from streamworker.worker.process import WorkerProcess


class Signals:
    """TERM or the first INT drains, the second INT stops at once, HUP rolls the process, USR1 pauses and resumes reading."""

    def __init__(self, process: WorkerProcess, log: Any) -> None:
        self._process = process
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._interrupts = 0
        self._has_terminal = sys.stdin is not None and sys.stdin.isatty()
        self.roll: bool = False
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

    def _handler(self, action: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, _frame: FrameType | None) -> None:
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                self._watch(number)
            # In a context of its own: this moment's is that of whatever the signal has interrupted, such as a user's handler.
            self._loop.call_soon_threadsafe(action, context=Context())

        return handle

    def _watch(self, number: int) -> None:
        """Called in the signal's own moment: a handler that blocks the event loop must not delay the watchdog."""
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            self._process.watchdog.hurry()
        else:
            self._process.watchdog.watch()

    def _drain(self, why: str) -> None:
        self._process.drain(why)

    def _interrupt(self) -> None:
        if self._interrupts > 1:
            self._process.hurry()
        elif self._process.is_draining:
            self._log.warning("signal.ignored", why=DRAINS_ALREADY)
        else:
            self._process.drain("SIGINT: once more to stop at once" if self._has_terminal else "SIGINT")

    def _hang_up(self) -> None:
        # When a terminal closes it sends HUP to what runs in it, and nobody wants that to live on.
        self.roll = not self._has_terminal
        self._process.drain(ENDS_WITH_ITS_TERMINAL if self._has_terminal else "SIGHUP")

    def _explain_children(self) -> None:
        self._log.warning("signal.ignored", why="this worker is a single process and has no children to add or remove")
