"""`streamworker bench` as a user sees it: figures, and nothing left on the server, however it ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from streamworker.bench.figures import Spread
from tests.command_line import NOBODY, records, run, started
from tests.waiting import wait_until

SMALL = ("bench", "--entries", "1000", "--pace", "300", "--loop", "asyncio")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command configures logging, as the only one in its process: it leaves alone what somebody has configured before."""
    structlog.reset_defaults()
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.reset_defaults()
    root.handlers = handlers
    root.setLevel(level)


@pytest.mark.parametrize("codec", ["fields", "json"])
def test_a_run_says_what_it_measured_and_leaves_nothing(server, redis_client, codec):
    """As JSON away from a terminal; what was on the server before is as it was."""
    redis_client.xadd("orders", {"order_id": 1})

    result = run(*SMALL, "--codec", codec, url=server.url)

    [figures] = records(result)
    assert 0 == result.exit_code
    assert (1000, codec) == (figures["entries"], figures["codec"])
    assert min(figures["publish"]["per_second"], figures["handle"]["per_second"], figures["handle"]["cpu_us_per_entry"]) > 0
    assert 0 < figures["latency"]["p50_ms"] <= figures["latency"]["p99_ms"] <= figures["latency"]["max_ms"]
    assert 0 < figures["round_trip"]["p50_ms"]
    assert [b"orders"] == redis_client.keys("*")


def test_people_get_sentences(server):
    """One line for each thing that was measured."""
    result = run(*SMALL, "-o", "text", url=server.url)

    assert ["round", "publish", "handle", "latency"] == [line.split()[0] for line in result.stdout.splitlines()]


def test_settings_of_the_users_own_workers_do_not_count(server, monkeypatch):
    """A pod's environment may ask for what would end or hinder this worker."""
    monkeypatch.setenv("STREAMWORKER_MAX_DELIVERIES", "5")
    monkeypatch.setenv("STREAMWORKER_HANDLERS", "billing")

    assert 0 == run(*SMALL, url=server.url).exit_code


@pytest.mark.parametrize("stage", ["publishing", "handling"])
def test_an_interrupted_run_leaves_nothing(server, redis_client, stage):
    """Ctrl-C, however often, in either half; the exit code says that it was interrupted."""

    def is_in_it() -> bool:
        groups = [redis_client.xinfo_groups(key) for key in redis_client.keys("streamworker-bench-*")]
        return bool(groups) if stage == "publishing" else any(group["pending"] for of in groups for group in of)

    entries = "1000000" if stage == "publishing" else "20000"
    with started(["bench", "--entries", entries], server.url) as bench:
        wait_until(is_in_it, within=30)
        bench.interrupt()
        bench.interrupt()
        code, _, _ = bench.end()

    assert [] == redis_client.keys("*")
    assert code in (130, -2)  # the second one may come while the interpreter ends


def test_a_server_that_is_not_there_is_said_in_a_sentence():
    """Without the URL's secret."""
    result = run(*SMALL, url=NOBODY)

    assert 3 == result.exit_code
    assert "connection refused (127.0.0.1:1)" in " ".join(result.stderr.split())
    assert "secret" not in result.stderr


def test_percentiles_are_of_what_was_measured():
    """The middle is the middle, the longest the longest, and one value is all of them."""
    assert Spread(51.0, 91.0, 100.0, 100.0) == Spread.of([number / 1000 for number in range(100, 0, -1)])
    assert Spread(7.0, 7.0, 7.0, 7.0) == Spread.of([0.007])
