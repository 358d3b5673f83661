"""The application that the scenarios run as real processes. Its handlers append what they see to a ledger, one file per process.

`LEDGER` names the folder of the ledger; `LEASE_MS` shortens the lease.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from streamworker import Backoff, Context, RetryPolicy, StreamWorker

LEDGER = Path(os.environ["LEDGER"])


class Order(BaseModel):
    number: int
    seconds: float = 0.0
    kill: bool = False


def note(event: str, ctx: Context, number: int) -> None:
    """One line, written at once, so that a SIGKILL loses none."""
    line = {
        "event": event,
        "number": number,
        "pid": os.getpid(),
        "attempt": ctx.delivery.attempt,
        "crashes": ctx.delivery.crashes,
        "consumer": ctx.delivery.consumer,
        "at": time.monotonic(),
    }
    descriptor = os.open(LEDGER / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)


app = StreamWorker(
    group="billing",
    lease=timedelta(milliseconds=int(os.environ.get("LEASE_MS", "1000"))),
    retry=RetryPolicy(max_attempts=3, backoff=Backoff.constant(timedelta(milliseconds=50))),
)


@app.handler("orders")
async def charge(order: Order, ctx: Context) -> None:
    note("started", ctx, order.number)
    await asyncio.sleep(order.seconds)
    note("done", ctx, order.number)


@app.handler("poisoned", timeout=timedelta(seconds=10))
async def die_of_some(order: Order, ctx: Context) -> None:
    note("started", ctx, order.number)
    if order.kill:
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(order.seconds)
    note("done", ctx, order.number)


@app.handler("blocking", concurrency=1)
async def block_the_loop(order: Order, ctx: Context) -> None:
    note("started", ctx, order.number)
    time.sleep(order.seconds)  # noqa: ASYNC251  # the mistake that a lease must survive
    note("done", ctx, order.number)


@app.handler("threads")
def in_a_thread(order: Order, ctx: Context) -> None:
    note("started", ctx, order.number)
    time.sleep(order.seconds)
    note("done", ctx, order.number)


@app.handler("stubborn")
async def swallow_cancellation(order: Order, ctx: Context) -> None:
    note("started", ctx, order.number)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            note("cancelled", ctx, order.number)


@app.handler("movements", ordering_key="_key", name="move")
async def move(order: Order, ctx: Context) -> None:
    note("started", ctx, order.number)
    await asyncio.sleep(order.seconds)
    if order.number % 7 == 0 and ctx.delivery.attempt == 1:
        raise ConnectionError("not yet")
    note("done", ctx, order.number)
