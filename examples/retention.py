"""Orders that go when every group has acknowledged them, and clicks that are kept for a week, a million at most.

Run it with `streamworker run retention.py`; whatever other group reads these streams keeps what it still needs.
"""

from datetime import timedelta

from pydantic import BaseModel

from streamworker import BatchContext, Context, Retention, StreamWorker

app = StreamWorker(group="shop", retention={"clicks": Retention(max_age=timedelta(days=7), max_length=1_000_000)})


class OrderPlaced(BaseModel):
    """An order; it is nobody's business once it is handled."""

    order_id: int


class Click(BaseModel):
    """A page that was looked at."""

    page: str


orders = app.stream("orders", OrderPlaced, retention=Retention(delete_when_acked=True))


@orders.handler()
async def charge(order: OrderPlaced, ctx: Context) -> None:
    ctx.log.info("order.charged", order_id=order.order_id)


@app.batch_handler("clicks", max_wait=timedelta(milliseconds=200))
async def count(clicks: list[Click], ctx: BatchContext) -> None:
    ctx.log.info("clicks.counted", clicks=len(clicks))
