"""Rates, pauses and kill switches in the test's time, on the fake server and on real ones."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamworker import Backoff, KillSwitch, RateLimit, Reject, RetryPolicy, StreamWorker
from streamworker.testing import TestWorker

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


@pytest.fixture(params=["fake", "valkey", "redis"])
def redis_url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "fake":
        return None
    url: str = request.getfixturevalue("server_pool").empty(request.param).url
    return url


def an_app() -> StreamWorker:
    return StreamWorker(group="g", retry=RetryPolicy(max_attempts=5, backoff=Backoff.constant(10 * SECOND)))


@pytest.mark.parametrize("limit", [RateLimit(1, per=MINUTE), RateLimit(2, per=2 * SECOND, burst=1)])
async def test_a_rate_is_kept_in_the_tests_time(redis_url: str | None, limit: RateLimit) -> None:
    """One starts at once, and one more with each interval, though no real time passes."""
    app, ran = an_app(), []

    @app.handler("calls", rate_limit=limit)
    async def call(body: dict[str, str]) -> None:
        ran.append(body["n"])

    interval = timedelta(microseconds=limit.timing.interval_us)
    async with TestWorker(app, redis_url=redis_url) as worker:
        for n in range(4):
            await worker.publish("calls", {"n": str(n)})
        await worker.run_until_idle()
        assert 1 == len(ran)

        await worker.advance(interval * 1.2)
        assert 2 == len(ran)

        await worker.advance(2 * interval * 1.2)
        assert {"0", "1", "2", "3"} == {*ran}
        assert all(record.attempt == 1 for record in worker.deliveries())


@pytest.mark.parametrize("options", [{}, {"ordering_key": "of"}, {"kill_switch": KillSwitch()}], ids=str)
async def test_a_fast_rate_lets_the_rest_wait(options: dict[str, Any]) -> None:
    """Its burst runs at once; what is here, in the stream or behind an earlier one of its key waits for the test's time to go on."""
    app, ran = an_app(), []

    @app.handler("calls", rate_limit=RateLimit(200, burst=50), **options)
    async def call(body: dict[str, str]) -> None:
        ran.append(body["n"])

    async with TestWorker(app) as worker:
        for n in range(120):
            await worker.publish("calls", {"n": str(n), "of": "a"})
        await worker.run_until_idle()
        assert 25 < len(ran) <= 50

        await worker.advance(SECOND)
        assert {str(n) for n in range(120)} == {*ran}


async def test_a_paused_handler_waits_for_its_resume(redis_url: str | None) -> None:
    """Nothing of it starts, whatever time passes; the other handler of its stream goes on; and after the resume all of it runs once."""
    app, ran = an_app(), []

    @app.handler("orders", type="charge")
    async def charge(body: dict[str, str]) -> None:
        ran.append(("charge", body["n"]))

    @app.handler("orders")
    async def note(body: dict[str, str]) -> None:
        ran.append(("note", body["n"]))

    async with TestWorker(app, redis_url=redis_url) as worker:
        assert await app.pause(charge, reason="the bank is closed")
        for n in range(3):
            await worker.publish("orders", {"n": str(n)}, type="charge")
            await worker.publish("orders", {"n": str(n)})
        await worker.run_until_idle()
        await worker.advance(5 * MINUTE)
        assert [("note", "0"), ("note", "1"), ("note", "2")] == ran

        assert await app.resume("charge")
        await worker.advance(MINUTE)
        assert {("charge", "0"), ("charge", "1"), ("charge", "2")} == {*ran[3:]}
        assert 3 == len(ran[3:])
        assert {1} == {record.attempt for record in worker.deliveries()}


async def test_a_paused_handler_with_a_stream_of_its_own_is_not_read_for(redis_url: str | None) -> None:
    """What is published meanwhile stays in the stream; it runs at once after the resume."""
    app, ran = an_app(), []

    @app.handler("orders")
    async def charge(body: dict[str, str]) -> None:
        ran.append(body["n"])

    async with TestWorker(app, redis_url=redis_url) as worker:
        await app.pause("charge")
        await worker.publish("orders", {"n": "1"})
        await worker.advance(MINUTE)
        assert ([], [], []) == (ran, await worker.pending(), await worker.waiting())

        await app.resume("charge")
        await worker.run_until_idle()
        assert ["1"] == ran


async def test_a_kill_switch_rests_and_tries_one(redis_url: str | None) -> None:
    """While it rests nothing runs; then one is tried, and rests again where that fails, and goes on where it succeeds."""
    app, ran, is_down = an_app(), [], True

    @app.handler("calls", kill_switch=KillSwitch(after=4, share=0.5, rest=MINUTE), concurrency=1)
    async def call(body: dict[str, str]) -> None:
        ran.append(body["n"])
        if is_down:
            raise ConnectionError("down")

    async with TestWorker(app, redis_url=redis_url) as worker:
        for n in range(10):
            await worker.publish("calls", {"n": str(n)})
        await worker.run_until_idle()
        assert 4 == len(ran)

        await worker.advance(MINUTE + SECOND)
        assert 5 == len(ran)

        is_down = False
        await worker.advance(MINUTE)
        assert {str(n) for n in range(10)} == {*ran}
        assert max(record.attempt for record in worker.deliveries()) <= 3


async def test_what_has_an_order_waits_behind_a_kill_switch(redis_url: str | None) -> None:
    """The first of a key waits for the end of the rest, and the others for the first; then all of them run, in their order."""
    app, ran = an_app(), []

    @app.handler("calls", kill_switch=KillSwitch(after=2, share=0.5, rest=MINUTE), ordering_key="of", concurrency=1)
    async def call(body: dict[str, str]) -> None:
        ran.append(body["n"])

    async with TestWorker(app, redis_url=redis_url) as worker:
        worker.fail_next(call, ConnectionError("down"), times=2)
        for n in range(6):
            await worker.publish("calls", {"n": str(n), "of": "a"})
        await worker.advance(10 * SECOND)
        assert [] == ran

        await worker.advance(MINUTE)
        assert ["0", "1", "2", "3", "4", "5"] == ran


async def test_a_rejection_is_no_reason_to_rest(redis_url: str | None) -> None:
    """The handler could tell, so what it needs is there."""
    app, ran = an_app(), []

    @app.handler("calls", kill_switch=KillSwitch(after=2, share=0.5))
    async def call(body: dict[str, str]) -> None:
        ran.append(body["n"])
        raise Reject("no")

    async with TestWorker(app, redis_url=redis_url) as worker:
        for n in range(6):
            await worker.publish("calls", {"n": str(n)})
        await worker.run_until_idle()

    assert 6 == len(ran)
