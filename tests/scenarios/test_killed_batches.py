"""Batches in worker processes: killed in the midst of them, told to stop, and every entry has its own verdict all the same."""

from __future__ import annotations

import signal
from collections import Counter

from tests.scenarios.workers import a_fleet
from tests.waiting import wait_until

ENTRIES = 200


def add(client, count: int, seconds: float) -> None:
    with client.pipeline(transaction=False) as pipe:
        for number in range(count):
            pipe.xadd("batched", {"number": number, "seconds": seconds, "kill": "true" if number % 10 == 0 else "false"})
        pipe.execute()


def is_finished(client) -> bool:
    waiting = client.zcard("{batched}:due:billing") + client.xlen("{batched}:retry:billing")
    return waiting == 0 and client.xpending("batched", "billing")["pending"] == 0


def committed(client) -> Counter[int]:
    return Counter(int(fields[b"number"]) for _, fields in client.xrange("charged"))


def test_a_worker_killed_in_the_midst_of_its_batches_loses_none_and_commits_each_once(server, redis_client, tmp_path):
    """SIGKILL: the entries of the open batches run again, alone, and only those run twice; each commits once, failed or not at first."""
    add(redis_client, ENTRIES, seconds=0.5)
    with a_fleet(server.url, tmp_path) as fleet:
        victim = fleet.start()
        fleet.until("started", 41)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        fleet.start()
        wait_until(lambda: is_finished(redis_client) and len(committed(redis_client)) == ENTRIES, within=30)
        again = len(fleet.numbers()) - ENTRIES
        crashed = {line["number"] for line in fleet.ledger("started") if line["crashes"]}

    assert dict.fromkeys(range(ENTRIES), 1) == committed(redis_client)
    assert 0 == redis_client.exists("{batched}:dlq:billing")
    assert again <= 40, "two batches of twenty were in the dead worker's hands"
    assert 0 < len(crashed) <= 60, "those and what waited to be batched or acknowledged"


def test_a_worker_told_to_stop_finishes_its_batches(server, redis_client, tmp_path):
    """SIGTERM: exit 0, what has started ends, nothing is pending; the rest is there for the next worker, uncounted."""
    add(redis_client, ENTRIES, seconds=0.3)
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start()
        fleet.until("started", 41)
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(10)
        started, ended = fleet.numbers("started"), fleet.numbers() + fleet.numbers("failed")
        left = redis_client.xpending("batched", "billing")["pending"]
        fleet.start("--burst", ready=False).wait(30)
        crashes = {line["crashes"] for line in fleet.ledger("started")}

    assert (0, 0) == (code, left)
    assert sorted(started) == sorted(ended)
    assert {0} == crashes
    assert dict.fromkeys(range(ENTRIES), 1) == committed(redis_client)
