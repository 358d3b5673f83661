"""Movements of accounts, applied one after the other per account, retries included; other accounts go on meanwhile.

Run it with `streamworker run ordering.py`, and add some: redis-cli XADD movements '*' account a number 1 cents 990
"""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from pydantic import BaseModel

from streamworker import Backoff, Context, RetryPolicy, StreamWorker


class Movement(BaseModel):
    """What a bank adds to `movements`; `flaky` is how often its booking fails before it goes well."""

    account: str
    number: int
    cents: int
    flaky: int = 0


@asynccontextmanager
async def lifespan(_: StreamWorker) -> AsyncIterator[dict[str, object]]:
    """The books: a balance for each account."""
    yield {"balances": defaultdict(int)}


app = StreamWorker(
    group="ledger",
    lifespan=lifespan,
    retry=RetryPolicy(max_attempts=3, backoff=Backoff.constant(timedelta(milliseconds=100))),
)


@app.handler("movements", ordering_key="account", concurrency=50)
async def book(movement: Movement, ctx: Context) -> None:
    if ctx.delivery.attempt <= movement.flaky:
        raise ConnectionError("the books are closed for a moment")
    balances = ctx.state["balances"]
    balances[movement.account] += movement.cents
    await ctx.publish("statements", {**movement.model_dump(exclude={"flaky"}), "balance": balances[movement.account]})
