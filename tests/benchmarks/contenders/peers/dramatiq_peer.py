"""Dramatiq: one process of eight threads; run by `dramatiq dramatiq_peer`."""

from __future__ import annotations

import sys
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from orders import order
from probe import ASKED, hit_in_thread

broker = RedisBroker(url=ASKED["url"])
dramatiq.set_broker(broker)


@dramatiq.actor
def handle(body: dict[str, Any]) -> None:
    """Do nothing, and count it."""
    hit_in_thread()


if __name__ == "__main__" and sys.argv[1] == "publish":
    for number in range(ASKED["count"]):
        handle.send(order(number))
