"""`TestWorker`: a batch that is not full waits for the test's time, and what became of its entries can be looked at."""

from __future__ import annotations

from datetime import timedelta

import pytest

from streamworker import BatchContext, RateLimit, StreamWorker
from streamworker.testing import TestWorker

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


@pytest.mark.parametrize("max_wait", [timedelta(milliseconds=69), SECOND, HOUR], ids=str)
async def test_a_batch_is_closed_by_the_tests_time(max_wait: timedelta) -> None:
    """A full one starts at once, an open one when its time has come, exactly, and not before, however long that is."""
    app, sizes = StreamWorker(group="g"), []

    @app.batch_handler("rows", max_size=5, max_wait=max_wait)
    async def write(rows: list[dict[str, str]]) -> None:
        sizes.append(len(rows))

    async with TestWorker(app) as worker:
        for n in range(7):
            await worker.publish("rows", {"n": n})
        await worker.run_until_idle()
        assert [5] == sizes
        assert 2 == len(await worker.pending())

        await worker.advance(max_wait - timedelta(milliseconds=2))
        assert [5] == sizes
        await worker.advance(timedelta(milliseconds=2))
        assert [5, 2] == sizes
        assert [] == await worker.pending()


async def test_a_batch_that_waits_for_nothing_runs_at_once() -> None:
    """With `max_wait` of nothing no time has to be moved."""
    app, seen = StreamWorker(group="g"), []

    @app.batch_handler("rows", max_wait=timedelta(0))
    async def write(rows: list[dict[str, str]]) -> None:
        seen.extend(row["n"] for row in rows)

    async with TestWorker(app) as worker:
        for n in range(3):
            await worker.publish("rows", {"n": n})
        await worker.run_until_idle()

    assert ["0", "1", "2"] == seen


async def test_each_entry_of_a_batch_has_its_story() -> None:
    """One that succeeded and one that was failed alone."""
    app = StreamWorker(group="g")

    @app.batch_handler("rows", max_size=2)
    async def write(rows: list[dict[str, str]], ctx: BatchContext) -> None:
        if ctx.deliveries[-1].attempt == 1:
            ctx.fail(len(rows) - 1, "not now")

    async with TestWorker(app) as worker:
        good = await worker.publish("rows", {"n": 1})
        bad = await worker.publish("rows", {"n": 2})
        await worker.advance(MINUTE)

        assert [(1, "succeeded", "ack")] == [(d.attempt, d.outcome, d.verdict) for d in worker.deliveries(good)]
        assert [(1, "failed", "retry"), (2, "succeeded", "ack")] == [
            (d.attempt, d.outcome, d.verdict) for d in worker.deliveries(bad)
        ]


async def test_a_batch_and_a_rate_go_by_the_same_time() -> None:
    """A batch whose time has come waits for all its permits."""
    app, sizes = StreamWorker(group="g"), []

    @app.batch_handler("rows", max_size=5, max_wait=SECOND, rate_limit=RateLimit(2, per=MINUTE, burst=10))
    async def write(rows: list[dict[str, str]]) -> None:
        sizes.append(len(rows))

    async with TestWorker(app) as worker:
        for n in range(23):
            await worker.publish("rows", {"n": n})
        await worker.run_until_idle()
        assert 10 >= sum(sizes) > 0
        await worker.advance(HOUR)
        assert 23 == sum(sizes)
