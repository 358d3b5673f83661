"""SAQ: concurrency 100 on uvloop, results dropped at once."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from orders import order
from probe import ASKED, hit
from saq import Queue, Worker


async def handle(ctx: Any, *, body: dict[str, Any]) -> None:
    """Do nothing, and count it."""
    hit()


async def publish() -> None:
    """Fill the queue, a hundred at once."""
    queue = Queue.from_url(ASKED["url"])
    await queue.connect()
    for start in range(0, ASKED["count"], 100):
        await asyncio.gather(*[queue.enqueue("handle", body=order(start + offset), ttl=-1) for offset in range(100)])
    await queue.disconnect()


async def work() -> None:
    """Run until stopped."""
    queue = Queue.from_url(ASKED["url"], max_concurrent_ops=100)
    await queue.connect()
    await Worker(queue, [handle], concurrency=100).start()


uvloop.run(publish() if sys.argv[1] == "publish" else work())
