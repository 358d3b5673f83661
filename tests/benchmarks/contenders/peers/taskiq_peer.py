"""taskiq with taskiq-redis: reads of 100, orjson, no results; run by `taskiq worker taskiq_peer:broker`."""

from __future__ import annotations

import sys

from orders import order
from probe import ASKED, hit
from pydantic import BaseModel
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisStreamBroker


class Order(BaseModel):
    """The body."""

    order_id: int
    customer: str
    sku: str
    quantity: int
    price: float


broker = RedisStreamBroker(
    ASKED["url"], queue_name="orders", consumer_group_name="benchmark", consumer_id="0", xread_count=100
).with_serializer(ORJSONSerializer())


@broker.task(task_name="handle")
async def handle(body: Order) -> None:
    """Do nothing, and count it."""
    hit()


async def publish() -> None:
    """Fill the stream, a hundred at once."""
    await broker.startup()
    for start in range(0, ASKED["count"], 100):
        await asyncio.gather(*[handle.kiq(order(start + offset)) for offset in range(100)])
    await broker.shutdown()


if __name__ == "__main__" and sys.argv[1] == "publish":
    import asyncio

    asyncio.run(publish())
