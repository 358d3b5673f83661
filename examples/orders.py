"""Orders are charged and invoiced. Try it: redis-cli XADD orders '*' order_id 7 customer_id c42 cents 990."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from pydantic import BaseModel

from streamworker import Backoff, CallNext, Context, DeadLetterPolicy, Reject, Retry, RetryPolicy, Snooze, StreamWorker


class OrderPlaced(BaseModel):
    """What a producer adds to `orders`."""

    order_id: str
    customer_id: str
    cents: int


class Bank:
    """Stands in for a payment provider: some customers are refused, or only charged when asked again."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def charge(self, order: OrderPlaced, idempotency_key: str) -> int:
        self.asked[idempotency_key] += 1
        return 200 if self.asked[idempotency_key] > 1 else {"busy": 429, "closed": 503, "broke": 422}.get(order.customer_id, 200)


@asynccontextmanager
async def lifespan(_: StreamWorker) -> AsyncIterator[dict[str, Bank]]:
    yield {"bank": Bank()}  # arrives as ctx.state["bank"]; what is behind the yield runs after the last delivery


app = StreamWorker(
    group="billing",
    lifespan=lifespan,
    retry=RetryPolicy(max_attempts=3, backoff=Backoff.exponential(cap=timedelta(minutes=1))),
    dead_letter=DeadLetterPolicy(keep_last=10_000),
)


@app.middleware
async def tenant(ctx: Context, call_next: CallNext) -> None:
    ctx.log.info("order.came_in", tenant=ctx.delivery.headers.get("tenant"))
    await call_next(ctx)


@app.handler("orders", concurrency=50, timeout=timedelta(seconds=20))
async def charge(order: OrderPlaced, ctx: Context) -> None:
    match await ctx.state["bank"].charge(order, idempotency_key=ctx.delivery.id):
        case 429:
            raise Retry("the bank is busy", after=timedelta(seconds=1))  # later, counted as an attempt
        case 503:
            raise Snooze("the bank is closed", after=timedelta(seconds=1))  # later, not counted
        case 422:
            raise Reject("card refused")  # straight to the dead letters
    await ctx.publish("invoices", {"order_id": order.order_id, "cents": order.cents})  # with the acknowledgement, or not at all
