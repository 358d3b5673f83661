"""New entries that come together are run as a lot, and each of them is treated as if it had come alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import timedelta

import pytest
import structlog

from streamworker import Backoff, Reject, RetryPolicy
from tests.harness import Ledger, an_app, dead_letters, pending, working
from tests.waiting import eventually

SEEN: ContextVar[str] = ContextVar("SEEN", default="nothing")
LEASE = timedelta(seconds=1.2)


@pytest.fixture(params=[logging.DEBUG, logging.WARNING], ids=["told", "untold"], autouse=True)
def _level(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where somebody is told of each success, a lot is run one by one."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(request.param))
    yield
    structlog.reset_defaults()


async def add(client, *ways: str) -> None:
    async with client.pipeline(transaction=False) as pipe:
        for way in ways:
            pipe.xadd("orders", {"way": way})
        await pipe.execute()


async def none_pending(client) -> bool:
    return await pending(client) == 0


async def test_each_entry_has_a_verdict_of_its_own(server, aredis):
    """Among entries that simply succeed some wait, fail, are rejected, or cancel their task; none has to do with its neighbours."""
    app, ledger = an_app(retry=RetryPolicy(max_attempts=2, backoff=Backoff.constant(timedelta(0)))), Ledger()

    @app.handler("orders", concurrency=3)
    async def charge(order: dict[str, str]) -> None:
        assert SEEN.get() == "nothing"
        SEEN.set(order["way"])
        way, _, _ = order["way"].partition("-")
        if way == "wait":
            await asyncio.sleep(0.001)
        if way == "cancel":
            asyncio.current_task().cancel()
        if way == "cancel_and_wait":
            asyncio.current_task().cancel()
            await asyncio.sleep(3600)
        if way == "fail":
            raise RuntimeError("again")
        if way == "reject":
            raise Reject("never")
        assert SEEN.get() == order["way"]
        await ledger.note(order["way"])

    ways = [
        f"{way}-{number}" for number in range(40) for way in ("good", "wait", "good", "fail", "good", "reject", "good", "cancel")
    ]
    await add(aredis, *ways, "cancel_and_wait-0", "good-last")
    async with working(app, server.url):
        await eventually(lambda: _are_set_aside(aredis, 81), within=20)
        await eventually(lambda: none_pending(aredis), within=20)

    kept = [way for way in ways if way.startswith(("good", "wait", "cancel"))]
    assert sorted([*kept, "good-last"]) == sorted(way for way in ledger.seen if way != "cancel_and_wait-0")


async def test_no_more_wait_at_once_than_may(server, aredis):
    """However many came together."""
    app, ledger, gate = an_app(lease=timedelta(seconds=30)), Ledger(), asyncio.Event()

    @app.handler("orders", concurrency=4)
    async def charge(order: dict[str, str]) -> None:
        if order["way"] == "wait":
            await ledger.note("began")
            await gate.wait()
        await ledger.note(order["way"])

    await add(aredis, *["good"] * 50, *["wait"] * 10, *["good"] * 50)
    async with working(app, server.url):
        await ledger.until(lambda seen: seen.count("began") == 4)
        await asyncio.sleep(0)
        assert 4 == ledger.seen.count("began")
        gate.set()
        await ledger.until(lambda seen: seen.count("good") == 100 and seen.count("wait") == 10)
        await eventually(lambda: none_pending(aredis))


async def test_a_handler_that_blocks_the_loop_keeps_the_leases_of_all_that_came_with_its_entry(server, aredis):
    """Nobody else takes them over, neither those before nor those behind it."""
    app, ledger = an_app(lease=LEASE), Ledger()
    other, taken = an_app(lease=LEASE), Ledger()

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        if order["way"] == "block":
            time.sleep(2.5 * LEASE.total_seconds())  # noqa: ASYNC251  # what it is about
        await ledger.note(order["way"])

    @other.handler("orders")
    async def take(order: dict[str, str]) -> None:
        await taken.note(order["way"])

    await add(aredis, "first", "block", "second", "third")
    async with working(app, server.url), working(other, server.url):
        await eventually(lambda: _all_read(aredis), within=10)
        await eventually(lambda: none_pending(aredis), within=10)

    assert ["block", "first", "second", "third"] == sorted(ledger.seen + taken.seen)


async def test_what_has_not_begun_is_given_back_by_a_drain(server, aredis):
    """To whoever comes next, uncounted."""
    app, ledger = an_app(lease=timedelta(seconds=30)), Ledger()

    @app.handler("orders", concurrency=100)
    async def charge(order: dict[str, str]) -> None:
        time.sleep(0.03)  # noqa: ASYNC251  # longer than a slice: the loop has its turn after each
        await ledger.note(order["way"])

    await add(aredis, *map(str, range(60)))
    async with working(app, server.url):
        await ledger.until_count(2)
    began = len(ledger.seen)

    assert 60 > began
    assert await none_pending(aredis)
    async with working(app, server.url):
        await ledger.until_count(60, within=20)
    assert sorted(map(str, range(60))) == sorted(ledger.seen)


async def _are_set_aside(client, count: int) -> bool:
    return len(await dead_letters(client)) == count


async def _all_read(client) -> bool:
    [group] = await client.xinfo_groups("orders")
    return group["lag"] == 0
