"""Sell what is in stock: Redis counters that change with the acknowledgement, and an order that counts once however often it is sent.

streamworker publish orders order_id=7 article=lamp pieces=2
redis-cli HGETALL {orders}:sold
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, PositiveInt

from streamworker import Context, Idempotency, StreamWorker

app = StreamWorker(group="stock")


class Order(BaseModel):
    """What a producer adds to `orders`, now and then twice."""

    order_id: int
    article: str
    pieces: PositiveInt


# `writes_to` names the keys of the transaction. They lie in the stream's slot, so this runs in a cluster too.
@app.handler(
    "orders",
    idempotency=Idempotency(ttl=timedelta(days=1), key=lambda order: str(order.order_id)),
    writes_to=["{orders}:sold", "{orders}:best", "{orders}:order:*"],
)
async def sell(order: Order, ctx: Context) -> None:
    """Everything here is written when this delivery is acknowledged, in one step, or not at all."""
    ctx.transaction.hincrby("{orders}:sold", order.article, order.pieces)
    ctx.transaction.zadd("{orders}:best", {str(order.order_id): order.pieces})
    ctx.transaction.set(f"{{orders}}:order:{order.order_id}", "sold", ttl=timedelta(days=30))
    await ctx.publish("{orders}:shipments", order)
    ctx.log.info("order.sold", order_id=order.order_id)
