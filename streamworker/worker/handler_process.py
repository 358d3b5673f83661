"""One process of a handler as its worker holds it: started, given one entry after the other, and killed when nobody wants its outcome.

It is started anew and not forked, and finds the program by its name, as the worker has: see `streamworker.handling`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from streamworker.errors import HandlerDied, SetupError
from streamworker.observe.descriptions import in_words
from streamworker.worker.calls import BEGUN, LENGTH, READY, framed

_BEGIN = """
import sys
descriptor, *sys.path[:] = sys.argv[1:]
sys.argv[:] = ["streamworker.handling"]
from streamworker.handling.serving import serve
serve(int(descriptor))
"""
COMMAND = (sys.executable, "-P", "-c", _BEGIN)
"""Followed by the number of the line's end there, and by where to look for modules."""
START_WITHIN_SECONDS = 120.0
"""How long the program may take to be imported there, and its lifespan to begin."""
HEAR_OUT_SECONDS = 1.0
"""For what it said before it ended."""
STANDARD_ERROR = 2


class DiedIdle(Exception):
    """The process had ended before it took the entry, so that it was not the entry's doing."""


class HandlerProcess:
    """A started process. It has no other way to us than the line, and ends when that does."""

    def __init__(self, process: Process, line: tuple[StreamReader, StreamWriter]) -> None:
        self._process = process
        self._reader, self._writer = line
        self.pid: int = process.pid
        self.ended: asyncio.Task[int] = asyncio.create_task(process.wait())
        """Answers how it has ended; a signal is negative."""

    @classmethod
    async def start(cls, hello: bytes, path: Sequence[str], started: Callable[[Self], None]) -> Self:
        """Start one, and wait until it is ready; `started` is called as soon as there is a process that must be ended.

        Raises `SetupError` with what it says is wrong, `OSError`, or `HandlerDied` when it ends before it is ready.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *COMMAND,
                    str(theirs.fileno()),
                    *path,
                    stdin=DEVNULL,
                    # What a handler prints must not lie in the way of a worker's own output.
                    stdout=STANDARD_ERROR,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            line = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            raise
        made = cls(process, line)
        started(made)
        try:
            async with asyncio.timeout(START_WITHIN_SECONDS):
                await made._be_ready(hello)
        except TimeoutError:
            made.kill()
            raise HandlerDied(f"it was not ready within {START_WITHIN_SECONDS:.0f} s") from None
        except BaseException:
            made.kill()
            raise
        return made

    @property
    def is_there(self) -> bool:
        """Whether it has not ended yet, as far as we know."""
        return not self.ended.done()

    async def call(self, message: bytes, begun: Callable[[], None]) -> bytes:
        """Have it handle an entry; `begun` is called when it has taken it. Answers the outcome's message.

        Raises `DiedIdle` or `HandlerDied`. Whoever is cancelled here must kill it.
        """
        self._writer.write(framed(message))
        if await self._hear() != BEGUN:
            raise DiedIdle
        begun()
        outcome = await self._hear()
        if outcome is None:
            raise HandlerDied(f"the process of the handler ended with {in_words(await self._code())}")
        return outcome

    def finish(self) -> None:
        """Have it end in good order: it hears the end of the line, ends its lifespan and goes."""
        self._writer.close()

    def kill(self) -> None:
        """End it, and what it has started itself, at once."""
        with suppress(ProcessLookupError, PermissionError):
            if self.is_there:
                os.killpg(self.pid, signal.SIGKILL)
        self._writer.close()

    async def _be_ready(self, hello: bytes) -> None:
        self._writer.write(framed(hello))
        answer = await self._hear()
        if answer is None:
            raise HandlerDied(f"it ended with {in_words(await self._code())} before it was ready")
        if answer != READY:
            raise SetupError(answer.decode())

    async def _code(self) -> int:
        """How it has ended. One that has closed the line and goes on is of no use."""
        await asyncio.wait({self.ended}, timeout=HEAR_OUT_SECONDS)
        self.kill()
        return await self.ended

    async def _hear(self) -> bytes | None:
        """The next message; `None` when none can come any more."""
        hearing = asyncio.create_task(self._read())
        try:
            await asyncio.wait({hearing, self.ended}, return_when=asyncio.FIRST_COMPLETED)
            # What it has started itself may hold the line open for ever.
            await asyncio.wait({hearing}, timeout=HEAR_OUT_SECONDS)
            return hearing.result() if hearing.done() else None
        finally:
            hearing.cancel()

    async def _read(self) -> bytes | None:
        try:
            (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
            return await self._reader.readexactly(length)
        except (OSError, EOFError):
            return None
