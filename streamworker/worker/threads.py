"""Runs plain functions in threads, and brings what they returned to the loop: one wake-up for all that have ended meanwhile."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

Ended: TypeAlias = tuple[Any, BaseException | None]
"""What a function in a thread returned, or what it raised."""


class Threads:
    """The threads of one executor, `most` at once."""

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(max(1, most), thread_name_prefix="streamworker-handler")
        self._ended: deque[Callable[[], None]] = deque()
        self._is_called = False

    async def call(self, vacate: Callable[[], None], function: Callable[..., Any], arguments: tuple[Any, ...]) -> Ended:
        """What became of it; `vacate` is called when the thread has really ended, however long nobody waits for it any more."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Ended] = loop.create_future()
        inside = contextvars.copy_context()
        future: Future[Ended] = self._pool.submit(inside.run, _run_to_end, function, arguments)
        future.add_done_callback(lambda _: self._post(loop, partial(_deliver, vacate, waiter, future)))
        try:
            return await waiter
        except asyncio.CancelledError:
            future.cancel()  # where it has not begun
            raise

    def shut_down(self) -> None:
        """Start no thread any more, and wait for none."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _post(self, loop: asyncio.AbstractEventLoop, delivery: Callable[[], None]) -> None:
        """Called in the thread that has ended."""
        self._ended.append(delivery)
        if not self._is_called:
            self._is_called = True
            # The loop is closed when the process ended without waiting for this thread; then nobody asks any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._is_called = False  # first: what is posted from now on either is taken here, or calls again
        while self._ended:
            self._ended.popleft()()


def _deliver(vacate: Callable[[], None], waiter: asyncio.Future[Ended], future: Future[Ended]) -> None:
    vacate()
    if waiter.done():
        return
    if future.cancelled():
        waiter.cancel()
    elif (error := future.exception()) is not None:
        waiter.set_exception(error)
    else:
        waiter.set_result(future.result())


def _run_to_end(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Ended:
    """Call it, in its thread. A future cannot carry every exception: a StopIteration would leave its waiter waiting for ever."""
    try:
        return function(*arguments), None
    except BaseException as error:  # noqa: BLE001  # raised again in the task that waits
        return None, error
