"""A limit over all handlers of a process: it holds whatever they are, nobody starves behind it, and nothing hangs at it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import redis.asyncio

from streamworker import Context, Retry, StreamWorker
from tests.harness import Ledger, an_app, pending, run_burst, working

pytestmark = pytest.mark.matrix

KINDS = ("plain", "thread", "batch", "ordered", "limited")


async def add(client: redis.asyncio.Redis, count: int, *streams: str) -> None:
    async with client.pipeline(transaction=False) as pipe:
        for number in range(count):
            for stream in streams:
                pipe.xadd(stream, {"n": number, "key": number % 5})
        await pipe.execute()


class Meter:
    """How many run, the most that ever did, and what has ended."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.ended = Counter[str]()

    @contextmanager
    def running(self, what: str, entries: int = 1) -> Iterator[None]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            yield
        finally:
            with self.lock:
                self.now -= 1
                self.ended[what] += entries


def every_kind(app: StreamWorker, meter: Meter) -> None:
    @app.handler("plain", "again", concurrency=20)
    async def plain(body: dict[str, str]) -> None:
        with meter.running("plain"):
            await asyncio.sleep(0.001)

    @app.handler("thread", concurrency=20)
    def thread(body: dict[str, str]) -> None:
        with meter.running("thread"):
            time.sleep(0.001)  # a plain function waits so

    @app.batch_handler("batch", concurrency=20, max_size=7, max_wait=timedelta(milliseconds=5))
    async def batch(bodies: list[dict[str, str]]) -> None:
        with meter.running("batch", len(bodies)):
            await asyncio.sleep(0.001)

    @app.handler("ordered", concurrency=20, ordering_key="key")
    async def ordered(body: dict[str, str]) -> None:
        with meter.running("ordered"):
            await asyncio.sleep(0.001)

    @app.handler("limited", concurrency=20, group="other")
    async def limited(body: dict[str, str]) -> None:
        with meter.running("limited"):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("limit", [1, 3])
async def test_no_more_than_the_limit_run_at_once_whatever_they_are(server, aredis, limit: int) -> None:
    """In tasks, in threads, in batches, in an order, in another group; and all of them come to their end."""
    app, meter = an_app(), Meter()
    every_kind(app, meter)
    await add(aredis, 150, *KINDS)

    assert 0 == await run_burst(app, server.url, max_concurrency=limit)

    assert dict.fromkeys(KINDS, 150) == meter.ended
    assert limit == meter.most


async def test_a_flood_for_one_handler_does_not_hold_up_another(server, aredis) -> None:
    """With two places and a backlog of 2,000 for the one, ten of the other take as many turns as if each had a place."""
    app, ledger = an_app(), Ledger()

    @app.handler("flood", concurrency=50)
    async def flooded(body: dict[str, str]) -> None:
        await asyncio.sleep(0.002)
        await ledger.note("flood")

    @app.handler("few", concurrency=50)
    async def few(body: dict[str, str]) -> None:
        await asyncio.sleep(0.002)
        await ledger.note("few")

    await add(aredis, 2_000, "flood")
    async with working(app, server.url, max_concurrency=2):
        await ledger.until_count(50)
        await add(aredis, 10, "few")
        await ledger.until(lambda seen: "few" in seen)
        begun = len(ledger.seen)
        await ledger.until(lambda seen: seen.count("few") == 10)

    assert len(ledger.seen) - begun < 40


async def test_handlers_of_one_stream_take_turns(server, aredis) -> None:
    """Told apart by their types, with one place for both."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders", concurrency=50)
    async def rest(body: dict[str, str]) -> None:
        await ledger.note("rest")
        await asyncio.sleep(0)

    @app.handler("orders", type="urgent", concurrency=50)
    async def urgent(body: dict[str, str]) -> None:
        await ledger.note("urgent")
        await asyncio.sleep(0)

    for number in range(100):
        await aredis.xadd("orders", {"n": number})
        await aredis.xadd("orders", {"n": number, "_type": "urgent"})

    assert 0 == await run_burst(app, server.url, max_concurrency=1)

    assert {"rest": 100, "urgent": 100} == Counter[Any](ledger.seen)
    assert max(abs(ledger.seen[:n].count("rest") - n / 2) for n in range(200)) <= 12


async def test_what_a_dead_worker_left_runs_alone_behind_the_limit_too(server, aredis) -> None:
    """The limit and the solitude do not wait for each other."""
    app, meter = an_app(lease=timedelta(seconds=1)), Meter()
    every_kind(app, meter)
    for stream in KINDS:
        group = "other" if stream == "limited" else "billing"
        await aredis.xgroup_create(stream, group, "0", mkstream=True)
        await add(aredis, 3, stream)
        [[_, entries]] = await aredis.xreadgroup(group, "dead", {stream: ">"}, count=3)
        ids = [entry_id for entry_id, _ in entries]
        await aredis.xclaim(stream, group, "dead", min_idle_time=0, message_ids=ids, idle=60_000, justid=True)
    await add(aredis, 20, *KINDS)

    assert 0 == await run_burst(app, server.url, max_concurrency=1)

    assert dict.fromkeys(KINDS, 23) == meter.ended
    assert 1 == meter.most


async def test_a_drain_gives_back_what_waits_for_a_place(server, aredis) -> None:
    """It lets those end that run, and begins no others."""
    app, ledger = an_app(), Ledger()
    going_on = asyncio.Event()

    @app.handler("orders", concurrency=50)
    async def wait(body: dict[str, str]) -> None:
        await ledger.note("begun")
        await going_on.wait()

    await add(aredis, 40, "orders")
    async with working(app, server.url, max_concurrency=2) as process:
        await ledger.until_count(2)
        process.drain("the test wants it")
        going_on.set()

    assert 2 == len(ledger.seen)
    assert 0 == await pending(aredis)


async def test_retries_go_on_behind_the_limit(server, aredis) -> None:
    """Each is a start like any other."""
    app, meter = an_app(), Meter()

    @app.handler("orders", concurrency=50, ordering_key="key")
    async def twice(body: dict[str, str], ctx: Context) -> None:
        with meter.running("orders"):
            await asyncio.sleep(0.001)
            if ctx.delivery.attempt == 1:
                raise Retry(after=timedelta(milliseconds=5))

    await add(aredis, 60, "orders")

    assert 0 == await run_burst(app, server.url, max_concurrency=2)
    assert (120, 2) == (meter.ended["orders"], meter.most)


async def test_what_cannot_start_is_left_to_other_workers(server, aredis) -> None:
    """Ten handlers have backlogs and ten places together: beside what runs, one of each waits here; an idle worker gets the rest."""
    streams, gate = [f"s{number}" for number in range(10)], asyncio.Event()

    def serve(app: StreamWorker, ledger: Ledger, until: asyncio.Event | None) -> None:
        for stream in streams:

            @app.handler(stream, name=stream, concurrency=10)
            async def handle(body: dict[str, str]) -> None:
                await ledger.note(body["number"])
                if until is not None:
                    await until.wait()

    app, ledger = an_app(lease=timedelta(seconds=30)), Ledger()
    other, others = an_app(lease=timedelta(seconds=30)), Ledger()
    serve(app, ledger, gate)
    serve(other, others, None)
    for stream in streams:
        for number in range(20):
            await aredis.xadd(stream, {"number": number})

    async with working(app, server.url, max_concurrency=10) as process:
        await ledger.until_count(10)
        async with working(other, server.url):
            await others.until_count(200 - 2 * 10)
            assert process.in_flight <= 2 * 10
            gate.set()
            await ledger.until(lambda seen: len(seen) + len(others.seen) == 200)
