"""The processes in which handlers with `executor="process"` run: started when they are needed, kept, and replaced when they die."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from time import perf_counter
from typing import Any

from streamworker.delivery import Delivery, Succeeded
from streamworker.errors import HandlerDied, SetupError
from streamworker.handlers import Handler
from streamworker.observe.descriptions import describe
from streamworker.observe.troubles import Trouble
from streamworker.program import Program
from streamworker.settings import Settings
from streamworker.worker.backoff import Pauses
from streamworker.worker.calls import Hello, read_outcome, write_call, write_hello
from streamworker.worker.handler_process import DiedIdle, HandlerProcess

END_WITHIN_SECONDS = 1.0
"""How long they may take to end in good order when the worker ends."""


class Processes:
    """At most `most` of them. They import `program`, which must have these handlers, and run its lifespan."""

    def __init__(self, program: Program, handlers: Collection[Handler], settings: Settings, most: int, log: Any) -> None:
        self._hello = write_hello(_hello(program, handlers, settings))
        # Until the program is imported, what lies beside it must not stand in for Python's own modules.
        self._path = sorted(sys.path, key=lambda folder: str(Path(folder).resolve()) == program.app_dir)
        self._places = asyncio.Semaphore(most)
        self._idle: list[HandlerProcess] = []
        self._all: set[HandlerProcess] = set()
        self._log = log
        self._trouble = Trouble(log, "processes")

    async def begin(self) -> None:
        """Start the first one, so that a program that cannot be found there is told before any entry is taken.

        Raises `SetupError` with what it says is wrong, or `HandlerDied`.
        """
        self._idle.append(await self._start())

    async def call(self, delivery: Delivery, handler: Handler, begun: Callable[[], None]) -> Succeeded:
        """What the handler asks for in a process of its own; `begun` is called when one has taken the entry. Whoever is cancelled kills it.

        Raises what the handler has raised, as `HandlerFailed` or as the `Retry`, `Snooze` or `Reject` that it was, or `HandlerDied`.
        """
        async with self._places:
            while True:
                process = await self._take()
                try:
                    answer = await process.call(write_call(delivery, handler.name), begun)
                except DiedIdle:
                    process.kill()
                    continue
                except HandlerDied as died:
                    facts = {"stream": delivery.stream, "entry_id": delivery.id, "handler": handler.name}
                    self._log.error("handler.process_died", **facts, child_pid=process.pid, error=str(died))
                    raise
                except BaseException:
                    process.kill()
                    raise
                self._idle.append(process)
                break
        told = read_outcome(answer)
        if isinstance(told, BaseException):
            raise told
        return told

    async def close(self) -> None:
        """End them all, in good order as far as they go at once."""
        for process in self._all:
            process.finish()
        if self._all:
            await asyncio.wait([process.ended for process in self._all], timeout=END_WITHIN_SECONDS)
        for process in list(self._all):
            process.kill()
            await process.ended

    async def _take(self) -> HandlerProcess:
        """One that waits for an entry; where there is none, a new one, tried until it can be started."""
        while self._idle:
            process = self._idle.pop()
            if process.is_there:
                return process
        pauses = Pauses()
        while True:
            try:
                process = await self._start()
            except (SetupError, HandlerDied, OSError) as error:
                self._trouble.strikes(describe(error))
                await asyncio.sleep(pauses.next())
            else:
                self._trouble.is_over()
                return process

    async def _start(self) -> HandlerProcess:
        since = perf_counter()
        process = await HandlerProcess.start(self._hello, self._path, self._know)
        self._log.info("handler.process_started", child_pid=process.pid, seconds=round(perf_counter() - since, 3))
        return process

    def _know(self, process: HandlerProcess) -> None:
        self._all.add(process)
        process.ended.add_done_callback(lambda _: self._all.discard(process))


def _hello(program: Program, handlers: Collection[Handler], settings: Settings) -> Hello:
    flags: dict[str, Any] = {"log_level": settings.log_level, "log_format": settings.log_format}
    if not settings.reads_url_from_file:
        flags["redis_url"] = settings.redis_url.get_secret_value()
    return Hello(*program, sys.path, [handler.name for handler in handlers], flags, os.getpid())
