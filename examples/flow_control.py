"""A payment provider that takes twenty calls a second from all of us together, and is down now and then.

Run it with `streamworker run flow_control.py`, in as many processes as you like. While the provider is down, a handful of orders fail and
the rest waits, with all of its attempts; `streamworker pause flow_control.py --handler charge` stops charging in all processes until
`streamworker resume flow_control.py`.
"""

import os
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel

from streamworker import Backoff, Context, KillSwitch, RateLimit, RetryPolicy, StreamWorker

DOWN = Path(os.environ.get("PROVIDER_DOWN", "provider-is-down"))
"""While there is such a file, the provider does not answer."""

app = StreamWorker(group="billing", retry=RetryPolicy(max_attempts=4, backoff=Backoff.constant(timedelta(seconds=1))))


class Order(BaseModel):
    """What is to be charged."""

    order_id: int
    cents: int


@app.handler(
    "orders",
    rate_limit=RateLimit(20, per=timedelta(seconds=1), burst=5),
    kill_switch=KillSwitch(after=5, share=0.6, rest=timedelta(seconds=1)),
)
def charge(order: Order, ctx: Context) -> None:
    if DOWN.exists():
        raise ConnectionError("the provider does not answer")
    ctx.publish("invoices", {"order_id": order.order_id, "cents": order.cents})
