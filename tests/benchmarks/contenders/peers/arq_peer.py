"""arq: 100 jobs at once on uvloop, polls every 5 ms, keeps and logs no result."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker
from orders import order
from probe import ASKED, hit

settings = RedisSettings.from_dsn(ASKED["url"])


async def handle(ctx: Any, body: dict[str, Any]) -> None:
    """Do nothing, and count it."""
    hit()


async def publish() -> None:
    """Fill the queue, a hundred at once."""
    pool = await create_pool(settings)
    for start in range(0, ASKED["count"], 100):
        await asyncio.gather(*[pool.enqueue_job("handle", order(start + offset)) for offset in range(100)])
    await pool.aclose()


if sys.argv[1] == "publish":
    asyncio.run(publish())
else:
    asyncio.set_event_loop(uvloop.new_event_loop())
    Worker([handle], redis_settings=settings, max_jobs=100, poll_delay=0.005, keep_result=0, log_results=False).run()
