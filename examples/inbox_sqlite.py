"""Book payments into a SQL database once each, whatever dies in between: an inbox table, written in the effect's own transaction.

A worker may die when the database has committed and Redis does not know it yet. The entry is handled again then, finds its own line in
the inbox, and changes nothing. In PostgreSQL it is `INSERT … ON CONFLICT DO NOTHING`.

    PAYMENTS_DB=payments.db streamworker run examples/inbox_sqlite.py
    streamworker publish payments account=a1 cents=990
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta

from pydantic import BaseModel

from streamworker import Context, StreamWorker

PATH = os.environ.get("PAYMENTS_DB", "payments.db")
TABLES = """
    CREATE TABLE IF NOT EXISTS inbox (stream TEXT, id TEXT, PRIMARY KEY (stream, id));
    CREATE TABLE IF NOT EXISTS accounts (account TEXT PRIMARY KEY, cents INTEGER NOT NULL);
"""


@asynccontextmanager
async def lifespan(_: StreamWorker) -> AsyncIterator[None]:
    """Make the tables, once for each worker."""
    with closing(sqlite3.connect(PATH)) as db:
        db.executescript(TABLES)
    yield


app = StreamWorker(group="ledger", lease=timedelta(seconds=2), lifespan=lifespan)


class Payment(BaseModel):
    """What a producer adds to `payments`."""

    account: str
    cents: int


@app.handler("payments", concurrency=2)
def book(payment: Payment, ctx: Context) -> None:
    """One transaction for the line in the inbox and for what is done: both are there afterwards, or neither."""
    with closing(sqlite3.connect(PATH, timeout=10)) as db, db:
        inbox = "INSERT OR IGNORE INTO inbox VALUES (?, ?)"
        if db.execute(inbox, (ctx.delivery.stream, ctx.delivery.id)).rowcount:
            balance = "INSERT INTO accounts VALUES (?, ?) ON CONFLICT (account) DO UPDATE SET cents = cents + excluded.cents"
            db.execute(balance, (payment.account, payment.cents))
    ctx.transaction.incrby("{payments}:booked")  # with the acknowledgement, so once as well
