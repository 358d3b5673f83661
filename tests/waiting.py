"""Waiting for facts outside our process, such as the end of another one, which nothing announces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


def wait_until(predicate: Callable[[], bool], within: float = 5.0) -> None:
    """Look every 10 ms until `predicate` holds; fail the test when it does not within so many seconds."""
    deadline = time.monotonic() + within
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within:g} s: {getattr(predicate, '__name__', predicate)}")
        time.sleep(0.01)


async def eventually(predicate: Callable[[], Awaitable[object]], within: float = 10.0) -> None:
    """The same for a fact on a server, asked without blocking the event loop."""
    async with asyncio.timeout(within):
        while not await predicate():  # noqa: ASYNC110  # the fact is on a server, where no event of ours is set
            await asyncio.sleep(0.01)
