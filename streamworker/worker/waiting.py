"""Waiting for something to happen, but not for ever."""

from __future__ import annotations

import asyncio


def is_cancelled(error: BaseException) -> bool:
    """Whether `error` ends the running task because somebody has cancelled it, and not because user code has raised it."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def happens_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for `event` at most so many seconds; answers whether it has happened."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def one_happens_within(seconds: float, *events: asyncio.Event) -> None:
    """Wait for any of these events at most so many seconds; without any, for just as long."""
    if not events:
        await asyncio.sleep(seconds)
        return
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
