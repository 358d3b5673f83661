"""The application that `streamworker demo` runs in its workers. Its handler keeps a ledger, from which the summary is counted."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

from pydantic import BaseModel

from streamworker import Backoff, Context, RetryPolicy, StreamWorker
from streamworker.demo.ledger import LEDGER_VARIABLE, STREAM_VARIABLE, Ledger

GROUP = "demo"
WORK = timedelta(milliseconds=60)

app: StreamWorker = StreamWorker(
    "demo",
    group=GROUP,
    lease=timedelta(seconds=1),
    retry=RetryPolicy(max_attempts=3, backoff=Backoff.exponential(timedelta(milliseconds=200), cap=timedelta(seconds=1))),
)
ledger: Ledger = Ledger(os.environ.get(LEDGER_VARIABLE, "."))


class Order(BaseModel):
    """What the producer writes with plain XADD."""

    number: int
    mood: str = "fine"


@app.handler(os.environ.get(STREAM_VARIABLE, "orders"), concurrency=5)
async def ship(order: Order, ctx: Context) -> None:
    """Take a while; fail once for a shy order, always for a hopeless one."""
    ledger.note("started", ctx.delivery)
    await asyncio.sleep(WORK.total_seconds())
    if order.mood == "hopeless" or (order.mood == "shy" and ctx.delivery.attempt == 1):
        raise RuntimeError(f"the carrier does not want order {order.number}")
    ledger.note("handled", ctx.delivery)
