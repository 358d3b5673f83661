"""Publishes orders, in one of the ways that are compared: ours, and those of redis-py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from orders import order
from probe import ASKED, begin, end
from pydantic import BaseModel

URL, STREAM, COUNT = ASKED["url"], ASKED["stream"], ASKED["count"]
AT_ONCE = 100


class Order(BaseModel):
    """The body."""

    order_id: int
    customer: str
    sku: str
    quantity: int
    price: float


ORDERS = [Order(**order(number)) for number in range(COUNT)]
LOTS = [ORDERS[start : start + AT_ONCE] for start in range(0, COUNT, AT_ONCE)]


def fields(one: Order) -> dict[Any, Any]:
    """What redis-py is given."""
    return {"data": one.model_dump_json()}


async def one_by_one(publish: Callable[[Order], Awaitable[Any]]) -> None:
    """Await each before the next."""
    begin()
    for one in ORDERS:
        await publish(one)
    end(COUNT)


async def at_once(publish: Callable[[Order], Awaitable[Any]]) -> None:
    """A hundred are on their way together."""
    begin()
    for lot in LOTS:
        await asyncio.gather(*[publish(one) for one in lot])
    end(COUNT)


async def streamworker() -> None:
    """Ours."""
    from streamworker import StreamWorker

    async with StreamWorker(redis_url=URL, codec="json") as app:
        await app.publish("warm", ORDERS[0])
        if ASKED["way"] == "many":
            begin()
            for lot in LOTS:
                await app.publish_many(STREAM, lot)
            end(COUNT)
        else:
            ways = {"one": one_by_one, "at once": at_once}
            await ways[ASKED["way"]](lambda one: app.publish(STREAM, one))


async def redis_asyncio() -> None:
    """redis-py on asyncio."""
    import redis.asyncio

    async with redis.asyncio.Redis.from_url(URL) as client:
        await client.ping()
        if ASKED["way"] == "many":
            begin()
            for lot in LOTS:
                pipeline = client.pipeline(transaction=False)
                for one in lot:
                    pipeline.xadd(STREAM, fields(one))
                await pipeline.execute()
            end(COUNT)
        else:
            ways = {"one": one_by_one, "at once": at_once}
            await ways[ASKED["way"]](lambda one: client.xadd(STREAM, fields(one)))


def redis_py() -> None:
    """redis-py, blocking."""
    import redis

    client = redis.Redis.from_url(URL)
    client.ping()
    begin()
    if ASKED["way"] == "many":
        for lot in LOTS:
            pipeline = client.pipeline(transaction=False)
            for one in lot:
                pipeline.xadd(STREAM, fields(one))
            pipeline.execute()
    else:
        for one in ORDERS:
            client.xadd(STREAM, fields(one))
    end(COUNT)


def run(coroutine: Any) -> None:
    """On the loop of the setup."""
    if ASKED["uvloop"]:
        import uvloop

        uvloop.run(coroutine)
    else:
        asyncio.run(coroutine)


if ASKED["who"] == "redis-py":
    redis_py()
else:
    run({"streamworker": streamworker, "redis.asyncio": redis_asyncio}[ASKED["who"]]())
