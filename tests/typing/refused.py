"""What must not type-check: each line that ends in `# refused` is an error under mypy and under pyright, and no other line is."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from streamworker import Context, RateLimit, RetryPolicy, StreamWorker
from streamworker.testing import TestWorker


class OrderPlaced(BaseModel):
    order_id: str


class Invoice(BaseModel):
    order_id: str


app = StreamWorker(group="billing")
orders = app.stream("orders", OrderPlaced)


async def publishing(ctx: Context) -> None:
    await orders.publish(Invoice(order_id="7"))  # refused
    await orders.publish({"order_id": "7"})  # refused
    await orders.publish_many([Invoice(order_id="7")])  # refused
    await orders.publish(OrderPlaced(order_id="7"), max_length="many")  # refused
    await orders.publish(OrderPlaced(order_id="7"), colour="red")  # refused
    await app.publish("orders", OrderPlaced(order_id="7"), key=7)  # refused
    await ctx.publish(orders, Invoice(order_id="7"))  # refused
    await ctx.publish("orders", {}, header={})  # refused


@orders.handler()  # refused
async def of_another_body(invoice: Invoice, ctx: Context) -> None: ...


@orders.handler()  # refused
async def of_another_context(order: OrderPlaced, ctx: int) -> None: ...


@orders.handler()  # refused
async def of_nothing() -> None: ...


@orders.handler(concurrency="many")  # refused
async def of_many(order: OrderPlaced) -> None: ...


@orders.handler(timeout=5)  # refused
async def of_a_number(order: OrderPlaced) -> None: ...


@app.handler("orders", rate_limit=100)  # refused
async def not_a_limit(order: OrderPlaced) -> None: ...


@app.listener("orders", rate_limit=RateLimit(5))  # refused
async def not_for_listeners(order: OrderPlaced) -> None: ...


@app.handler("orders", start="somewhere")  # refused
async def of_somewhere(order: OrderPlaced) -> None: ...


@app.middleware  # refused
async def without_next(ctx: Context) -> None: ...


@orders.handler()
async def charge(order: OrderPlaced, ctx: Context) -> int:
    return 1


async def calling(ctx: Context) -> None:
    await charge(Invoice(order_id="7"), ctx)  # refused
    await charge(OrderPlaced(order_id="7"))  # refused
    text: str = await charge(OrderPlaced(order_id="7"), ctx)  # refused
    print(text, ctx.delivery.nothing)  # refused
    RetryPolicy(max_attempts=timedelta(seconds=1))  # refused


async def testing() -> None:
    async with TestWorker(app) as worker:
        await worker.publish(orders, Invoice(order_id="7"))  # refused
        await worker.advance(5)  # refused
        worker.crash_next(charge, when="sometimes")  # refused
        invoices: list[Invoice] = await worker.published(orders)  # refused
        print(invoices)
