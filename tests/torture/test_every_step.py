"""A worker killed at every step that it takes: whatever it had just asked of Redis, and whether or not it learnt the answer, its entry
is handled or set aside once, by the next one.

    pytest tests/torture/test_every_step.py --servers all        # on every server that is present
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.torture.every_step import SCENARIOS, Facts, Run, Step, kill_at, list_steps, load_scripts, places, violations
from tests.torture.proxy import Call

SIDE_BY_SIDE = 12
"""How many runs go on at once, each in a database of its own: most of a run is waiting for a lease to end."""

SAY_EVERY_SECONDS = 10.0

LOOKED_AT = {
    "success": {"fill", "XREADGROUP BLOCK", "XACK", "renew", "XGROUP CREATE", "reconcile", "reclaim"},
    "publishing": {"XREADGROUP BLOCK", "settle_commit"},
    "retry": {"fill", "settle_retry", "promote", "settle_ack"},
    "dead-letter": {"settle_retry", "promote", "settle_dead_letter"},
    "reclaim": {"reclaim", "recount", "XACK"},
    "restart": {"claim_name", "reconcile", "XACK"},
    "shutdown-in-flight": {"settle_release", "forget_consumer"},  # the released entry may end the blocked read before UNBLOCK does
    "shutdown-idle": {"CLIENT UNBLOCK", "forget_consumer"},
    "shutdown-reading": {"CLIENT UNBLOCK", "settle_release", "forget_consumer"},
}
"""What each scenario is for; a list of steps without these would not be worth its name."""


@pytest.fixture
def say(capsys) -> Callable[[str], None]:
    """Tell whoever waits, past pytest's capturing."""

    def tell(text: str) -> None:
        with capsys.disabled():
            print(f"\n  {text}", end="", flush=True, file=sys.stderr)

    return tell


@pytest.mark.one_server
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_worker_killed_at_any_step_loses_nothing(server, tmp_path, say, name):
    """For each call, in each phase: handled or one dead letter, at most one run more, no attempt spent, nothing left behind."""
    scenario = SCENARIOS[name]
    load_scripts(server.url)
    steps = list_steps(server.url, 0, tmp_path / "listing", scenario)
    missing = LOOKED_AT[name] - {step.name for step in steps}
    assert not missing, f"the scenario never came to {missing}"

    runs = kill_at_each(server.url, tmp_path, name, steps, say)
    broken = [f"{name}, killed {run.step}: {'; '.join(run.broken)} (see {run.folder})" for run in runs if run.broken]
    fired = {(run.step.name, run.step.phase) for run in runs if run.fired}
    vacuous = [f"{name}: no kill {run.step}" for run in runs if (run.step.name, run.step.phase) not in fired]
    # How often an idle worker looks depends on the time; that a third look did not come again is no loss, but it is said.
    missed = [str(run.step) for run in runs if not run.fired]
    slowest = max(runs, key=lambda run: run.seconds)
    counted = f"{len(runs) - len(missed)} kills, slowest recovery {slowest.seconds:.1f} s ({slowest.step})"
    say(f"{name} on {server.name}: {counted}{'; did not come again: ' if missed else ''}{', '.join(missed)}")

    assert [] == broken
    assert [] == vacuous


def kill_at_each(url: str, folder: Path, name: str, steps: list[Step], say: Callable[[str], None]) -> list[Run]:
    databases: SimpleQueue[int] = SimpleQueue()
    for database in range(SIDE_BY_SIDE):
        databases.put(database)

    def run(number: int, step: Step) -> Run:
        database = databases.get()
        try:
            return kill_at(url, database, folder / f"{number:03}", SCENARIOS[name], step)
        finally:
            databases.put(database)

    said_at = time.monotonic()
    runs: list[Run] = []
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        futures: list[Future[Run]] = [pool.submit(run, number, step) for number, step in enumerate(steps)]
        for future in as_completed(futures):
            runs.append(future.result())
            if time.monotonic() - said_at > SAY_EVERY_SECONDS:
                said_at = time.monotonic()
                say(f"{name}: {len(runs)} of {len(steps)} kills, {sum(bool(run.broken) for run in runs)} broke something")
    return runs


# ---- the checker ------------------------------------------------------------------------------------------------------------

GOOD = Facts(exit_code=0, starts=(1, 1), done=1, published=0, letters=(), left={"orders": 0}, holders=())
GOOD_LETTER = replace(GOOD, starts=(1, 2, 2), done=0, letters=(("exhausted", 2),))


def test_the_checker_is_content_with_what_is_right():
    """One run more than without a kill is allowed."""
    assert [] == violations(GOOD, SCENARIOS["success"])
    assert [] == violations(GOOD_LETTER, SCENARIOS["dead-letter"])


@pytest.mark.parametrize(
    ("scenario", "facts", "said"),
    [
        ("success", replace(GOOD, exit_code=None), "hung"),
        ("success", replace(GOOD, exit_code=1), "ended with 1"),
        ("success", replace(GOOD, done=0), "lost"),
        ("success", replace(GOOD, starts=(1, 1, 1)), "started 3 times"),
        ("success", replace(GOOD, starts=(1, 2)), "attempts"),
        ("success", replace(GOOD, letters=(("crashed", 1),)), "set aside"),
        ("success", replace(GOOD, left={"pending in orders": 1}), "1 left in pending in orders"),
        ("success", replace(GOOD, holders=("dead",)), "consumer dead"),
        ("success", replace(GOOD, published=1), "published 1"),
        ("publishing", GOOD, "published 0"),
        ("publishing", replace(GOOD, published=2), "published 2"),
        ("retry", GOOD, "attempts"),
        ("dead-letter", replace(GOOD_LETTER, letters=()), "dead letters"),
        ("dead-letter", replace(GOOD_LETTER, letters=(("exhausted", 2),) * 2), "dead letters"),
        ("dead-letter", replace(GOOD_LETTER, letters=(("crashed", 2),)), "dead letters"),
        ("dead-letter", replace(GOOD_LETTER, done=1), "handled to success"),
        ("dead-letter", replace(GOOD_LETTER, starts=(1, 2, 3)), "attempts"),
    ],
)
def test_the_checker_sees_what_is_wrong(scenario, facts, said):
    """Each invariant, broken by itself."""
    assert any(said in sentence for sentence in violations(facts, SCENARIOS[scenario]))


def test_repeated_looks_at_nothing_are_not_worth_a_kill_each():
    """Two of a kind in each phase are; what answers differently is another kind; ordinals count all."""

    def call(name: str, reply: bytes) -> Call:
        return Call(name, 0, 0, 0, b"", reply=reply)

    idle, busy = call("fill", b"*0\r\n"), call("fill", b"*1\r\n:1\r\n")
    events = [(one, "after_reply") for one in (idle, idle, idle, busy, call("SET", b"+OK\r\n"), idle)]

    assert [1, 2, 4] == [step.ordinal for step in places(events) if step.name == "fill"]
    assert ["SET"] == [step.name for step in places(events, after="SET")]


def test_a_kill_that_never_fires_is_said(valkey, tmp_path):
    """A run without its fault proves nothing."""
    load_scripts(valkey.url)
    run = kill_at(valkey.url, 0, tmp_path / "run", SCENARIOS["shutdown-idle"], Step("XAUTOCLAIM", "before_send", 1))

    assert not run.fired
