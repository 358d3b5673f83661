"""`app.stream`: what it checks at run time, where no type checker has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from streamworker import Context, EncodeError, SetupError, Stream, StreamWorker
from streamworker.stream import HandlerOptions
from streamworker.testing import TestWorker
from tests.docs.test_reference import parameters_of


class Order(BaseModel):
    order_id: int


class RushOrder(Order):
    hours: int = 1


@dataclass
class Invoice:
    order_id: int


class Click(TypedDict):
    page: str


@pytest.fixture
def app() -> StreamWorker:
    return StreamWorker(group="billing")


async def test_what_one_publishes_the_other_handles(app: StreamWorker) -> None:
    """By the same object, in a handler and outside."""
    orders, invoices = app.stream("orders", Order), app.stream("invoices", Invoice)

    @orders.handler(concurrency=2)
    async def charge(order: Order, ctx: Context) -> None:
        await ctx.publish(invoices, Invoice(order.order_id), key="k")

    async with TestWorker(app) as worker:
        await orders.publish(Order(order_id=1))
        await orders.publish_many([Order(order_id=2), RushOrder(order_id=3)])
        await worker.publish(orders, Order(order_id=4))
        await worker.run_until_idle()

        assert [Invoice(1), Invoice(2), Invoice(3), Invoice(4)] == sorted(
            await worker.published(invoices), key=lambda invoice: invoice.order_id
        )
        assert [Order(order_id=number) for number in (1, 2, 3, 4)] == await worker.published(orders)
    assert ("charge", 2, ("orders",)) == (app.handlers[0].name, app.handlers[0].concurrency, app.handlers[0].streams)


async def test_a_body_of_another_class_is_not_sent(app: StreamWorker) -> None:
    """Where no type checker has seen it."""
    orders: Any = app.stream("orders", Order)
    wrong: list[Any] = [Invoice(1), {"order_id": 1}]
    for body in wrong:
        with pytest.raises(EncodeError, match="stream 'orders' holds Order, not"):
            await orders.publish(body)
        with pytest.raises(EncodeError, match="stream 'orders' holds Order, not"):
            await orders.publish_many([Order(order_id=1), body])


@pytest.mark.parametrize(
    ("body_type", "body"),
    [
        (Click, {"page": "/"}),
        (dict[str, str], {"a": "b"}),
        (Click | Invoice, Invoice(1)),
        (float, 1),
        (RushOrder, RushOrder(order_id=1)),
    ],
)
async def test_whatever_can_be_a_body_can_be_a_streams(app: StreamWorker, body_type: Any, body: Any) -> None:
    """Not only models."""
    stream = app.stream("s", body_type)

    async def take(it: Any) -> None: ...

    take.__annotations__["it"] = body_type
    stream.handler()(take)

    async with TestWorker(app) as worker:
        await worker.publish(stream, body)
        await worker.run_until_idle()
        assert [body] == await worker.published(stream)
        assert ["ack"] == [delivery.verdict for delivery in worker.deliveries()]


def test_a_handler_of_another_type_is_refused(app: StreamWorker) -> None:
    """With what to write instead."""
    orders: Any = app.stream("orders", Order)

    with pytest.raises(SetupError, match=r"handler 'charge' takes Invoice, but stream 'orders' holds Order: annotate"):

        @orders.handler()
        async def charge(invoice: Invoice) -> None: ...

    assert [] == app.handlers


@pytest.mark.parametrize("name", ["", "a}b", 7])
def test_a_name_that_is_none_is_refused(app: StreamWorker, name: Any) -> None:
    """At once, not when something is published."""
    with pytest.raises(SetupError):
        app.stream(name, Order)


def test_a_type_that_is_no_body_is_refused(app: StreamWorker) -> None:
    """As for a handler."""
    with pytest.raises(SetupError):
        app.stream("orders", Context)


def test_a_stream_can_be_told_what_a_handler_can() -> None:
    """The options of both are the same, so that neither falls behind."""
    assert set(parameters_of(StreamWorker.handler)) - {"self", "streams"} == set(HandlerOptions.__annotations__)


def test_a_stream_says_what_it_is(app: StreamWorker) -> None:
    """For logs and assertions."""
    stream: Stream[Order] = app.stream("orders", Order)
    assert "Stream('orders', Order)" == repr(stream)
