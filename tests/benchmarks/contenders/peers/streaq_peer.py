"""streaQ: concurrency 100 on uvloop, tasks that are silent and keep no result."""

from __future__ import annotations

import sys
from typing import Any

import uvloop
from orders import order
from probe import ASKED, hit
from streaq import Worker

worker = Worker(redis_url=ASKED["url"], concurrency=100, anyio_kwargs={"use_uvloop": True})


@worker.task(silent=True, ttl=0)
async def handle(body: dict[str, Any]) -> None:
    """Do nothing, and count it."""
    hit()


async def publish() -> None:
    """Fill the queue, a hundred in a write."""
    async with worker:
        for start in range(0, ASKED["count"], 100):
            await worker.enqueue_many([handle.enqueue(order(start + offset)) for offset in range(100)])


if __name__ == "__main__":
    if sys.argv[1] == "publish":
        uvloop.run(publish())
    else:
        worker.run_sync()
