"""What a supervisor does on a signal."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from streamworker.supervisor.supervisor import Supervisor
from streamworker.worker.exits import DRAINS_ALREADY, ENDS_WITH_ITS_TERMINAL


class Signals:
    """TERM or the first INT drains all children, the second INT stops them at once; HUP rolls them, TTIN and TTOU add and remove one,
    USR1 pauses and resumes reading. No user code runs on this event loop, so that its own handlers are never late.
    """

    def __init__(self, supervisor: Supervisor, log: Any) -> None:
        self._supervisor = supervisor
        self._log = log
        self._interrupts = 0
        self._has_terminal = sys.stdin is not None and sys.stdin.isatty()

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle signals inside the block."""
        loop = asyncio.get_running_loop()
        actions: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: lambda: self._supervisor.drain("SIGTERM"),
            signal.SIGINT: self._interrupt,
            signal.SIGHUP: self._hang_up,
            signal.SIGUSR1: self._supervisor.toggle_pause,
            signal.SIGTTIN: self._supervisor.add,
            signal.SIGTTOU: self._supervisor.remove,
        }
        for number, action in actions.items():
            loop.add_signal_handler(number, action)
        try:
            yield
        finally:
            for number in actions:
                loop.remove_signal_handler(number)

    def _interrupt(self) -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            self._supervisor.hurry()
        elif self._supervisor.stopping:
            self._log.warning("signal.ignored", why=DRAINS_ALREADY)
        else:
            self._supervisor.drain("SIGINT: once more to stop at once" if self._has_terminal else "SIGINT")

    def _hang_up(self) -> None:
        if self._has_terminal:
            # When a terminal closes it sends HUP to what runs in it, and nobody wants that to live on.
            self._supervisor.drain(ENDS_WITH_ITS_TERMINAL)
        else:
            self._supervisor.roll()
