"""The application whose worker is killed at every step. Its handlers note what they see in a ledger, one file per process.

`LEDGER` names the folder of the ledger, `LEASE_MS` the lease. `ROLE` is `victim` where a handler is to last, so that its entry is in
flight long enough.
"""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from streamworker import Backoff, Context, RetryPolicy, StreamWorker

LEASE = timedelta(milliseconds=int(os.environ.get("LEASE_MS", "1000")))
SOON = Backoff.constant(timedelta(milliseconds=50))


class Order(BaseModel):
    number: int


app = StreamWorker(group="billing", lease=LEASE, retry=RetryPolicy(max_attempts=5, backoff=SOON))


def note(event: str, ctx: Context) -> None:
    """One line, written at once, so that a SIGKILL loses none."""
    line = {"event": event, "id": ctx.delivery.id, "attempt": ctx.delivery.attempt, "crashes": ctx.delivery.crashes}
    file = Path(os.environ["LEDGER"]) / f"{os.getpid()}.jsonl"
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)


async def last_in_the_victim(leases: float) -> None:
    if os.environ["ROLE"] == "victim":
        await asyncio.sleep(leases * LEASE.total_seconds())


@app.handler("success")
async def succeed(order: Order, ctx: Context) -> None:
    """Lasts until its lease has been renewed once."""
    note("started", ctx)
    await last_in_the_victim(0.45)
    note("done", ctx)


@app.handler("publishing")
async def publish(order: Order, ctx: Context) -> None:
    note("started", ctx)
    await ctx.publish("invoices", {"number": order.number})
    note("done", ctx)


@app.handler("retrying")
async def succeed_the_second_time(order: Order, ctx: Context) -> None:
    note("started", ctx)
    if ctx.delivery.attempt == 1:
        raise RuntimeError("not yet")
    note("done", ctx)


@app.handler("hopeless", retry=RetryPolicy(max_attempts=2, backoff=SOON))
async def fail_always(order: Order, ctx: Context) -> None:
    note("started", ctx)
    raise RuntimeError("never")


@app.handler("orphaned")
async def inherit(order: Order, ctx: Context) -> None:
    note("started", ctx)
    note("done", ctx)


@app.handler("interrupted")
async def be_interrupted(order: Order, ctx: Context) -> None:
    note("started", ctx)
    await last_in_the_victim(1000)
    note("done", ctx)


@app.handler("idle")
async def wait_for_work(order: Order, ctx: Context) -> None:
    note("started", ctx)
    note("done", ctx)
