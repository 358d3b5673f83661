"""What a handler writes to plain keys is there once if it succeeded, and not at all if it did not: a counter and a list for each entry."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from random import Random

import redis

from streamworker import Context, Idempotency, StreamWorker
from tests.torture.exactness import exactly_once
from tests.torture.faults import processes
from tests.torture.faults.base import Fault, again_and_again, one_of
from tests.torture.faults.network import lost_replies
from tests.torture.feature import Feature
from tests.torture.history import History, Plan, Rules, Violation
from tests.torture.ledger import Work, noted
from tests.torture.load import PLAIN, STREAM, a_moment

COUNTERS, LIST = "effects:counters", "effects:list"
KINDS = ("effect", "effect-once")
MIX = {**PLAIN, "effect": 60.0, "effect-once": 60.0}


def handlers(app: StreamWorker) -> None:
    """Write, then succeed or fail. One of them is a plain function, and marks what it has done."""

    @app.handler(STREAM, type="effect")
    async def effect(body: Work, ctx: Context) -> None:
        with noted(body, ctx):
            await asyncio.sleep(body.seconds)
            write(body, ctx)

    @app.handler(STREAM, type="effect-once", idempotency=Idempotency(timedelta(hours=1), key=lambda body: str(body.number)))
    def effect_once(body: Work, ctx: Context) -> None:
        with noted(body, ctx):
            time.sleep(body.seconds)
            write(body, ctx)


def write(body: Work, ctx: Context) -> None:
    """A counter that must be 1, and a list that must hold the number once. What a failing attempt writes must not be there."""
    ctx.transaction.hincrby(COUNTERS, str(body.number))
    ctx.transaction.rpush(LIST, body.number)
    if ctx.delivery.attempt <= body.failures:
        raise ValueError("no")


def an_effect(lease: float, random: Random) -> Plan:
    """Now and then one that takes a while, or fails at first."""
    return Plan("effect", a_moment(random), failures=random.choice((0, 0, 0, 1)))


def an_effect_once(lease: float, random: Random) -> Plan:
    """The same for the other kind."""
    return Plan("effect-once", a_moment(random), failures=random.choice((0, 0, 0, 1)))


def fields(number: int, plan: Plan) -> Mapping[str, str]:
    """By their type they find their handler."""
    return {"_type": plan.kind}


def collect(admin: redis.Redis) -> tuple[tuple[int, int], ...]:
    """For each number that something was written for: how often, by the counter and by the list, the larger of both."""
    listed = Counter(int(number) for number in admin.lrange(LIST, 0, -1))
    counted = Counter({int(number): int(count) for number, count in admin.hgetall(COUNTERS).items()})
    return tuple(sorted((listed | counted).items()))


def effects_are_exact(history: History, rules: Rules) -> Iterator[Violation]:
    """I6: what a handler writes with its acknowledgement is there once if it succeeded, and not at all if it did not."""
    return exactly_once("I6", "effects", dict(history.collected.get("effects", ())), KINDS, history)


FEATURE = Feature(
    "effects",
    handlers,
    {"effect": an_effect, "effect-once": an_effect_once},
    fields,
    collect,
    (effects_are_exact,),
    (
        Fault("effects: kill -9", again_and_again(processes.kill, 0.9, least=4), mix=MIX, events=one_of("entries.reclaimed")),
        Fault("effects: taken over", processes.take_over_and_leave, mix={**MIX, "long": 15.0}, events=one_of("lease.lost")),
        replace(lost_replies("settle_commit", mix=MIX), name="effects: reply lost"),
        lost_replies("begin_once", mix=MIX),
    ),
)
