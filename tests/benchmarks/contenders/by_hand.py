"""The loop that people write by hand with redis-py: read 100, validate, call, acknowledge the batch in one command."""

from __future__ import annotations

import redis
from probe import ASKED, hit
from pydantic import BaseModel


class Order(BaseModel):
    """The body."""

    order_id: int
    customer: str
    sku: str
    quantity: int
    price: float


def handle(order: Order) -> None:
    """Do nothing, and count it."""
    hit()


def main() -> None:
    """Consume until all is handled."""
    stream, group, left = ASKED["stream"], ASKED["group"], ASKED["count"]
    fields = ASKED["codec"] == "fields"
    client = redis.Redis.from_url(ASKED["url"], decode_responses=fields)
    while left > 0:
        for _, entries in client.xreadgroup(group, "by-hand", {stream: ">"}, count=100, block=1000) or ():
            for _, body in entries:
                handle(Order.model_validate(body) if fields else Order.model_validate_json(body[b"data"]))
            client.xack(stream, group, *[entry_id for entry_id, _ in entries])
            left -= len(entries)


main()
