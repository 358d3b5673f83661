"""A schedule's ticks are published once each by whoever comes first, and one is left out only when nobody could come."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from math import inf

import redis

from streamworker import StreamWorker
from tests.torture.faults.base import Fault, again_and_again
from tests.torture.faults.network import lost_replies
from tests.torture.faults.processes import kill
from tests.torture.feature import Feature
from tests.torture.history import History, Life, Rules, Violation

TARGET = "ticks"
EVERY = timedelta(milliseconds=400)
WARM_SECONDS = 0.5
"""So long after its first handler has run, a process surely ticks."""

PAUSE_SECONDS = 6.0
"""How long after a trouble it tries again, at the latest."""


def handlers(app: StreamWorker) -> None:
    """One that each process has."""
    app.every(EVERY, TARGET, name="beat")({"kind": "beat"})


def collect(admin: redis.Redis) -> tuple[float, ...]:
    """The moments of the ticks by this machine's monotonic clock, as they lie there."""
    offset = time.time() - time.monotonic()
    return tuple(datetime.fromisoformat(found[b"_tick"].decode()).timestamp() - offset for _, found in admin.xrange(TARGET))


def ticks_come_once(history: History, rules: Rules) -> Iterator[Violation]:
    """I15: a tick is published once; none is left out while a process was there that nothing kept from it."""
    found = [round(at, 3) for at in history.collected.get("schedules", ())]
    repeated = [at for at, count in Counter(found).items() if count > 1]
    if repeated:
        yield Violation("I15", f"{len(repeated)} ticks were published more than once, the first at {repeated[0]:.3f}")
    if history.forgotten:
        return
    every = EVERY.total_seconds()
    first: dict[int, float] = {}
    for run in history.runs:
        first[run.pid] = min(run.started, first.get(run.pid, run.started))
    for before, after in pairwise(found):
        for number in range(1, round((after - before) / every)):
            at = before + number * every
            if rules.slack < every / 4 and any(_could_tick(life, at, history, first) for life in history.lives):
                yield Violation("I15", f"the tick at {at:.3f} was left out though a process was there")
                return


def _could_tick(life: Life, at: float, history: History, first: dict[int, float]) -> bool:
    """Whether nothing is on record that may have kept this process from a tick."""
    end = at + EVERY.total_seconds()
    if first.get(life.pid, inf) + WARM_SECONDS > at or any(
        moment is not None and moment <= end for moment in (life.ended, life.ordered_at)
    ):
        return False
    blocking = {entry.number for entry in history.published if entry.plan.kind == "block"}
    if any(
        run.pid == life.pid and run.number in blocking and run.started <= end and run.until + PAUSE_SECONDS >= at
        for run in history.runs
    ):
        return False
    return not any(
        one.begin <= end and one.end + PAUSE_SECONDS >= at and (one.pids is None or life.pid in one.pids)
        for one in history.disturbances
    )


FEATURE = Feature(
    "schedules",
    handlers,
    collect=collect,
    invariants=(ticks_come_once,),
    faults=(
        lost_replies("tick", mix={"ok": 1.0}, workers=3),
        Fault("kill: who ticks", again_and_again(kill, 1.8, least=3), mix={"ok": 1.0}, seconds=7.0),
    ),
)
