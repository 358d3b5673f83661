"""What a gate holds back is lost nowhere and spends no attempt; a rate is never exceeded, and nothing starts that is paused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from random import Random

import redis

from streamworker import Backoff, Context, KillSwitch, RateLimit, RetryPolicy, StreamWorker
from streamworker.streams.keys import keys_of
from tests.torture.faults.base import Fault, Strike, again_and_again, one_of
from tests.torture.faults.network import cut, lost_replies
from tests.torture.faults.processes import kill
from tests.torture.feature import Feature
from tests.torture.history import OLD_ATTEMPTS, History, Plan, Rules, Violation
from tests.torture.ledger import Work, noted
from tests.torture.load import GROUP, STREAM, a_moment
from tests.torture.scene import Scene

LIMIT = RateLimit(40, burst=10)
EVERY_SECONDS, DOWN_SECONDS = 4.0, 1.2
"""The downstream of `switched` is down for the first part of so many seconds, by the clock that all processes share."""

SEEN_WITHIN = 2.5
"""A pause is seen by every process within about two seconds."""

PAUSES = "torture:pauses"
"""A list of when the handler was paused for sure: from then, until then."""

HELD_UP_SECONDS = 40.0
"""What is put aside because of a gate comes back half a minute later at most."""

SWITCHED_ATTEMPTS = 6
LIMITED = {"limited": 60.0, "ok": 40.0}
PAUSED = {"pausable": 50.0, "ok": 50.0}
SWITCHED = {"switched": 60.0, "ok": 40.0}


def handlers(app: StreamWorker) -> None:
    """One with a rate, one that is paused, and one whose downstream goes away."""

    @app.handler(STREAM, type="limited", rate_limit=LIMIT)
    async def limited(body: Work, ctx: Context) -> None:
        with noted(body, ctx):
            await asyncio.sleep(body.seconds)
            if ctx.delivery.attempt <= body.failures:
                raise ValueError("no")

    @app.handler(STREAM, type="pausable")
    async def pausable(body: Work, ctx: Context) -> None:
        with noted(body, ctx):
            await asyncio.sleep(body.seconds)

    # In one absence all of these are spent where nothing stops the handler; of the few tries of a kill switch none has so many.
    retry = RetryPolicy(max_attempts=SWITCHED_ATTEMPTS, backoff=Backoff.constant(timedelta(milliseconds=150)))
    switch = KillSwitch(after=4, share=0.5, rest=timedelta(milliseconds=700))

    @app.handler(STREAM, type="switched", retry=retry, kill_switch=switch)
    async def switched(body: Work, ctx: Context) -> None:
        with noted(body, ctx):
            if time.monotonic() % EVERY_SECONDS < DOWN_SECONDS:
                raise ConnectionError("down")


def fields(number: int, plan: Plan) -> Mapping[str, str]:
    """By their type they find their handler."""
    return {"_type": plan.kind}


def collect(admin: redis.Redis) -> Sequence[tuple[float, float]]:
    """When the handler was paused."""
    return [tuple(map(float, one.split())) for one in admin.lrange(PAUSES, 0, -1)]


def the_rate_is_kept(history: History, rules: Rules) -> Iterator[Violation]:
    """I22: over any time no more start than the rate lets through, and the burst, in all processes together."""
    kinds = {entry.number for entry in history.published if entry.plan.kind == "limited"}
    if history.forgotten or any(one.freezes for one in history.disturbances):
        return  # what the server forgot is begun anew; and who stands still between its permit and its start is late
    rate, burst = LIMIT.count / LIMIT.per.total_seconds(), LIMIT.burst or 0
    starts = sorted(run.started for run in history.runs if run.number in kinds)
    # Of all windows that end with a start, the worst is one that begins with the start whose surplus is the least so far.
    least, first = float("inf"), 0.0
    for position, start in enumerate(starts):
        if position - rate * start < least:
            least, first = position - rate * start, start
        if position + 1 - rate * start - least > burst + rate * rules.slack + 1e-6:
            yield Violation("I22", f"from {first:.3f} to {start:.3f} more started than {LIMIT} lets through")
            return


def nothing_starts_while_paused(history: History, rules: Rules) -> Iterator[Violation]:
    """I23: once every process has seen the pause, nothing of the handler starts before it is resumed."""
    kinds = {entry.number for entry in history.published if entry.plan.kind == "pausable"}
    for run in history.runs:
        for begin, end in history.collected.get("flow", ()):
            if run.number in kinds and begin + rules.slack < run.started < end:
                yield Violation("I23", f"entry {run.number} started at {run.started:.3f}, paused from {begin:.3f} to {end:.3f}")


def pause_and_resume(strike: Strike) -> Strike:
    """Pause for a while, strike while nothing may start, and resume; again and again."""

    def once(scene: Scene) -> None:
        key = keys_of(STREAM, GROUP).paused
        scene.admin.hset(key, "pausable", f"{time.time_ns() // 1_000_000} torture")
        scene.pause(SEEN_WITHIN)
        begin = time.monotonic()
        strike(scene)
        scene.pause(1.0)
        scene.admin.rpush(PAUSES, f"{begin} {time.monotonic()}")
        scene.admin.hdel(key, "pausable")
        scene.fired += 1

    return again_and_again(once, 0.3, least=2)


def a_pause(scene: Scene) -> None:
    """Nothing more than that."""


def _fault(name: str, inject: Strike, mix: Mapping[str, float], **facts) -> Fault:  # type: ignore[no-untyped-def]
    rules = {"held_up": HELD_UP_SECONDS, **facts.pop("rules", {})}
    return Fault(f"flow: {name}", inject, **{"mix": mix, "seconds": 8.0, "rules": rules, **facts})


FEATURE = Feature(
    "flow",
    handlers,
    {
        "limited": lambda lease, random: Plan("limited", a_moment(random), failures=_sometimes(random)),
        "pausable": lambda lease, random: Plan("pausable", a_moment(random)),
        "switched": lambda lease, random: Plan("switched"),
    },
    fields,
    collect,
    (the_rate_is_kept, nothing_starts_while_paused),
    (
        _fault(
            "kill -9 under a rate limit",
            again_and_again(kill, 0.9, least=3),
            LIMITED,
            seconds=3.0,
            events=one_of("entries.reclaimed"),
        ),
        _fault(
            "cuts under a rate limit", again_and_again(cut, 0.3, least=6), LIMITED, proxied="all", events=one_of("reading.failing")
        ),
        lost_replies("permits", mix=LIMITED, seconds=6.0, workers=3),
        _fault("pauses", pause_and_resume(a_pause), PAUSED, events=one_of("handler.paused")),
        _fault("pauses and kill -9", pause_and_resume(kill), PAUSED, events=one_of("handler.paused")),
        _fault(
            "a downstream that goes away",
            again_and_again(kill, 2.5),
            SWITCHED,
            events=one_of("kill_switch.tripped"),
            rules={"max_attempts": frozenset({OLD_ATTEMPTS, SWITCHED_ATTEMPTS})},
        ),
    ),
)


def _sometimes(random: Random) -> int:
    """How many attempts fail, of an entry with a rate: one in ten."""
    return int(random.random() < 0.1)
