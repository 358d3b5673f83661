"""The application that `streamworker run` runs in the scenarios. What its handler does is in `ASKED`."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from probe import ASKED, hit, hit_in_thread, hits, late
from pydantic import BaseModel

from streamworker import Context, StreamWorker

SECONDS: float = ASKED.get("seconds", 0.0)


class Order(BaseModel):
    """The body."""

    order_id: int
    customer: str
    sku: str
    quantity: int
    price: float


class Timed(BaseModel):
    """The body that says when it was sent, if it is one that is timed."""

    sent: float = 0.0


async def nothing(order: Order) -> None:
    """Only count it."""
    hit()


async def sleep(order: Order) -> None:
    """Wait, as for a service elsewhere."""
    await asyncio.sleep(SECONDS)
    hit()


def block(order: Order) -> None:
    """Run in a thread, and wait there."""
    if SECONDS:
        time.sleep(SECONDS)
    hit_in_thread()


async def time_it(entry: Timed) -> None:
    """Say how long it was on its way; what is of an older time is only there."""
    if entry.sent:
        late(entry.sent)


async def commit(order: Order, ctx: Context) -> None:
    """Publish one entry with the acknowledgement."""
    ctx.publish("benchmark-out", order)
    hit()


async def batch(orders: list[Order]) -> None:
    """Take a hundred in one call."""
    hits(len(orders))


DOES = {"nothing": nothing, "sleep": sleep, "block": block, "time": time_it, "commit": commit}

app = StreamWorker(
    "benchmark", group=ASKED["group"], codec=ASKED.get("codec", "json"), lease=timedelta(seconds=ASKED.get("lease", 30))
)
limit = ASKED.get("timeout", 30)
streams = ASKED.get("streams", [ASKED["stream"]])
timeout = timedelta(seconds=limit) if limit else None
if ASKED.get("does") == "batch":
    app.batch_handler(*streams, concurrency=ASKED.get("concurrency", 1), timeout=timeout, max_size=100)(batch)
else:
    app.handler(*streams, concurrency=ASKED.get("concurrency", 100), timeout=timeout)(DOES[ASKED.get("does", "nothing")])
