"""Entries of one key run one after the other in the order of their stream: in each process, and in a group that has one at a time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise

from streamworker import Context, StreamWorker
from tests.torture.faults.base import Fault, again_and_again, one_of
from tests.torture.faults.network import cut, lost_replies
from tests.torture.faults.processes import kill, stop_and_continue
from tests.torture.feature import Feature
from tests.torture.history import History, Plan, Rules, Run, Violation
from tests.torture.ledger import Work, noted
from tests.torture.load import STREAM, a_moment
from tests.torture.scene import Scene

KINDS = ("ordered", "ordered-fails", "ordered-fails-always")
KEYS = 7
HELD_UP_SECONDS = 10.0
"""All that waited for its key behind what died is run alone first, and what fails is tried again in its place."""
MIX = {"ordered": 80.0, "ordered-fails": 15.0, "ordered-fails-always": 5.0}


def handlers(app: StreamWorker) -> None:
    """Fail as often as the plan says; the key is the header."""

    @app.handler(STREAM, type="ordered", ordering_key="_key")
    async def in_order(body: Work, ctx: Context) -> None:
        with noted(body, ctx):
            await asyncio.sleep(body.seconds)
            if ctx.delivery.attempt <= body.failures:
                raise ValueError("no")


def fields(number: int, plan: Plan) -> Mapping[str, str]:
    """Each key has every seventh entry."""
    return {"_type": "ordered", "_key": key_of(number)}


def key_of(number: int) -> str:
    """The key of an entry with this number."""
    return f"key-{number % KEYS}"


def by_key(history: History) -> dict[str, list[Run]]:
    """The runs of each key, in the order of their starts; those that were killed end with their process."""
    plans, ends = history.plans(), {life.pid: life.ended for life in history.lives}
    found: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(history.runs, key=lambda run: run.started):
        if run.number in plans and plans[run.number].kind in KINDS:
            ended = ends.get(run.pid) if run.ended is None else run.ended
            found[key_of(run.number)].append(Run(**{**run.__dict__, "ended": ended}))
    return found


def one_of_a_key_runs_at_a_time(history: History, rules: Rules) -> Iterator[Violation]:
    """I7: no two entries of one key overlap in one process; nor in the group, where it has one process at a time."""
    alone = has_one_at_a_time(history)
    for key, runs in by_key(history).items():
        for position, run in enumerate(runs):
            beside = [other for other in runs[position + 1 :] if other.started < run.until and (alone or other.pid == run.pid)]
            if beside:
                yield Violation("I7", f"{key}: {_told(beside[0])} began beside {_told(run)}")


def keys_are_in_order(history: History, rules: Rules) -> Iterator[Violation]:
    """I7: in a group that has one process at a time, an entry begins after each earlier one of its key has succeeded or is given up."""
    if not has_one_at_a_time(history):
        return
    letters = {letter.number for letter in history.dead_letters}
    for key, runs in by_key(history).items():
        first: dict[int, Run] = {}
        for run in runs:
            first.setdefault(run.number, run)
        for later in first.values():
            for earlier in first.values():
                if _place(earlier) < _place(later) and not _had_ended(earlier.number, later.started, runs, letters):
                    yield Violation("I7", f"{key}: {_told(later)} began before entry {earlier.number} had ended")


def has_one_at_a_time(history: History) -> bool:
    """Whether the group never had two processes at once, nor lost what it knew to an order or to another program."""
    lives = sorted((life for life in history.lives if life.ready), key=lambda life: life.started)
    apart = all(life.ended is not None and life.ended <= following.started for life, following in pairwise(lives))
    return apart and not history.forgotten and not any(one.voids or one.takes is not None for one in history.disturbances)


def _had_ended(number: int, by: float, runs: list[Run], letters: set[int]) -> bool:
    """Whether an entry had succeeded once, or run for the last time before it was set aside."""
    own = [run for run in runs if run.number == number]
    return any(run.end == "done" and run.until <= by for run in own) or (number in letters and all(run.until <= by for run in own))


def _place(run: Run) -> tuple[int, ...]:
    return tuple(map(int, run.id.split("-")))


def _told(run: Run) -> str:
    return f"entry {run.number}, attempt {run.attempt}, in process {run.pid} from {run.started:.3f} to {run.until:.3f}"


def drain_and_start_again(scene: Scene) -> None:
    """A restart with one process at a time, and a grace that is too short for what runs."""
    leaving = scene.fleet.any_ready(scene.random)
    scene.fleet.retire(leaving)
    scene.fleet.start(leaving.recipe)
    scene.fired += 1


def _alone(name: str, inject, **facts) -> Fault:  # type: ignore[no-untyped-def]
    rules = {"held_up": HELD_UP_SECONDS, **facts.pop("rules", {})}
    return Fault(f"order: {name}", inject, **{"mix": MIX, "workers": 1, "seconds": 6.0, "rules": rules, **facts})


FEATURE = Feature(
    "ordering",
    handlers,
    {
        "ordered": lambda lease, random: Plan("ordered", a_moment(random)),
        "ordered-fails": lambda lease, random: Plan("ordered-fails", a_moment(random), failures=random.choice((1, 2))),
        "ordered-fails-always": lambda lease, random: Plan("ordered-fails-always", a_moment(random), failures=99, ends="exhausted"),
    },
    fields,
    invariants=(one_of_a_key_runs_at_a_time, keys_are_in_order),
    faults=(
        _alone("kill -9 of the only worker", again_and_again(kill, 1.5, least=3), events=one_of("entries.reclaimed")),
        _alone("SIGSTOP of the only worker", again_and_again(stop_and_continue, 0.4), events=one_of("lease.lost")),
        _alone("cuts", again_and_again(cut, 0.3, least=6), proxied="all", events=one_of("reading.failing")),
        _alone(
            "restart of the only worker",
            again_and_again(drain_and_start_again, 0.3, least=4),
            options=("--grace", "20ms"),
            rules={"exit_codes": frozenset({0, 4})},
            events=one_of("worker.draining"),
        ),
        _alone("kill -9 of workers", again_and_again(kill, 0.9, least=3), workers=3, events=one_of("entries.reclaimed")),
        lost_replies("recount", mix=MIX, workers=1),
    ),
)
