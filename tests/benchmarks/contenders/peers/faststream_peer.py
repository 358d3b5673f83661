"""FastStream: reads of 100, no log lines; `batch` takes the 100 in one call, `concurrent` runs them side by side."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from faststream import AckPolicy, FastStream
from faststream.redis import RedisBroker, StreamSub
from orders import order
from probe import ASKED, hit, hits
from pydantic import BaseModel

STREAM = "orders"


class Order(BaseModel):
    """The body."""

    order_id: int
    customer: str
    sku: str
    quantity: int
    price: float


broker = RedisBroker(ASKED["url"], logger=None)


def subscribe(mode: str) -> None:
    """Register the handler."""
    batch = mode == "batch"
    stream = StreamSub(STREAM, group="benchmark", consumer="one", max_records=100, polling_interval=2000, batch=batch)
    more: dict[str, Any] = {"max_workers": 100} if mode == "concurrent" else {}
    subscriber = broker.subscriber(stream=stream, ack_policy=AckPolicy.NACK_ON_ERROR, **more)
    if batch:

        async def handle_batch(orders: list[Order]) -> None:
            hits(len(orders))

        subscriber(handle_batch)
    else:

        async def handle(body: Order) -> None:
            hit()

        subscriber(handle)


async def publish() -> None:
    """Fill the stream, a hundred in a write."""
    await broker.connect()
    pipeline = broker._connection.pipeline(transaction=False)
    for number in range(ASKED["count"]):
        await broker.publish(order(number), stream=STREAM, pipeline=pipeline)
        if number % 100 == 99:
            await pipeline.execute()
    await pipeline.execute()
    await broker._connection.xgroup_create(STREAM, "benchmark", "0")
    await broker.stop()


if sys.argv[1] == "publish":
    asyncio.run(publish())
else:
    subscribe(ASKED["mode"])
    uvloop.run(FastStream(broker, logger=None).run())
