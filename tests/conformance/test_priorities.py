"""Streams of different weights on real servers: who is served, how soon, and that all are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis.asyncio

from streamworker import Backoff, BatchContext, Context, RetryPolicy, StreamWorker
from tests.harness import Ledger, an_app, run_burst, working

pytestmark = pytest.mark.matrix

WEIGHTS = {"high": 3, "low": 1}
PLACES = 4

Register = Callable[[StreamWorker, Ledger], None]


async def add(client: redis.asyncio.Redis, **counts: int) -> None:
    async with client.pipeline(transaction=False) as pipe:
        for stream, count in counts.items():
            for number in range(count):
                pipe.xadd(stream, {"n": number, "key": number % 7})
        await pipe.execute()


def singly(app: StreamWorker, ledger: Ledger) -> None:
    @app.handler("low", "high", priorities=WEIGHTS, concurrency=PLACES)
    async def take(body: dict[str, str], ctx: Context) -> None:
        await asyncio.sleep(0)
        await ledger.note(ctx.delivery.stream)


def in_order(app: StreamWorker, ledger: Ledger) -> None:
    @app.handler("low", "high", priorities=WEIGHTS, concurrency=PLACES, ordering_key="key")
    async def take(body: dict[str, str], ctx: Context) -> None:
        await ledger.note(ctx.delivery.stream)


def in_batches(app: StreamWorker, ledger: Ledger) -> None:
    @app.batch_handler("low", "high", priorities=WEIGHTS, concurrency=1, max_size=8, max_wait=timedelta(milliseconds=10))
    async def take(bodies: list[dict[str, str]], ctx: BatchContext) -> None:
        for delivery in ctx.deliveries:
            await ledger.note(delivery.stream)


def by_type(app: StreamWorker, ledger: Ledger) -> None:
    """Two handlers share the streams, and one of them the rest."""
    singly(app, ledger)

    @app.handler("low", "high", type="other", priorities=WEIGHTS, concurrency=PLACES)
    async def other(body: dict[str, str]) -> None:
        await ledger.note("other")


@pytest.mark.parametrize("register", [singly, in_order, in_batches, by_type])
async def test_backlogs_are_served_in_the_ratio_of_their_weights_and_all_of_them(server, aredis, register: Register) -> None:
    """As long as both have one; then the other gets everything."""
    ledger, app = Ledger(), an_app()
    register(app, ledger)
    await add(aredis, low=1_200, high=1_200)

    assert 0 == await run_burst(app, server.url)

    both = Counter(ledger.seen[:1_200])
    assert {"low": 1_200, "high": 1_200} == Counter(ledger.seen)
    assert 750 <= both["high"] <= 1_050  # 900, give or take what one read brings


async def test_what_comes_to_a_heavy_stream_does_not_wait_behind_a_light_one(server, aredis) -> None:
    """Not longer than it takes to do what has been read already."""
    ledger, app = Ledger(), an_app()

    @app.handler("low", "high", priorities={"high": 50}, concurrency=PLACES)
    async def take(body: dict[str, str], ctx: Context) -> None:
        await asyncio.sleep(0.002)
        await ledger.note(ctx.delivery.stream)

    await add(aredis, low=1_500)
    async with working(app, server.url):
        await ledger.until_count(100)
        before = len(ledger.seen)
        await add(aredis, high=1)
        await ledger.until(lambda seen: "high" in seen)

    assert ledger.seen.index("high") - before < 300


async def test_retries_count_with_their_stream(server, aredis) -> None:
    """A light stream whose entries all fail once does not get more than its share by that."""
    ledger = Ledger()
    app = an_app(retry=RetryPolicy(max_attempts=2, backoff=Backoff.constant(timedelta(milliseconds=1))))

    @app.handler("low", "high", priorities=WEIGHTS, concurrency=PLACES)
    async def take(body: dict[str, str], ctx: Context) -> None:
        await ledger.note(ctx.delivery.stream)
        if ctx.delivery.stream == "low" and ctx.delivery.attempt == 1:
            raise ConnectionError

    await add(aredis, low=1_200, high=1_200)

    assert 0 == await run_burst(app, server.url)
    assert {"low": 2_400, "high": 1_200} == Counter(ledger.seen)
    assert Counter(ledger.seen[:1_200])["high"] >= 750


async def test_a_heavy_stream_with_nothing_in_it_holds_nobody_up(server, aredis) -> None:
    """And one that cannot be read holds up nobody either."""
    ledger, app = Ledger(), an_app()
    singly(app, ledger)
    await aredis.set("high", "not a stream")
    await add(aredis, low=300)

    async with working(app, server.url):
        await ledger.until_count(300)
        await aredis.delete("high")
        await add(aredis, high=5)
        await ledger.until(lambda seen: seen.count("high") == 5)

    assert {"low": 300, "high": 5} == Counter[Any](ledger.seen)
