"""How a run ends in order, however it ends: what it has left on the server is deleted, and nothing comes after."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")


async def whole(work: Coroutine[Any, Any, Result]) -> Result:
    """The work's result; a cancelled caller waits for its end too: entries on their way would come after the deletion of their stream."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


async def ended_by_signals(work: Coroutine[Any, Any, Result]) -> Result | None:
    """The work's result; None when a signal has cancelled it. Only the first signal counts, as the end must not be cut off."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    signals = (signal.SIGINT, signal.SIGTERM)
    interrupted = asyncio.Event()

    def end() -> None:
        if not interrupted.is_set():
            interrupted.set()
            task.cancel()

    for number in signals:
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, end)
    try:
        return await task
    except asyncio.CancelledError:
        if interrupted.is_set():
            return None
        raise
    finally:
        for number in signals:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
