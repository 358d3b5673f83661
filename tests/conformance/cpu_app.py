"""A program with a handler in a process of its own, found by its name as that needs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from streamworker import CallNext, Context, HandlerFailed, StreamWorker
from tests.harness import SOON

SEEN: list[str] = []
"""What the middleware has seen, in the worker's process."""


@asynccontextmanager
async def lifespan(app: StreamWorker) -> AsyncIterator[Mapping[str, Any] | None]:
    if os.environ.get("BREAKS") == "lifespan" and os.getpid() != int(os.environ["WORKER"]):
        raise RuntimeError("no model")
    yield {"pid": os.getpid()}


def make() -> StreamWorker:
    """The program, with its one handler wherever it is imported but where a test wants to see what comes of that."""
    app = StreamWorker(group="billing", retry=SOON, lease=timedelta(seconds=2), lifespan=lifespan)
    if os.environ.get("BREAKS") != "handler" or os.getpid() == int(os.environ["WORKER"]):

        @app.handler("orders", executor="process", concurrency=2)
        def price(body: dict[str, str], ctx: Context) -> dict[str, int]:
            if body["n"] == "-1":
                raise ValueError("no price")
            ctx.publish("priced", {"n": body["n"], "pid": str(ctx.state["pid"])})
            return {"cents": 100 * int(body["n"])}

    @app.middleware
    async def look(ctx: Context, call_next: CallNext) -> None:
        try:
            await call_next(ctx)
            SEEN.append(f"{ctx.body['n']}: {len(ctx.publishes)} published")
            ctx.publish("seen", {"n": ctx.body["n"]})
        except HandlerFailed as error:
            SEEN.append(f"{ctx.body['n']}: {error}")
            raise

    return app
