"""Sends entries that say when they were sent, at an even pace, with redis-py."""

from __future__ import annotations

import time

import redis
from probe import ASKED, tell


def main() -> None:
    """Send them."""
    client = redis.Redis.from_url(ASKED["url"])
    client.ping()
    due = time.monotonic()
    for _ in range(ASKED["count"]):
        due += 1 / ASKED["pace"]
        time.sleep(max(0.0, due - time.monotonic()))
        client.xadd(ASKED["stream"], {"data": b'{"sent": %.9f}' % time.monotonic()})
    tell({"event": "sent", "cpu": time.process_time()})


main()
