"""Entries that kill their workers: run alone, set aside in the end, and never at the cost of those that were beside them."""

from __future__ import annotations

import signal
from collections import Counter

from tests.scenarios.test_life_and_death import add, pending
from tests.scenarios.workers import Fleet, a_fleet
from tests.waiting import wait_until

STREAM = "poisoned"
DEAD_LETTERS = "{poisoned}:dlq:billing"


def keep_running(fleet: Fleet, count: int) -> None:
    """As an orchestrator does: start another worker for each one that died."""
    running = sum(worker.poll() is None for worker in fleet.workers)
    for _ in range(count - running):
        fleet.start(ready=False)


def test_a_poison_entry_takes_down_a_few_workers_and_no_other_entry(server, redis_client, tmp_path):
    """One death in company, three alone, then it is a dead letter; the innocent beside it are all handled, with no attempt lost."""
    add(redis_client, 5, stream=STREAM, seconds=0.3)
    redis_client.xadd(STREAM, {"number": 99, "kill": "true"})
    add(redis_client, 5, stream=STREAM, first=5, seconds=0.3)
    with a_fleet(server.url, tmp_path, lease_ms=500) as fleet:

        def is_over() -> bool:
            keep_running(fleet, 2)
            return (
                bool(redis_client.exists(DEAD_LETTERS)) and len(set(fleet.numbers())) == 10 and pending(redis_client, STREAM) == 0
            )

        wait_until(is_over, within=45)
        [(_, letter)] = redis_client.xrange(DEAD_LETTERS)
        started = fleet.ledger("started")
        deaths = [worker for worker in fleet.workers if worker.poll() == -signal.SIGKILL]

        assert set(range(10)) == set(fleet.numbers())
        assert {1} == {line["attempt"] for line in started}
        assert 4 == Counter(line["number"] for line in started)[99] == len(deaths)
        assert (b"crashed", b"99", b"4") == (letter[b"_dlq_reason"], letter[b"number"], letter[b"_dlq_crashes"])


def test_what_has_killed_its_worker_runs_with_nothing_else_in_flight(server, redis_client, tmp_path):
    """Its process finishes what runs, begins nothing new meanwhile, and goes on afterwards."""
    add(redis_client, 40, stream=STREAM, seconds=0.2)
    with a_fleet(server.url, tmp_path, lease_ms=500) as fleet:
        victim = fleet.start()
        fleet.until("started", 5)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        fleet.start()
        wait_until(lambda: len(set(fleet.numbers())) == 40 and pending(redis_client, STREAM) == 0, within=30)
        ends = {(line["pid"], line["number"]): line["at"] for line in fleet.ledger("done")}
        runs = [(line, ends[line["pid"], line["number"]]) for line in fleet.ledger("started") if line["pid"] != victim.pid]
        alone = [line for line, _ in runs if line["crashes"] > 0]

        assert alone
        for one in alone:
            beside = [run["number"] for run, ended in runs if run is not one and run["at"] <= one["at"] < ended]
            assert [] == beside, f"{one['number']} ran beside {beside}"
