"""The application of the pods' and the supervisor's scenarios. Files in `LEDGER`'s folder tell it how to misbehave.

`wait`: its lifespan waits until that file is gone. `die`: its process ends while it starts. `broken`: it cannot be imported.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streamworker import Context, StreamWorker
from tests.scenarios.apps import LEDGER, Order, app, note

__all__ = ["app"]

if (LEDGER / "broken").exists():
    raise RuntimeError("somebody has deployed a program that cannot be imported")

HELD: list[bytes] = []


@asynccontextmanager
async def lifespan(_app: StreamWorker) -> AsyncIterator[dict[str, Any]]:
    while (LEDGER / "wait").exists():  # noqa: ASYNC110  # a file's end is announced by nothing
        await asyncio.sleep(0.01)
    if (LEDGER / "die").exists():
        raise ConnectionRefusedError("the payment service is not there")
    yield {}


app.lifespan = lifespan
app.on_group_lost = os.environ.get("ON_GROUP_LOST", "resume")


@app.handler("hogs")
async def hold_memory(order: Order, ctx: Context) -> None:
    HELD.append(b"x" * 30_000_000)
    note("done", ctx, order.number)


@app.handler("deadly", concurrency=1)
async def end_the_process(order: Order, ctx: Context) -> None:
    note("started", ctx, order.number)
    if ctx.delivery.crashes == 0:
        os.abort()
    note("done", ctx, order.number)
