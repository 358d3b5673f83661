"""What must type-check, under mypy --strict and pyright, without a single `Any`: plain programs as users write them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_type

from pydantic import BaseModel
from typing_extensions import TypedDict

from streamworker import (
    Backoff,
    CallNext,
    Context,
    DeadLetterPolicy,
    KillSwitch,
    RateLimit,
    Reject,
    Retention,
    Retry,
    RetryPolicy,
    Snooze,
    Stream,
    StreamWorker,
)
from streamworker.testing import DeadLetterRecord, DeliveryRecord, TestWorker


class OrderPlaced(BaseModel):
    order_id: str
    cents: int


class RushOrderPlaced(OrderPlaced):
    hours: int


@dataclass
class Invoice:
    order_id: str


class Click(TypedDict):
    page: str


@asynccontextmanager
async def lifespan(app: StreamWorker) -> AsyncIterator[Mapping[str, object]]:
    yield {"bank": "open"}


app = StreamWorker(
    "shop",
    group="billing",
    lifespan=lifespan,
    retry=RetryPolicy(max_attempts=5, backoff=Backoff.exponential(first=timedelta(seconds=1)), give_up_on=(ValueError, KeyError)),
    dead_letter=DeadLetterPolicy(keep_last=10_000),
)

orders = app.stream("orders", OrderPlaced)
invoices = app.stream("invoices", Invoice, retention=Retention(max_age=timedelta(days=7), max_length=1_000_000))
clicks = app.stream("clicks", Click)
plain = app.stream("plain", dict[str, str])
events: Stream[OrderPlaced | Invoice] = app.stream("events", OrderPlaced | Invoice)

assert_type(orders, Stream[OrderPlaced])
assert_type(plain, Stream[dict[str, str]])


# ---- handlers keep their type --------------------------------------------------------------------------------------------------


@orders.handler(concurrency=5, timeout=timedelta(seconds=20), type="OrderPlaced")
async def charge(order: OrderPlaced, ctx: Context) -> None:
    if order.cents < 0:
        raise Reject("nothing to charge")
    if order.cents > 1_000_000:
        raise Retry(after=timedelta(minutes=1))
    if ctx.delivery.attempt > 3 and ctx.delivery.key is None:
        raise Snooze(after=timedelta(minutes=1))
    await ctx.publish(invoices, Invoice(order.order_id), key=order.order_id)
    await ctx.publish("anything", {"order_id": order.order_id}, headers={"tenant": "eu"})


@orders.handler(group="stock")
def reserve(order: OrderPlaced) -> int:
    return order.cents


@app.handler("orders", group="by-name", retry=RetryPolicy(max_attempts=1))
async def by_name(order: OrderPlaced, ctx: Context) -> str:
    return order.order_id


@events.handler()
async def either(event: OrderPlaced | Invoice, ctx: Context) -> None:
    assert_type(event, OrderPlaced | Invoice)


@app.middleware
async def timed(ctx: Context, call_next: CallNext) -> None:
    await call_next(ctx)


async def called_as_they_are(order: OrderPlaced, ctx: Context) -> None:
    await charge(order, ctx)
    assert_type(reserve(order), int)
    assert_type(await by_name(order=order, ctx=ctx), str)


assert_type(reserve, Callable[[OrderPlaced], int])


# ---- publishing ----------------------------------------------------------------------------------------------------------------


async def produce() -> None:
    assert_type(await orders.publish(OrderPlaced(order_id="7", cents=990), key="c42", max_length=1_000), str)
    await orders.publish(RushOrderPlaced(order_id="8", cents=990, hours=1))
    assert_type(await invoices.publish_many(Invoice(str(number)) for number in range(3)), list[str])
    await clicks.publish({"page": "/"})
    await app.publish("orders", OrderPlaced(order_id="9", cents=1), type="OrderPlaced")


def produce_in_a_handler(ctx: Context) -> Awaitable[None]:
    return ctx.publish(orders, OrderPlaced(order_id="7", cents=990))


# ---- tests ---------------------------------------------------------------------------------------------------------------------


async def a_test(make: Callable[..., TestWorker]) -> None:
    async with TestWorker(app, state={"bank": "of the test"}) as worker:
        entry_id = await worker.publish(orders, OrderPlaced(order_id="7", cents=990))
        await worker.publish("orders", {"order_id": "7"})
        await worker.add("orders", {"order_id": "7"})
        worker.fail_next(charge, ValueError, times=2)
        worker.crash_next("charge", when="before")
        await worker.advance(timedelta(minutes=5))
        assert_type(await worker.published(invoices), list[Invoice])
        assert_type(await worker.published("invoices", Invoice), list[Invoice])
        assert_type(await worker.published("invoices"), list[dict[str, str]])
        assert_type(worker.deliveries(entry_id), list[DeliveryRecord])
        assert_type(await worker.dead_letters(), list[DeadLetterRecord])


# ---- gates ---------------------------------------------------------------------------------------------------------------------


@orders.handler(
    name="slowly", rate_limit=RateLimit(100, per=timedelta(minutes=1), burst=5), kill_switch=KillSwitch(after=10, share=0.3)
)
async def slowly(order: OrderPlaced) -> None: ...


@app.batch_handler("bulk", rate_limit=RateLimit(1_000), kill_switch=KillSwitch())
async def in_bulk(bodies: list[dict[str, str]]) -> None: ...


async def look_after() -> None:
    assert_type(await app.pause("slowly", reason="maintenance"), bool)
    assert_type(await app.resume(slowly), bool)
    for name, pause in (await app.paused()).items():
        assert_type(name, str)
        assert_type(pause.reason, str)
