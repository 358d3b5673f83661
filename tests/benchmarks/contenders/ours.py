"""The application that `streamworker run` runs in most scenarios. What it does is in `ASKED`."""

from __future__ import annotations

from datetime import timedelta

from probe import ASKED, hit
from pydantic import BaseModel

from streamworker import StreamWorker


class Order(BaseModel):
    """The body."""

    order_id: int
    customer: str
    sku: str
    quantity: int
    price: float


app = StreamWorker("benchmark", group=ASKED["group"], codec=ASKED["codec"])


@app.handler(ASKED["stream"], concurrency=ASKED["concurrency"], timeout=timedelta(seconds=30))
async def handle(order: Order) -> None:
    """Do nothing, and count it."""
    hit()
