"""Streams whose types are said once: mypy and pyright check what is published and what is handled.

Publish with `python typed_streams.py`, work with `streamworker run typed_streams.py`.
"""

import asyncio

from pydantic import BaseModel

from streamworker import Context, StreamWorker


class Posted(BaseModel):
    """A parcel that somebody has brought."""

    parcel_id: int
    city: str
    grams: int


class Delivered(BaseModel):
    """A parcel that somebody has been given."""

    parcel_id: int
    city: str


app = StreamWorker(group="post")
parcels = app.stream("parcels", Posted)
deliveries = app.stream("deliveries", Delivered)


@parcels.handler(concurrency=5)
async def deliver(parcel: Posted, ctx: Context) -> None:
    await ctx.publish(deliveries, Delivered(parcel_id=parcel.parcel_id, city=parcel.city))


@parcels.handler(group="scales")
def weigh(parcel: Posted, ctx: Context) -> None:
    ctx.log.info("parcel.weighed", grams=parcel.grams)


@deliveries.handler()
async def thank(delivered: Delivered, ctx: Context) -> None:
    ctx.log.info("parcel.delivered", city=delivered.city)


async def main() -> None:
    async with app:
        await parcels.publish(Posted(parcel_id=1, city="Rome", grams=900), key="Rome")


if __name__ == "__main__":
    asyncio.run(main())
