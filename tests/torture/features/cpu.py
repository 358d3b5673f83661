"""Handlers in processes of their own: a death there is one entry's crash, counted, and nobody else's; effects commit once all the same."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random

import redis

from streamworker import CallNext, Context, HandlerDied, StreamWorker
from tests.torture import children
from tests.torture.exactness import exactly_once
from tests.torture.faults import processes
from tests.torture.faults.base import Fault, again_and_again, one_of
from tests.torture.faults.handlers import in_the_load
from tests.torture.faults.network import drop_replies
from tests.torture.feature import Feature
from tests.torture.history import History, Plan, Rules, Violation
from tests.torture.ledger import Work, note, noted
from tests.torture.load import STREAM, a_moment
from tests.torture.scene import Scene

COUNTERS, TARGET = "cpu:counters", "cpu-out"
SWITCH = "TORTURE_PROCESSES"
WITH_PROCESSES = ({SWITCH: "1"},)
"""Only where they are wanted: each worker starts two, which takes the CPU from everything else."""
KINDS = ("cpu", "cpu-long", "cpu-dies", "cpu-dies-once")
GOOD = {"ok": 60.0, "cpu": 60.0}
LONG = {"ok": 30.0, "cpu": 40.0, "cpu-long": 30.0}
"""So that most processes are at work whenever one is killed."""
MIX = {**GOOD, "cpu-dies": 0.7, "cpu-dies-once": 2.0}


def handlers(app: StreamWorker) -> None:
    """Write and publish, then succeed, fail or die. The worker notes the deaths, for nobody else can."""
    if SWITCH not in os.environ:
        return

    @app.handler(STREAM, type="cpu", executor="process", concurrency=2)
    def cpu(body: Work, ctx: Context) -> None:
        with noted(body, ctx, worker=os.getppid()):
            time.sleep(body.seconds)
            ctx.transaction.hincrby(COUNTERS, str(body.number))
            ctx.publish(TARGET, {"number": body.number})
            if body.kind == "cpu-dies" or (body.kind == "cpu-dies-once" and ctx.delivery.crashes == 0):
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)  # the signal ends another thread first
            if ctx.delivery.attempt <= body.failures:
                raise ValueError("no")

    @app.middleware
    async def note_deaths(ctx: Context, call_next: CallNext) -> None:
        try:
            await call_next(ctx)
        except HandlerDied:
            note("crashed", ctx.body, ctx)
            raise


def a_good_one(lease: float, random: Random) -> Plan:
    """Now and then one that fails at first."""
    return Plan("cpu", a_moment(random), failures=random.choice((0, 0, 0, 1)))


def a_long_one(lease: float, random: Random) -> Plan:
    """It takes a good part of a lease."""
    return Plan("cpu-long", lease * random.uniform(0.3, 0.6))


def a_dying_one(lease: float, random: Random) -> Plan:
    """It kills its process, whenever it runs."""
    return Plan("cpu-dies", a_moment(random), ends="crashed")


def one_that_dies_once(lease: float, random: Random) -> Plan:
    """It kills the first process that it meets."""
    return Plan("cpu-dies-once", a_moment(random))


def fields(number: int, plan: Plan) -> Mapping[str, str]:
    """By their type they find their handler."""
    return {"_type": "cpu"}


def collect(admin: redis.Redis) -> tuple[tuple[int, int], ...]:
    """For each number that something was written for: how often, by the counter and by the stream, the larger of both."""
    published = Counter(int(found[b"number"]) for _, found in admin.xrange(TARGET))
    counted = Counter({int(number): int(count) for number, count in admin.hgetall(COUNTERS).items()})
    return tuple(sorted((published | counted).items()))


def effects_are_exact(history: History, rules: Rules) -> Iterator[Violation]:
    """I22: what a handler in a process of its own asks for is there once if it succeeded, and not at all if it did not."""
    return exactly_once("I22", "effects from processes", dict(history.collected.get("cpu", ())), KINDS, history)


def crashes_are_counted(history: History, rules: Rules) -> Iterator[Violation]:
    """I23: an entry is given as crashed as often as it has: no other one's counts, and where its worker was left alone, none is missing.

    A worker that dies counts against all that it holds, also against what has not begun.
    """
    plans = history.plans()
    deaths = [one.begin for one in history.disturbances if one.kind == "death"]
    letters = {letter.number: letter for letter in history.dead_letters if letter.reason == "crashed"}
    for number, runs in history.runs_of().items():
        if plans.get(number, Plan()).kind not in KINDS:
            continue
        calm = not any(one.concerns(run) for run in runs for one in history.disturbances)
        own = 0
        for run in runs:
            most = own + sum(death < run.started for death in deaths)
            if run.crashes > most or (calm and run.crashes < own):
                yield Violation(
                    "I23", f"entry {number} had crashed {own} to {most} times, and was given as crashed {run.crashes} times"
                )
            own += run.end == "crashed"
        if calm and not deaths and number in letters and letters[number].crashes != own:
            yield Violation("I23", f"entry {number} had crashed {own} times, and its dead letter says {letters[number].crashes}")


def kill_a_process(scene: Scene) -> None:
    """SIGKILL to a process of a handler, whatever it does."""
    worker = scene.fleet.any_ready(scene.random)
    started = [line["child_pid"] for line in children.logged(worker.log, "handler.process_started")]
    living = [pid for pid in started if b"streamworker.handling" in _command_of(pid)]
    if living:
        with scene.hit("a process of a handler is killed", workers=[worker], heals=False), suppress(ProcessLookupError):
            os.kill(scene.random.choice(living), signal.SIGKILL)


def _command_of(pid: int) -> bytes:
    """Its number may be somebody else's by now."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


FEATURE = Feature(
    "cpu",
    handlers,
    {"cpu": a_good_one, "cpu-long": a_long_one, "cpu-dies": a_dying_one, "cpu-dies-once": one_that_dies_once},
    fields,
    collect,
    (effects_are_exact, crashes_are_counted),
    (
        Fault(
            "processes that their entries kill",
            in_the_load("cpu-dies", "cpu-dies-once"),
            mix=MIX,
            workers=2,
            environments=WITH_PROCESSES,
            events=one_of("handler.process_died"),
        ),
        Fault(
            "processes that are killed from outside",
            again_and_again(kill_a_process, 0.4, least=6),
            mix=LONG,
            workers=2,
            environments=WITH_PROCESSES,
            events=one_of("handler.process_died"),
        ),
        Fault(
            "kill -9 of workers with processes",
            again_and_again(processes.kill, 1.5, least=3),
            mix=GOOD,
            workers=2,
            seconds=5.0,
            environments=WITH_PROCESSES,
            events=one_of("entries.reclaimed"),
            rules={"restart": 5.0},  # a worker begins when its first process has
        ),
        Fault(
            "reply lost: settle_commit of processes",
            drop_replies("settle_commit"),
            mix=GOOD,
            workers=2,
            proxied="all",
            environments=WITH_PROCESSES,
        ),
    ),
)
