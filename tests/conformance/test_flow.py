"""Rates, pauses and kill switches with several workers on real servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
import redis.asyncio
import structlog

from streamworker import Backoff, Context, KillSwitch, RateLimit, RetryPolicy, StreamWorker
from streamworker.streams.keys import keys_of, rate_key
from streamworker.supervisor.verdicts import Seen, ready
from streamworker.worker.process import WorkerProcess
from streamworker.worker.status import Watched
from tests.harness import Ledger, an_app, dead_letters, pending, retries_waiting, working
from tests.waiting import eventually

pytestmark = pytest.mark.matrix

SECOND = timedelta(seconds=1)
SEEN_WITHIN = 2.5


async def add(client: redis.asyncio.Redis, count: int, stream: str = "orders", **fields: Any) -> None:
    async with client.pipeline(transaction=False) as pipe:
        for number in range(count):
            pipe.xadd(stream, {"n": number, **fields})
        await pipe.execute()


async def becomes(fact: Callable[[], object], within: float = 10.0) -> None:
    async def is_so() -> object:
        return fact()

    await eventually(is_so, within)


async def fleet(stack: AsyncExitStack, url: str, build: Callable[[], StreamWorker], workers: int) -> list[WorkerProcess]:
    """Several workers, each with an application of its own, as in several processes."""
    return [await stack.enter_async_context(working(build(), url)) for _ in range(workers)]


def events_of(lines: Sequence[Mapping[str, Any]]) -> set[str]:
    return {line["event"] for line in lines}


def worst_excess(starts: list[float], limit: RateLimit) -> float:
    """By how much the starts in some length of time were more than the limit lets through."""
    rate, burst = limit.count / limit.per.total_seconds(), limit.burst or 0
    starts = sorted(starts)
    return max(
        later - first + 1 - rate * (starts[later] - starts[first]) - burst
        for first in range(len(starts))
        for later in range(first, len(starts))
    )


# ---- rate limits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "entries", "options"),
    [
        (RateLimit(100, burst=20), 180, {}),
        (RateLimit(100, burst=20), 180, {"ordering_key": "n"}),
        (RateLimit(4, burst=1, per=2 * SECOND), 4, {"concurrency": 3}),
    ],
    ids=["many", "ordered", "single"],
)
async def test_a_fleet_keeps_its_rate_over_any_time(server, aredis, limit, entries, options):
    """Three workers start no more than the rate and the burst, lose hardly anything of it, and every entry runs once."""
    ledger = Ledger()

    def build() -> StreamWorker:
        app = an_app()

        @app.handler("orders", rate_limit=limit, **options)
        async def call(body: dict[str, str]) -> None:
            await ledger.note((time.monotonic(), int(body["n"])))

        return app

    async with AsyncExitStack() as stack:
        await fleet(stack, server.url, build, 3)
        await add(aredis, entries)
        await ledger.until_count(entries, within=20)

    starts = [at for at, _ in ledger.seen]
    assert {*range(entries)} == {number for _, number in ledger.seen}
    assert 0.01 >= worst_excess(starts, limit)
    at_least = max(0, entries - (limit.burst or 0)) / limit.count * limit.per.total_seconds()
    assert 1.6 * at_least + 1 > max(starts) - min(starts)


async def test_retries_count_for_the_rate(server, aredis):
    """An entry that fails twice takes three permits."""
    ledger, limit = Ledger(), RateLimit(40, burst=8)
    app = an_app()

    @app.handler("orders", rate_limit=limit)
    async def call(body: dict[str, str], ctx: Context) -> None:
        await ledger.note(time.monotonic())
        if ctx.delivery.attempt <= 2:
            raise ConnectionError("down")

    async with working(app, server.url):
        await add(aredis, 20)
        await ledger.until_count(60, within=20)

    assert 0.01 >= worst_excess(ledger.seen, limit)
    assert [] == await dead_letters(aredis)


async def test_a_batch_takes_a_permit_for_each_entry(server, aredis):
    """Batches stay whole, and wait until all of their entries may start."""
    ledger, limit = Ledger(), RateLimit(100, burst=30)

    def build() -> StreamWorker:
        app = an_app()

        @app.batch_handler("orders", max_size=10, max_wait=timedelta(milliseconds=30), rate_limit=limit)
        async def call(bodies: list[dict[str, str]]) -> None:
            await ledger.note((time.monotonic(), [int(body["n"]) for body in bodies]))

        return app

    async with AsyncExitStack() as stack:
        await fleet(stack, server.url, build, 2)
        await add(aredis, 150)
        await ledger.until(lambda seen: sum(len(batch) for _, batch in seen) >= 150, within=20)

    assert 0.01 >= worst_excess([at for at, batch in ledger.seen for _ in batch], limit)
    assert 30 > len(ledger.seen)


async def test_other_handlers_of_the_stream_do_not_wait_for_a_rate(server, aredis):
    """What may not start yet is put aside, uncounted; all of it runs in the end."""
    ledger = Ledger()
    app = an_app()

    @app.handler("orders", type="slow", rate_limit=RateLimit(2, burst=1), concurrency=2)
    async def slow(body: dict[str, str]) -> None:
        await ledger.note("slow")

    @app.handler("orders")
    async def quick(body: dict[str, str]) -> None:
        await ledger.note("quick")

    async with working(app, server.url):
        await add(aredis, 6, _type="slow")
        await add(aredis, 300)
        await ledger.until(lambda seen: seen.count("quick") == 300, within=5)
        assert 6 > ledger.seen.count("slow")
        await ledger.until(lambda seen: seen.count("slow") == 6, within=20)

    assert [] == await dead_letters(aredis)


async def test_nothing_starts_without_permits_where_the_server_gives_none(server, aredis):
    """It is said, and goes on when the server does."""
    ledger = Ledger()
    app = an_app()
    key = rate_key("orders", "billing", "call")
    await aredis.rpush(key, "not a time")

    @app.handler("orders", rate_limit=RateLimit(100))
    async def call(body: dict[str, str]) -> None:
        await ledger.note(body["n"])

    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url):
            await add(aredis, 5)
            await becomes(lambda: "rate_limit.failing" in events_of(lines))
            assert [] == ledger.seen
            await aredis.delete(key)
            await ledger.until_count(5)
            await becomes(lambda: "rate_limit.recovered" in events_of(lines))


# ---- pauses --------------------------------------------------------------------------------------------------------------------


def seen_by(workers: list[WorkerProcess], *names: str) -> Callable[[], bool]:
    return lambda: all(worker.status().paused_handlers == names for worker in workers)


async def test_a_pause_holds_in_every_process_and_after_a_restart(server, aredis):
    """What runs ends, nothing new starts, the other handler goes on, nothing stays pending; a resume lets all of it run, once."""
    ledger, may_end = Ledger(), asyncio.Event()

    def build() -> StreamWorker:
        app = an_app(redis_url=server.url)

        @app.handler("orders", type="charge")
        async def charge(body: dict[str, str]) -> None:
            await ledger.note(("charge", body["n"]))
            if body["n"] == "first":
                await may_end.wait()

        @app.handler("orders")
        async def note(body: dict[str, str]) -> None:
            await ledger.note(("note", body["n"]))

        return app

    async with AsyncExitStack() as stack:
        admin = build()
        workers = await fleet(stack, server.url, build, 2)
        await aredis.xadd("orders", {"n": "first", "_type": "charge"})
        await ledger.until_count(1)

        assert await admin.pause("charge", reason="the bank\nis closed")
        await becomes(seen_by(workers, "charge"), within=SEEN_WITHIN)
        await add(aredis, 30, _type="charge")
        await add(aredis, 30)
        await ledger.until_count(31)
        may_end.set()
        workers += [await stack.enter_async_context(working(build(), server.url))]
        await add(aredis, 30, _type="charge")
        await eventually(lambda: _all_is_put_aside(aredis, 60))

        assert 1 == sum(name == "charge" for name, _ in ledger.seen)
        assert ready(Seen([Watched(1, workers[0].status(), 0.0)]), SECOND).ok
        assert {"charge": "the bank is closed"} == {name: pause.reason for name, pause in (await admin.paused()).items()}

        assert await admin.resume("charge")
        assert not await admin.resume("charge")
        await ledger.until(lambda seen: sum(name == "charge" for name, _ in seen) == 61, within=45)
        await eventually(lambda: _is_all_done(aredis))

    assert 91 == len(ledger.seen)
    assert [] == await dead_letters(aredis)


async def test_a_paused_handler_with_its_own_stream_leaves_it_unread(server, aredis):
    """Nothing is delivered meanwhile; and the resume is seen within two seconds."""
    ledger = Ledger()
    app = an_app(redis_url=server.url)

    @app.handler("orders")
    async def charge(body: dict[str, str]) -> None:
        await ledger.note(body["n"])

    @app.handler("clicks")
    async def count(body: dict[str, str]) -> None:
        await ledger.note("click")

    await app.pause("charge")
    async with working(app, server.url):
        await add(aredis, 5)
        await add(aredis, 5, stream="clicks")
        await ledger.until_count(5)
        assert ["click"] * 5 == ledger.seen
        assert (0, 0, 0) == (await pending(aredis), await retries_waiting(aredis), await _undelivered_retries(aredis))
        await app.resume("charge")
        await ledger.until_count(10, within=SEEN_WITHIN)


async def test_what_waits_in_order_keeps_it_over_a_pause(server, aredis):
    """It was read before, and is not given back, for it would lose its place."""
    ledger, may_end = Ledger(), asyncio.Event()
    app = an_app(redis_url=server.url)

    @app.handler("orders", ordering_key="_key", concurrency=1)
    async def charge(body: dict[str, str]) -> None:
        await ledger.note(int(body["n"]))
        if body["n"] == "0":
            await may_end.wait()

    async with working(app, server.url) as worker:
        await add(aredis, 20, _key="k")
        await ledger.until_count(1)
        await app.pause("charge")
        await becomes(seen_by([worker], "charge"), within=SEEN_WITHIN)
        may_end.set()
        await becomes(lambda: worker.status().deliveries == 1)
        assert [0] == ledger.seen
        await app.resume("charge")
        await ledger.until_count(20)

    assert [*range(20)] == ledger.seen


async def test_a_key_of_pauses_that_is_none_is_said_and_holds_up_nothing(server, aredis):
    """Somebody wrote something else there: nothing is known to be paused."""
    ledger = Ledger()
    app = an_app()

    @app.handler("orders")
    async def charge(body: dict[str, str]) -> None:
        await ledger.note(body["n"])

    await aredis.set(keys_of("orders", "billing").paused, "x")
    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url):
            await add(aredis, 3)
            await ledger.until_count(3)
    assert "pausing.failing" in events_of(lines)


# ---- kill switches -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["single", "batch", "ordered"])
async def test_a_dead_downstream_does_not_burn_the_attempts(server, aredis, kind):
    """Each entry spends an attempt or two and not all; while one handler rests, the other goes on; after the trouble all run."""
    ledger, is_down = Ledger(), [True]
    app = an_app(retry=RetryPolicy(max_attempts=5, backoff=Backoff.constant(timedelta(milliseconds=20))))
    switch = KillSwitch(after=5, share=0.6, rest=timedelta(milliseconds=300))

    async def work(bodies: list[dict[str, str]]) -> None:
        for body in bodies:
            await ledger.note(body["n"])
        if is_down[0]:
            raise ConnectionError("down")

    if kind == "batch":
        app.batch_handler("orders", max_size=5, max_wait=timedelta(milliseconds=10), kill_switch=switch, name="call")(
            work_of_batch(work)
        )
    else:
        options: dict[str, Any] = {"ordering_key": "n"} if kind == "ordered" else {}

        @app.handler("orders", kill_switch=switch, concurrency=4, **options)
        async def call(body: dict[str, str]) -> None:
            await work([body])

    @app.handler("clicks")
    async def count(body: dict[str, str]) -> None:
        await ledger.note("click")

    async with working(app, server.url) as worker:
        await add(aredis, 60)
        await becomes(lambda: worker.status().resting_handlers == ("call",))
        await asyncio.sleep(2)  # let it rest and try several times: what is claimed is that little happens meanwhile
        assert 60 > len(ledger.seen)
        assert worker.status().reading
        await add(aredis, 5, stream="clicks")
        await ledger.until(lambda seen: seen.count("click") == 5)
        is_down[0] = False
        await eventually(lambda: _is_all_done(aredis), within=20)
        assert () == worker.status().resting_handlers

    assert {str(number) for number in range(60)} <= {*ledger.seen}
    assert [] == await dead_letters(aredis)


def work_of_batch(work: Callable[[list[dict[str, str]]], Any]) -> Any:
    async def call(bodies: list[dict[str, str]]) -> None:
        await work(bodies)

    return call


# ---- what lies on the server ---------------------------------------------------------------------------------------------------


async def _undelivered_retries(client: redis.asyncio.Redis) -> int:
    return int(await client.xlen("{orders}:retry:billing"))


async def _all_is_put_aside(client: redis.asyncio.Redis, count: int) -> bool:
    """Nothing is pending, and so many wait elsewhere."""
    aside = await retries_waiting(client) + await _undelivered_retries(client)
    return await pending(client) == 0 and aside == count and await retries_waiting(client) > 0


async def _is_all_done(client: redis.asyncio.Redis) -> bool:
    info = await client.xinfo_groups("orders")
    newest = (await client.xinfo_stream("orders"))["last-generated-id"]
    left = await pending(client) + await retries_waiting(client) + await _undelivered_retries(client)
    return left == 0 and info[0]["last-delivered-id"] == newest
