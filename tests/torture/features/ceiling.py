"""A limit over all handlers of a process holds, and nothing is lost or held up behind it, whatever happens to its workers."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from tests.torture.faults.base import Fault, again_and_again, one_of
from tests.torture.faults.network import cut
from tests.torture.faults.processes import kill
from tests.torture.feature import Feature
from tests.torture.history import History, Rules, Violation
from tests.torture.load import PLAIN

LIMIT = 3
OPTIONS = ("--max-concurrency", str(LIMIT))
HELD_UP_SECONDS = 5.0
"""How long what was there before may take to go through so few places, on a busy machine."""

MIX = {**PLAIN, "long": 0.0, "effect": 15.0, "effect-once": 15.0, "ordered": 30.0}


def no_more_run_at_once(history: History, rules: Rules) -> Iterator[Violation]:
    """I28: in no process do more handlers run at once than it may."""
    for pid in {run.pid for run in history.runs} if rules.max_concurrency is not None else ():
        changes = [
            (at, change) for run in history.runs if run.pid == pid for at, change in ((run.started, 1), (_end(run.ended), -1))
        ]
        running = 0
        for at, change in sorted(changes):
            running += change
            if running > (rules.max_concurrency or 0):
                yield Violation("I28", f"{running} handlers ran at once in process {pid} at {at:.3f}")
                return


def _end(moment: float | None) -> float:
    return inf if moment is None else moment


FEATURE = Feature(
    "ceiling",
    invariants=(no_more_run_at_once,),
    faults=(
        Fault(
            "limit of a process: kill -9",
            again_and_again(kill, 0.9, least=4),
            mix=MIX,
            options=OPTIONS,
            events=one_of("entries.reclaimed"),
            rules={"max_concurrency": LIMIT, "held_up": HELD_UP_SECONDS},
        ),
        Fault(
            "limit of a process: cuts",
            again_and_again(cut, 0.3, least=6),
            mix=MIX,
            options=OPTIONS,
            proxied="all",
            events=one_of("reading.failing"),
            rules={"max_concurrency": LIMIT, "held_up": HELD_UP_SECONDS},
        ),
    ),
)
