"""What `ctx.publish` gathers is written with the acknowledgement: once if the handler succeeded, and not at all if it did not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from random import Random

import redis

from streamworker import Context, StreamWorker
from tests.torture.exactness import exactly_once
from tests.torture.faults.network import lost_replies
from tests.torture.feature import Feature
from tests.torture.history import History, Plan, Rules, Violation
from tests.torture.ledger import Work, noted
from tests.torture.load import PLAIN, STREAM, a_moment

TARGET = "out"


def handlers(app: StreamWorker) -> None:
    """Publish, then succeed."""

    @app.handler(STREAM, type="commit")
    async def commit(body: Work, ctx: Context) -> None:
        with noted(body, ctx):
            await asyncio.sleep(body.seconds)
            await ctx.publish(TARGET, {"number": body.number})


def a_commit(lease: float, random: Random) -> Plan:
    """Now and then one that takes a while."""
    return Plan("commit", a_moment(random))


def fields(number: int, plan: Plan) -> Mapping[str, str]:
    """By their type they find their handler."""
    return {"_type": "commit"}


def collect(admin: redis.Redis) -> tuple[int, ...]:
    """The numbers of what was published, as it lies there."""
    return tuple(int(found[b"number"]) for _, found in admin.xrange(TARGET))


def commits_are_exact(history: History, rules: Rules) -> Iterator[Violation]:
    """I6: what a handler publishes with its acknowledgement is there once if it succeeded, and not at all if it did not."""
    return exactly_once("I6", "commits", Counter(history.collected.get("commits", ())), {"commit"}, history)


FEATURE = Feature(
    "commits",
    handlers,
    {"commit": a_commit},
    fields,
    collect,
    (commits_are_exact,),
    (lost_replies("settle_commit", mix={**PLAIN, "commit": 60.0}),),
)
