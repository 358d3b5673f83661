"""A cache in every process that forgets prices as soon as they change: each process hears of each change.

Run it twice with `streamworker run listeners.py`, then `streamworker publish price-changes sku=tea cents=300`: both forget the old price.
"""

from pydantic import BaseModel

from streamworker import Context, ListenerContext, StreamWorker

app = StreamWorker(group="shop")
prices: dict[str, int] = {"tea": 250}


class Price(BaseModel):
    """What something costs from now on."""

    sku: str
    cents: int


class Order(BaseModel):
    """What a customer has bought."""

    sku: str


@app.listener("price-changes")
async def changed(price: Price, ctx: ListenerContext) -> None:
    prices[price.sku] = price.cents
    ctx.log.info("price.changed", sku=price.sku, cents=price.cents)


@app.handler("orders")
async def charge(order: Order, ctx: Context) -> None:
    ctx.log.info("order.charged", sku=order.sku, cents=prices[order.sku])
    await ctx.publish("invoices", {"sku": order.sku, "cents": prices[order.sku]})
