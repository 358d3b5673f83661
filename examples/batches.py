"""Clicks are counted by the hundred: one transaction for each batch, and every click that has a fault of its own goes its own way.

Run it with `streamworker run batches.py`, and add a click: redis-cli XADD clicks '*' page /home visitor v1
"""

import sqlite3
from contextlib import closing
from datetime import timedelta

from pydantic import BaseModel

from streamworker import Backoff, BatchContext, Reject, RetryPolicy, StreamWorker

DATABASE = "clicks.db"

app = StreamWorker(group="click-counts", retry=RetryPolicy(backoff=Backoff.constant(timedelta(milliseconds=200))))


class Click(BaseModel):
    """What a web server adds to `clicks`."""

    page: str
    visitor: str


@app.batch_handler("clicks", max_size=500, max_wait=timedelta(milliseconds=200), concurrency=1, timeout=timedelta(seconds=30))
def count(clicks: list[Click], ctx: BatchContext) -> None:
    good = []
    for position, (click, delivery) in enumerate(zip(clicks, ctx.deliveries, strict=True)):
        if not click.page.startswith("/"):
            ctx.fail(position, Reject(f"{click.page!r} is no page"))
        elif click.page == "/not-yet" and delivery.attempt == 1:
            ctx.fail(position, "this page is not known yet")  # tried again after its backoff, and nothing else is
        else:
            good.append((delivery.id, click.page))
            if click.page == "/checkout":
                ctx.publish(position, "checkouts", click)  # commits with the acknowledgement of this click
    with closing(sqlite3.connect(DATABASE)) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS clicks (id TEXT PRIMARY KEY, page TEXT)")
        db.executemany("INSERT OR IGNORE INTO clicks VALUES (?, ?)", good)  # what is delivered twice is counted once
    ctx.log.info("clicks.counted", counted=len(good))
