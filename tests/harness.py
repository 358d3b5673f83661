"""A worker inside the test's own event loop, on a real server, and what the tests ask of that server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import redis.asyncio

from streamworker import Backoff, RetryPolicy, StreamWorker
from streamworker.codecs.dead_letters import DeadLetterRecord, read_dead_letter
from streamworker.settings import Settings
from streamworker.worker.process import WorkerProcess

SOON = RetryPolicy(max_attempts=3, backoff=Backoff.constant(timedelta(milliseconds=20)))
"""Three attempts, hardly any wait between them."""


def an_app(**options: Any) -> StreamWorker:
    """An application with short times."""
    return StreamWorker(**({"group": "billing", "retry": SOON, "lease": timedelta(seconds=2)} | options))


@asynccontextmanager
async def working(app: StreamWorker, url: str, **settings: Any) -> AsyncIterator[WorkerProcess]:
    """A worker that reads; interrupted and waited for at the end."""
    process = WorkerProcess(app, Settings(redis_url=url, **settings))
    task = asyncio.create_task(process.run())
    ready = asyncio.create_task(process.ready.wait())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=10)
        yield process
    finally:
        ready.cancel()
        process.hurry()
        await task


async def run_burst(app: StreamWorker, url: str, **settings: Any) -> int:
    """Run a worker until nothing is left to do; answers its exit code."""
    process = WorkerProcess(app, Settings(redis_url=url, burst=True, **settings))
    async with asyncio.timeout(30):
        return await process.run()


async def dead_letters(client: redis.asyncio.Redis, stream: str = "orders", group: str = "billing") -> list[DeadLetterRecord]:
    """The dead letters of a group, oldest first."""
    raw = await client.execute_command("XRANGE", f"{{{stream}}}:dlq:{group}", "-", "+", NEVER_DECODE=True)
    return [read_dead_letter([part for pair in fields.items() for part in pair]) for _, fields in raw]


async def pending(client: redis.asyncio.Redis, stream: str = "orders", group: str = "billing") -> int:
    """How many entries are pending in the group, on the stream itself."""
    return int((await client.xpending(stream, group))["pending"])


async def retries_waiting(client: redis.asyncio.Redis, stream: str = "orders", group: str = "billing") -> int:
    """How many retries wait for their time."""
    return int(await client.zcard(f"{{{stream}}}:due:{group}"))


class Ledger:
    """What handlers saw, and an event each time they see more."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._more = asyncio.Condition()

    async def note(self, what: Any) -> None:
        self.seen.append(what)
        async with self._more:
            self._more.notify_all()

    async def until(self, enough: Callable[[list[Any]], bool], within: float = 10.0) -> None:
        async with asyncio.timeout(within), self._more:
            await self._more.wait_for(lambda: enough(self.seen))

    async def until_count(self, count: int, within: float = 10.0) -> None:
        await self.until(lambda seen: len(seen) >= count, within)
