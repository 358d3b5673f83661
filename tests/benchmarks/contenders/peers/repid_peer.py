"""repid on Redis streams: reads of 100, 100 tasks at once, arguments validated by pydantic."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from orders import order
from probe import ASKED, hit
from repid import Repid, Router
from repid.connections.redis import RedisServer

app = Repid()
server = RedisServer(
    ASKED["url"], batch_size=100, stream_name_strategy=lambda channel: channel, consumer_group_strategy=lambda channel: "benchmark"
)
app.servers.register_server("default", server, is_default=True)
router = Router()


@router.actor(channel="orders", name="handle")
async def handle(order_id: int, customer: str, sku: str, quantity: int, price: float) -> None:
    """Do nothing, and count it."""
    hit()


app.include_router(router)


async def publish() -> None:
    """Fill the stream, a hundred at once."""
    async with app.servers.default.connection():
        for start in range(0, ASKED["count"], 100):
            orders = [order(start + offset) for offset in range(100)]
            await asyncio.gather(
                *[app.send_message_json(channel="orders", payload=one, headers={"topic": "handle"}) for one in orders]
            )


async def work() -> None:
    """Run until stopped."""
    async with app.servers.default.connection():
        await app.run_worker(tasks_limit=100)


uvloop.run(publish() if sys.argv[1] == "publish" else work())
