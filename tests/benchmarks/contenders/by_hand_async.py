"""The asyncio loop that people write by hand: a semaphore, a task for each entry, acknowledgements gathered every two milliseconds."""

from __future__ import annotations

import asyncio
from typing import Any

import redis.asyncio
from probe import ASKED, hit
from pydantic import BaseModel

STREAM, GROUP, COUNT = ASKED["stream"], ASKED["group"], ASKED["count"]
GATHERED_EVERY = 0.002


class Order(BaseModel):
    """The body."""

    order_id: int
    customer: str
    sku: str
    quantity: int
    price: float


async def main() -> None:
    """Consume until all is handled and acknowledged."""
    client = redis.asyncio.Redis.from_url(ASKED["url"])
    places = asyncio.Semaphore(ASKED["concurrency"])
    done: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def handle(entry_id: bytes, body: dict[bytes, bytes]) -> None:
        try:
            order = Order.model_validate_json(body[b"data"])
            await asyncio.sleep(ASKED["seconds"])
            hit()
            done.append(entry_id)
            del order
        finally:
            places.release()

    async def acknowledge() -> None:
        acknowledged = 0
        while acknowledged < COUNT:
            await asyncio.sleep(GATHERED_EVERY)
            if done:
                ids = done.copy()
                done.clear()
                acknowledged += await client.xack(STREAM, GROUP, *ids)

    acknowledging = asyncio.create_task(acknowledge())
    left = COUNT
    while left > 0:
        batches: Any = await client.xreadgroup(GROUP, "by-hand", {STREAM: ">"}, count=ASKED["concurrency"], block=1000)
        for _, entries in batches or ():
            for entry_id, body in entries:
                await places.acquire()
                task = asyncio.create_task(handle(entry_id, body))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            left -= len(entries)
    await acknowledging
    await client.aclose()


if ASKED["uvloop"]:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
