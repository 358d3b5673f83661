"""Leases are told by the server's clock: when that jumps, or stands still with the server, a live fleet takes nothing from itself."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from datetime import timedelta
from time import monotonic, time

import pytest
import redis.asyncio
import structlog

from streamworker import Context
from streamworker.embedded import EmbeddedServer
from tests.clock import MovableClock
from tests.harness import Ledger, an_app, pending, working
from tests.servers import binary_of, why_missing
from tests.waiting import eventually

HOUR = 3600


def slow(ledger: Ledger, seconds: float = 1.5):
    """An application whose handlers run for longer than their lease, so that they stand and fall with its renewal."""
    app = an_app(lease=timedelta(seconds=1))

    @app.handler("orders", concurrency=20)
    async def charge(order: dict[str, str], ctx: Context) -> None:
        began = monotonic()
        try:
            await asyncio.sleep(seconds)
        finally:
            await ledger.note((int(order["order_id"]), began, monotonic(), ctx.delivery.crashes))

    return app


@pytest.fixture
def clock(tmp_path):
    return MovableClock(tmp_path)


@pytest.fixture
def timed_server(clock, server_kind):
    """A server whose clock `clock` moves."""
    program = binary_of(server_kind)
    if program is None:
        pytest.skip(f"{server_kind}: {why_missing(server_kind)}")
    with EmbeddedServer(clock.before(program)) as server:
        yield server


async def add(client: redis.asyncio.Redis, *numbers: int) -> None:
    for number in numbers:
        await client.xadd("orders", {"order_id": number})


def finished(ledger: Ledger) -> Counter[int]:
    return Counter(number for number, *_ in ledger.seen)


async def test_a_jump_forward_makes_nobody_take_from_the_living(timed_server, clock):
    """By an hour, twice, under load: every entry is run once; it is said; and what a dead worker left is taken over all the same."""
    ledger = Ledger()

    with structlog.testing.capture_logs() as lines:
        async with (
            redis.asyncio.Redis.from_url(timed_server.url) as client,
            working(slow(ledger), timed_server.url),
            working(slow(ledger), timed_server.url),
        ):
            for turn in range(3):
                await add(client, *range(20 * turn, 20 * turn + 20))
                await ledger.until(lambda seen, turn=turn: len(finished(ledger)) >= 20 * turn + 5)
                clock.jump_to(turn * HOUR)
            await ledger.until(lambda seen: len(finished(ledger)) == 60)
            alive = finished(ledger)
            async with client.pipeline(transaction=True) as pipe:  # nobody else can be given it
                pipe.xadd("orders", {"order_id": 60}).xreadgroup("billing", "dead", {"orders": ">"})
                await pipe.execute()
            await ledger.until(lambda seen: 60 in finished(ledger))
            await eventually(lambda: _none_pending(client))

    assert dict.fromkeys(range(60), 1) == alive
    assert 1 == max(finished(ledger).values())
    assert [1] == [crashes for number, _, _, crashes in ledger.seen if number == 60]
    assert [line for line in lines if line["event"] == "reclaiming.on_hold"]


async def test_a_jump_backward_stops_nothing(timed_server, clock):
    """A blocked read, which the server would never end, is ended by the worker; new entries are handled, and those of the newly dead."""
    ledger = Ledger()

    async with (
        redis.asyncio.Redis.from_url(timed_server.url) as client,
        working(slow(ledger, 0.1), timed_server.url),
        working(slow(ledger, 0.1), timed_server.url),
    ):
        await add(client, *range(20))
        await ledger.until_count(20)
        await eventually(lambda: _is_blocked(client))
        clock.jump_to(-HOUR)
        await eventually(lambda: _is_at(client, time() - HOUR))  # it looks at its clock now and then
        async with client.pipeline(transaction=True) as pipe:
            pipe.xadd("orders", {"order_id": 20}).xreadgroup("billing", "dead", {"orders": ">"})
            await pipe.execute()
        await add(client, *range(21, 40))
        await ledger.until(lambda seen: len(finished(ledger)) == 40, within=15)
        await eventually(lambda: _none_pending(client))

    assert dict.fromkeys(range(40), 1) == finished(ledger)
    assert [1] == [crashes for number, _, _, crashes in ledger.seen if number == 20]


async def test_a_server_that_stands_still_makes_no_worker_take_from_the_living(private_server, server_kind):
    """For one and a half leases: handlers are interrupted, as nothing can be renewed, and each worker takes up what was its own."""
    server, ledger = private_server(server_kind), Ledger()

    async with (
        redis.asyncio.Redis.from_url(server.url) as client,
        working(slow(ledger), server.url, consumer="one"),
        working(slow(ledger), server.url, consumer="two"),
    ):
        await add(client, *range(20))
        await eventually(lambda: _are_pending(client, 20))
        owners = await owners_of(client)
        os.kill(server.pid, signal.SIGSTOP)
        await asyncio.sleep(1.5)
        os.kill(server.pid, signal.SIGCONT)
        await ledger.until(lambda seen: len(finished(ledger)) == 20)
        await eventually(lambda: _are_pending(client, 20))
        later = await owners_of(client)
        await eventually(lambda: _none_pending(client))

    runs = {number: sorted(run[1:3] for run in ledger.seen if run[0] == number) for number in range(20)}
    assert owners == later
    assert {0} == {crashes for *_, crashes in ledger.seen}
    assert {2} == {len(spans) for spans in runs.values()}
    assert [] == [number for number, ((_, first_end), (second_begin, _)) in runs.items() if second_begin < first_end]


async def owners_of(client: redis.asyncio.Redis) -> dict[bytes, bytes]:
    return {row["message_id"]: row["consumer"] for row in await client.xpending_range("orders", "billing", "-", "+", 100)}


async def _are_pending(client, count: int) -> bool:
    return await pending(client) == count


async def _none_pending(client) -> bool:
    return await pending(client) == 0


async def _is_at(client, seconds: float) -> bool:
    return abs((await client.time())[0] - seconds) < HOUR / 2


async def _is_blocked(client) -> bool:
    return bool((await client.info("clients"))["blocked_clients"])
