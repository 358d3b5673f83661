"""Celery: acknowledges late, ignores results, fetches 64 ahead, in one thread of one process; run by `celery -A celery_peer worker`."""

from __future__ import annotations

import sys
from typing import Any

from celery import Celery
from orders import order
from probe import ASKED, hit

app = Celery("celery_peer", broker=ASKED["url"])
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=64, worker_hijack_root_logger=False)


@app.task(name="handle")
def handle(body: dict[str, Any]) -> None:
    """Do nothing, and count it."""
    hit()


if __name__ == "__main__" and sys.argv[1] == "publish":
    for number in range(ASKED["count"]):
        handle.delay(order(number))
