"""Tells a watcher how the worker is: each second, at once when something has changed, and at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from streamworker.worker.process import WorkerProcess
from streamworker.worker.status import BEAT, Status
from streamworker.worker.waiting import happens_within


@asynccontextmanager
async def heartbeat(worker: WorkerProcess, tell: Callable[[Status], None]) -> AsyncIterator[None]:
    """Tell inside the block, from its event loop: a loop that stands still falls silent."""
    beating = asyncio.create_task(_beat(worker, tell))
    try:
        yield
    finally:
        beating.cancel()
        tell(worker.status())


async def _beat(worker: WorkerProcess, tell: Callable[[Status], None]) -> None:
    while True:
        tell(worker.status())
        await happens_within(worker.changed, BEAT.total_seconds())
        worker.changed.clear()
