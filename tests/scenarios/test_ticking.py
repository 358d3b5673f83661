"""Schedules and listeners in processes of their own, of which some die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise

import pytest
import redis

from tests.scenarios.workers import Fleet, a_fleet
from tests.waiting import wait_until

APP = "tests.scenarios.ticking_app:app"


@pytest.fixture
def fleet(server, tmp_path) -> Iterator[Fleet]:
    with a_fleet(server.url, tmp_path) as fleet:
        yield fleet


def ticks(client: redis.Redis) -> list[str]:
    return [fields[b"_tick"].decode() for _, fields in client.xrange("ticks")]


def test_two_processes_tick_once_and_the_other_goes_on_when_one_is_killed(fleet, redis_client):
    """No tick is there twice, none is left out, and each process has heard of each, from its own start on."""
    doomed, other = fleet.start(app=APP), fleet.start(app=APP)
    wait_until(lambda: redis_client.xlen("ticks") >= 8, within=10)
    os.kill(doomed.pid, signal.SIGKILL)
    doomed.wait(10)
    before = redis_client.xlen("ticks")
    wait_until(lambda: redis_client.xlen("ticks") >= before + 8, within=10)
    other.terminate()

    assert 0 == other.wait(10)
    found = ticks(redis_client)
    moments = [datetime.fromisoformat(tick).timestamp() for tick in found]
    assert len(found) == len(set(found))
    assert {0.2} == {round(after - before, 3) for before, after in pairwise(moments)}
    heard = [line["tick"] for line in fleet.logged(other, "tick.heard")]
    assert heard == found[found.index(heard[0]) :][: len(heard)]
    assert len(heard) >= 8


def test_a_program_without_handlers_is_ready_and_drains(fleet, redis_client):
    """Schedules and listeners alone are work enough."""
    worker = fleet.start(app=APP)
    wait_until(lambda: redis_client.xlen("ticks") >= 2, within=10)
    worker.terminate()

    assert 0 == worker.wait(10)
    assert 1 == len(fleet.logged(worker, "worker.ready"))
