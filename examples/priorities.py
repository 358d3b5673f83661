"""Orders of paying customers before those of the others, who still get their share; and no more than eight handlers at once in a process.

Run it with `streamworker run priorities.py --max-concurrency 8`, and add some:
redis-cli XADD orders-vip '*' order_id 1, redis-cli XADD orders '*' order_id 2
"""

import asyncio

from pydantic import BaseModel

from streamworker import Context, StreamWorker

app = StreamWorker(group="packing")


class Order(BaseModel):
    """What is to be packed."""

    order_id: int


@app.handler("orders-vip", "orders", priorities={"orders-vip": 3, "orders": 1}, concurrency=8)
async def pack(order: Order, ctx: Context) -> None:
    await asyncio.sleep(0.01)
    await ctx.publish("packed", {"order_id": order.order_id, "came_by": ctx.delivery.stream})


@app.handler("letters", concurrency=8)
async def write_to(letter: dict[str, str]) -> None:  # noqa: ARG001
    await asyncio.sleep(0.01)
