"""A shop that publishes in all ways: once, later, many, and from code without an event loop; its handler reminds of what was not paid.

Run it with `python publishing.py` to place orders, and with `streamworker run publishing.py` to work them off.
"""

import asyncio
from datetime import timedelta

from pydantic import BaseModel

from streamworker import Context, PublishFailed, StreamWorker

app = StreamWorker(group="reminders")


class Order(BaseModel):
    """What a customer has bought."""

    order_id: int
    customer_id: str


@app.handler("reminders")
async def remind(order: Order, ctx: Context) -> None:
    ctx.log.info("order.not_paid", order_id=order.order_id)


async def place(order: Order) -> str:
    """Once, however often the customer clicks; the reminder comes later. Answers what takes the reminder back."""
    await app.publish("orders", order, key=order.customer_id, dedupe_id=f"order-{order.order_id}")
    return await app.publish("reminders", order, delay=timedelta(seconds=1), dedupe_id=f"reminder-{order.order_id}")


async def main() -> None:
    async with app:
        reminders = [await place(Order(order_id=number, customer_id="c42")) for number in (1, 1, 2, 3)]
        await app.cancel("reminders", reminders[-1])  # order 3 is paid
        try:
            await app.publish_many("imports", [Order(order_id=number, customer_id="c7") for number in range(100)])
        except PublishFailed as failed:
            print("to be looked at:", sorted(failed.errors))


def import_by_hand(orders: list[Order]) -> list[str]:
    """What a Django view or a script would do."""
    with app.sync_publisher() as publisher:
        return publisher.publish_many("imports", orders, max_length=10_000)


if __name__ == "__main__":
    asyncio.run(main())
    import_by_hand([Order(order_id=100, customer_id="c7")])
