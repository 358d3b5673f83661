"""The loops that people write by hand with redis-py: read 100, validate, call, acknowledge the batch in one command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
from probe import ASKED, hit, hit_in_thread, late
from pydantic import BaseModel

STREAM, GROUP, COUNT = ASKED["stream"], ASKED["group"], ASKED["count"]
FIELDS = ASKED.get("codec") == "fields"
SECONDS: float = ASKED.get("seconds", 0.0)


class Order(BaseModel):
    """The body."""

    order_id: int
    customer: str
    sku: str
    quantity: int
    price: float


class Timed(BaseModel):
    """The body that says when it was sent."""

    sent: float


Entries = Iterable[tuple[Any, dict[Any, Any]]]


def main() -> None:
    """Consume until all is handled."""
    client = redis.Redis.from_url(ASKED["url"], decode_responses=FIELDS)
    handle = DOES[ASKED.get("does", "nothing")]
    left = COUNT
    while left > 0:
        for _, entries in client.xreadgroup(GROUP, "by-hand", {STREAM: ">"}, count=100, block=1000) or ():
            handle(client, entries)
            left -= len(entries)


def nothing(client: redis.Redis, entries: Entries) -> None:
    """Only count them."""
    for _, body in entries:
        take(Order.model_validate(body) if FIELDS else Order.model_validate_json(body[b"data"]))
    client.xack(STREAM, GROUP, *[entry_id for entry_id, _ in entries])


def take(order: Order) -> None:
    """The handler."""
    hit()


def time_them(client: redis.Redis, entries: Entries) -> None:
    """Say how long they were on their way."""
    for _, body in entries:
        late(Timed.model_validate_json(body[b"data"]).sent)
    client.xack(STREAM, GROUP, *[entry_id for entry_id, _ in entries])


def commit(client: redis.Redis, entries: Entries) -> None:
    """Publish one entry for each, then acknowledge, in one write and without a transaction."""
    pipeline = client.pipeline(transaction=False)
    for _, body in entries:
        order = Order.model_validate_json(body[b"data"])
        pipeline.xadd("benchmark-out", {"data": order.model_dump_json()})
        hit()
    pipeline.xack(STREAM, GROUP, *[entry_id for entry_id, _ in entries])
    pipeline.execute()


pool = ThreadPoolExecutor(ASKED.get("concurrency", 1))


def block(client: redis.Redis, entries: Entries) -> None:
    """Hand each to a thread, acknowledge when all of the batch have ended."""
    orders = [Order.model_validate_json(body[b"data"]) for _, body in entries]
    for future in [pool.submit(take_in_thread, order) for order in orders]:
        future.result()
    client.xack(STREAM, GROUP, *[entry_id for entry_id, _ in entries])


def take_in_thread(order: Order) -> None:
    """The handler that waits in its thread."""
    if SECONDS:
        time.sleep(SECONDS)
    hit_in_thread()


DOES: dict[str, Callable[[redis.Redis, Entries], None]] = {
    "nothing": nothing, "time": time_them, "commit": commit, "block": block,
}  # fmt: skip

main()
