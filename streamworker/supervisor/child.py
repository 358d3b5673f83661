"""One child process as its supervisor holds it: started, listened to, told what to do, and killed as the last means."""

from __future__ import annotations

import asyncio
import os
import socket
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from contextlib import suppress
from signal import Signals
from time import monotonic
from typing import Any, Self

from streamworker.supervisor.messages import VARIABLE, Hello, LastWords, Order, decode
from streamworker.supervisor.restarts import has_lived
from streamworker.worker.status import Status, Watched

KILL_AFTER_SECONDS = 2.0
"""What a child may take beyond its own watchdog's time, which ends it first unless it cannot even run a thread."""
HEAR_OUT_SECONDS = 1.0


class Child:
    """A started child. `live` sees it through to its end; the events say how far it has come."""

    def __init__(self, process: Process, line: tuple[StreamReader, StreamWriter], number: int, bounds: Hello, log: Any) -> None:
        self._process = process
        self._reader, self._writer = line
        self.bounds: Hello = bounds
        self.number = number
        self.pid: int = process.pid
        self.log: Any = log
        self._heard_at = self._started_at = monotonic()
        self._ready_at: float | None = None
        self._ended_at: float | None = None
        self._last_means: asyncio.TimerHandle | None = None
        self._is_told = False
        self.status: Status | None = None
        self.last_words: str = ""
        self.trace: str = ""
        """Where the last words came from, if it was the program."""
        self.killed: bool = False
        """Whether we had to kill it."""
        self.code: int | None = None
        """How it has ended; a signal is negative."""
        self.settled: asyncio.Event = asyncio.Event()
        """Set when it is ready, or will never be."""
        self.leaving: asyncio.Event = asyncio.Event()
        """Set when it drains, of its own accord or not, or has ended."""
        self.ended: asyncio.Event = asyncio.Event()

    @classmethod
    async def start(cls, command: Sequence[str], number: int, bounds: Hello, log: Any) -> Self:
        """Start a process of this command; `bounds` hold until it has told its own. Raises `OSError`.

        It gets a session of its own: what a terminal sends to all that runs in it is for the supervisor alone.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=os.environ | {VARIABLE: f"{theirs.fileno()}:{number}"},
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        log = log.bind(child=number, pid=process.pid)
        log.info("child.started")
        return cls(process, await asyncio.open_connection(sock=ours), number, bounds, log)

    async def live(self) -> int:
        """Listen to it until it has ended; answers how."""
        listening = asyncio.create_task(self._listen())
        try:
            self.code = code = await self._process.wait()
            # A process that it has forked may hold the line open for ever.
            await asyncio.wait([listening], timeout=HEAR_OUT_SECONDS)
        finally:
            listening.cancel()
            self._writer.close()
            self._end()
        return code

    @property
    def is_ready(self) -> bool:
        """Whether it has looked at its groups."""
        return self._ready_at is not None

    @property
    def has_lived(self) -> bool:
        """Whether it is, or was, ready for long enough to count as well."""
        until = monotonic() if self._ended_at is None else self._ended_at
        return has_lived(None if self._ready_at is None else until - self._ready_at)

    @property
    def has_crashed(self) -> bool:
        """Whether it has ended without having been told to, and without having said that it would; or because it gave up."""
        drained = self.status is not None and self.status.draining and not self.status.gave_up
        return self.code is not None and not self._is_told and not drained

    @property
    def watched(self) -> Watched:
        """It, for the health endpoints. Called in their threads."""
        return Watched(self.pid, self.status, monotonic() - self._heard_at)

    def tell(self, order: Order) -> None:
        """Have it do this, and kill it when it should end and does not."""
        if self.code is not None or (order is Order.DRAIN and self._is_told):
            return
        self._writer.write(f"{order}\n".encode())
        if order in (Order.DRAIN, Order.HURRY):
            self._is_told = True
            self.leaving.set()
            self._must_end(0.0 if order is Order.HURRY else self.bounds.grace_seconds)

    def _must_end(self, grace_seconds: float) -> None:
        if self._last_means is not None:
            self._last_means.cancel()
        within = grace_seconds + self.bounds.margin_seconds + KILL_AFTER_SECONDS
        self._last_means = asyncio.get_running_loop().call_later(within, self._kill)

    def _kill(self) -> None:
        self.log.error("child.killed", why="it did not end in time, nor did its watchdog end it")
        self.killed = True
        with suppress(ProcessLookupError):
            self._process.kill()

    async def _listen(self) -> None:
        with suppress(OSError, ValueError):  # the line broke, or what came has no end: its process tells the rest by ending
            while line := await self._reader.readline():
                match decode(line):
                    case Hello() as bounds:
                        self.bounds = bounds
                    case LastWords(text, trace):
                        self.last_words, self.trace = text, trace
                    case Status() as status:
                        self._hear(status)
                    case None:
                        pass

    def _hear(self, status: Status) -> None:
        self.status, self._heard_at = status, monotonic()
        if status.started and self._ready_at is None:
            self._ready_at = self._heard_at
            self.log.info("child.ready", seconds=round(self._ready_at - self._started_at, 3))
            self.settled.set()
        if status.draining and self._last_means is None:
            self._must_end(self.bounds.grace_seconds)
            if not status.gave_up:
                self.log.info("child.leaving", why=status.why_draining)
                self.leaving.set()

    def _end(self) -> None:
        self._ended_at = monotonic()
        if self._last_means is not None:
            self._last_means.cancel()
        for event in (self.settled, self.leaving, self.ended):
            event.set()


def in_words(returncode: int) -> str:
    """How a process ended: `exit code 1`, or the signal's name."""
    if returncode >= 0:
        return f"exit code {returncode}"
    return Signals(-returncode).name if -returncode in set(Signals) else f"signal {-returncode}"
