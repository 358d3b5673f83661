"""Runs plain functions in threads, and brings what they returned to the loop: one wake-up for all that have ended meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

Ended: TypeAlias = tuple[Any, BaseException | None]
"""What a function in a thread returned, or what it raised."""


class _Call:
    """A function that waits for a thread, or runs in one. `claims` is empty once somebody has it: the thread that runs it, or who gives it
    up before. Popping a list is one step, whatever the threads do.
    """

    __slots__ = ("arguments", "claims", "ended", "function", "loop", "vacate", "variables", "waiter")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, vacate: Callable[[], None], function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> None:
        self.loop = loop
        self.waiter: asyncio.Future[Ended] = loop.create_future()
        self.vacate = vacate
        self.function = function
        self.arguments = arguments
        self.variables = contextvars.copy_context()
        self.claims = [None]
        self.ended: Ended = (None, None)

    def is_claimed(self) -> bool:
        """Take it, and answer whether somebody else had it before."""
        try:
            self.claims.pop()
        except IndexError:
            return True
        return False

    def run(self) -> None:
        """Call the function, in its thread."""
        try:
            self.ended = self.variables.run(self.function, *self.arguments), None
        except BaseException as error:  # noqa: BLE001  # raised again in the task that waits
            self.ended = None, error


class Threads:
    """The threads of one executor, `most` at once; they end with the process, which waits for none of them.

    The pool of the standard library makes a lock and a condition for each call, which costs more than most of what is called.
    """

    def __init__(self, most: int) -> None:
        self._most = max(1, most)
        self._started = self._under_way = 0
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._ended: deque[_Call] = deque()
        self._is_called = False

    async def call(self, vacate: Callable[[], None], function: Callable[..., Any], arguments: tuple[Any, ...]) -> Ended:
        """What became of it; `vacate` is called when the thread has really ended, however long nobody waits for it any more."""
        if self._started <= self._under_way and self._started < self._most:
            self._start_one()
        call = _Call(asyncio.get_running_loop(), vacate, function, arguments)
        self._under_way += 1
        self._calls.put(call)
        try:
            return await call.waiter
        except asyncio.CancelledError:
            if not call.is_claimed():
                self._under_way -= 1
                vacate()
            raise

    def shut_down(self) -> None:
        """Start nothing any more, and wait for no thread: each ends with what it runs."""
        with suppress(Empty):
            while (call := self._calls.get_nowait()) is not None:
                if not call.is_claimed():
                    call.vacate()
                    call.waiter.cancel()
        for _ in range(self._started):
            self._calls.put(None)

    def _start_one(self) -> None:
        try:
            Thread(target=self._work, name=f"streamworker-handler_{self._started}", daemon=True).start()
        except RuntimeError:  # the system gives no more: those that are there will come to it
            if self._started == 0:
                raise
        else:
            self._started += 1

    def _work(self) -> None:
        """One thread's life."""
        while (call := self._calls.get()) is not None:
            if not call.is_claimed():
                call.run()
                self._post(call)
            del call  # nor keep what it holds until the next one comes

    def _post(self, call: _Call) -> None:
        """Called in the thread, when it has ended."""
        self._ended.append(call)
        if not self._is_called:
            self._is_called = True
            # The loop is closed when the process ended without waiting for this thread; then nobody asks any more.
            with suppress(RuntimeError):
                call.loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._is_called = False  # first: what is posted from now on either is taken here, or calls again
        while self._ended:
            call = self._ended.popleft()
            self._under_way -= 1
            call.vacate()
            if not call.waiter.done():
                call.waiter.set_result(call.ended)
