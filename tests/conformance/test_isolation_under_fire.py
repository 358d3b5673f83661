"""Entries whose worker died are run alone, whatever else happens in the process meanwhile; and the process goes on with its work."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from time import monotonic

import pytest
import redis.asyncio
import structlog

from streamworker import Context, Snooze
from streamworker.worker import isolation
from tests.harness import Ledger, an_app, dead_letters, pending, retries_waiting, working
from tests.waiting import eventually

pytestmark = pytest.mark.one_server

LEASE = timedelta(milliseconds=500)


async def leave_behind(
    client: redis.asyncio.Redis, numbers: range, *, stream: str = "orders", group: str = "billing", **fields
) -> None:
    """Entries that were in the hands of a worker when it died."""
    if not await client.exists(stream):
        await client.xgroup_create(stream, group, "$", mkstream=True)
    async with client.pipeline(transaction=True) as pipe:
        for number in numbers:
            pipe.xadd(stream, {"order_id": number, **fields})
        pipe.xreadgroup(group, "dead", {stream: ">"}, count=len(numbers))
        await pipe.execute()


async def add(client: redis.asyncio.Redis, numbers: range, *, stream: str = "orders") -> None:
    for number in numbers:
        await client.xadd(stream, {"order_id": number})


class Runs:
    """Who ran from when to when, in this process."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, int, int, int, float, float]] = []

    def note(self, what: str, ctx: Context, number: str, began: float) -> None:
        self.spans.append((what, int(number), ctx.delivery.attempt, ctx.delivery.crashes, began, monotonic()))

    def of(self, what: str) -> list[tuple[int, int, int]]:
        """Number, attempt and crashes of each run, sorted."""
        return sorted((number, attempt, crashes) for one, number, attempt, crashes, *_ in self.spans if one == what)

    def numbers(self, what: str) -> set[int]:
        return {number for number, *_ in self.of(what)}

    def beside(self, what: str) -> list[tuple[str, int]]:
        """Those that ran while a suspect of `what` did."""
        alone = [span for span in self.spans if span[0] == what and span[3] > 0]
        return [
            (other[0], other[1])
            for one in alone
            for other in self.spans
            if other is not one and other[4] < one[5] and one[4] < other[5]
        ]


def two_groups(runs: Runs):
    """One process, two groups: orders in one, clicks in the other."""
    app = an_app(lease=LEASE)

    @app.handler("orders", concurrency=5)
    async def charge(order: dict[str, str], ctx: Context) -> None:
        began = monotonic()
        await asyncio.sleep(0.01)
        runs.note("orders", ctx, order["order_id"], began)

    @app.handler("clicks", group="counting", concurrency=5)
    async def count(click: dict[str, str], ctx: Context) -> None:
        began = monotonic()
        await asyncio.sleep(0.01)
        runs.note("clicks", ctx, click["order_id"], began)

    return app


async def until(fact, within: float = 15.0) -> None:
    async def holds() -> bool:
        return bool(fact())

    await eventually(holds, within)


async def test_nothing_of_another_group_runs_beside_a_suspect(server, aredis):
    """They share the process, so a death of it would be laid at the wrong door."""
    runs = Runs()
    await leave_behind(aredis, range(10))
    async with working(two_groups(runs), server.url):
        await add(aredis, range(300), stream="clicks")
        await until(lambda: len(runs.numbers("orders")) == 10 and len(runs.numbers("clicks")) == 300)

    assert [(number, 1, 1) for number in range(10)] == runs.of("orders")
    assert [(number, 1, 0) for number in range(300)] == runs.of("clicks")
    assert [] == runs.beside("orders")


async def test_connections_that_are_killed_cost_a_suspect_nothing(server, aredis):
    """While it waits, while it runs, while it is settled: it is run alone to its end, and is blamed for nothing."""
    runs = Runs()
    await leave_behind(aredis, range(30))
    async with working(two_groups(runs), server.url) as process:
        await add(aredis, range(30, 60))
        while len(runs.numbers("orders")) < 60:
            await aredis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.15)
        await eventually(lambda: _is_settled(aredis, process))

    assert {(1, 1)} == {(attempt, crashes) for number, attempt, crashes in runs.of("orders") if number < 30}
    assert {1} == {attempt for _, attempt, _ in runs.of("orders")}
    assert [] == runs.beside("orders")
    assert [] == await dead_letters(aredis)


async def test_a_drain_gives_waiting_suspects_back_uncounted(server, aredis):
    """Those that had no turn are run by the next worker, at the same attempt, with the crash that they had."""
    app, began, runs = an_app(lease=LEASE), asyncio.Event(), Runs()

    @app.handler("orders")
    async def charge(order: dict[str, str], ctx: Context) -> None:
        began.set()
        await asyncio.Event().wait()

    await leave_behind(aredis, range(5))
    async with working(app, server.url) as process:
        process._consumers[0]._reclaimer._page = 5
        await asyncio.wait_for(began.wait(), 10)
        process.drain("the test says so")
        process.hurry()
    left = await pending(aredis)
    async with working(two_groups(runs), server.url):
        await until(lambda: len(runs.numbers("orders")) == 5)

    assert 0 == left
    assert [(number, 1, 1) for number in range(5)] == runs.of("orders")


async def test_a_handler_without_end_costs_the_process_its_suspects_not_its_work(server, aredis):
    """Solitude is given up in time; new entries are handled meanwhile; another worker runs the suspects."""
    app, runs, endless = two_groups(Runs()), Runs(), asyncio.Event()

    @app.handler("endless", group="endless")
    async def never_end(order: dict[str, str]) -> None:
        endless.set()
        await asyncio.Event().wait()

    await add(aredis, range(1), stream="endless")
    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url) as process:
            process._isolation._first_patience = process._isolation._patience = timedelta(milliseconds=200)
            await asyncio.wait_for(endless.wait(), 5)
            await leave_behind(aredis, range(3))
            await until(lambda: any(line["event"] == "delivery.postponed" for line in lines))
            await add(aredis, range(10, 20))
            await eventually(lambda: _none_pending(aredis))
            waiting = await retries_waiting(aredis)
            process.pause(True)  # by chance it would be given them again and again, and make them wait for a minute each time

            # Only while they wait (XX): a due time beside an entry that was moved meanwhile would make it begin anew.
            for member in await aredis.zrange("{orders}:due:billing", 0, -1):
                await aredis.zadd("{orders}:due:billing", {member: 0}, xx=True)
            async with working(two_groups(runs), server.url):
                await until(lambda: runs.numbers("orders") >= {0, 1, 2})

    assert 3 == waiting
    assert {(1, 1)} == {(attempt, crashes) for number, attempt, crashes in runs.of("orders") if number < 3}
    assert [] == await dead_letters(aredis)


async def test_what_ends_badly_alone_is_tried_again_in_company(server, aredis):
    """A suspect that fails, times out or snoozes has run to an end: its worker did not die of it, so it goes the usual way from there."""
    app, ledger = an_app(lease=LEASE), Ledger()

    @app.handler("orders", timeout=timedelta(milliseconds=200))
    async def charge(order: dict[str, str], ctx: Context) -> None:
        await ledger.note((order["way"], ctx.delivery.attempt, ctx.delivery.crashes, ctx.delivery.history.suspect))
        if len([way for way, *_ in ledger.seen if way == order["way"]]) == 1:
            match order["way"]:
                case "failure":
                    raise ValueError
                case "timeout":
                    await asyncio.sleep(5)
                case "snooze":
                    raise Snooze(after=timedelta(milliseconds=10))

    for number, way in enumerate(("failure", "timeout", "snooze")):
        await leave_behind(aredis, range(number, number + 1), way=way)
    async with working(app, server.url) as process:
        await ledger.until_count(6)
        await eventually(lambda: _is_settled(aredis, process))

    assert {("failure", 1, 1, True), ("timeout", 1, 1, True), ("snooze", 1, 1, True)} == {one for one in ledger.seen if one[3]}
    assert {("failure", 2, 1, False), ("timeout", 2, 1, False), ("snooze", 1, 1, False)} == {
        one for one in ledger.seen if not one[3]
    }


async def test_a_suspect_in_a_thread_runs_alone(server, aredis):
    """As well as one in the loop."""
    app, most, seen, alive, lock = an_app(lease=LEASE), [], [], [], threading.Lock()

    @app.handler("orders", concurrency=4)
    def charge(order: dict[str, str], ctx: Context) -> None:
        with lock:
            alive.append(order["order_id"])
            most.append((ctx.delivery.crashes, len(alive)))
        threading.Event().wait(0.02)
        with lock:
            alive.remove(order["order_id"])
            seen.append(int(order["order_id"]))

    await leave_behind(aredis, range(5))
    async with working(app, server.url):
        await add(aredis, range(5, 40))
        await until(lambda: len(seen) == 40)

    assert list(range(40)) == sorted(seen)
    assert {1} == {together for crashes, together in most if crashes}


async def test_a_paused_worker_takes_nothing_over(server, aredis):
    """Neither new entries nor those of a dead worker, until it resumes; what is in its hands goes on."""
    resting, busy, began, may_end = Runs(), Runs(), asyncio.Event(), asyncio.Event()
    app = two_groups(resting)

    @app.handler("held", group="holding")
    async def hold(order: dict[str, str], ctx: Context) -> None:
        began.set()
        await may_end.wait()
        resting.note("held", ctx, order["order_id"], monotonic())

    await add(aredis, range(1), stream="held")
    async with working(app, server.url) as process:
        await asyncio.wait_for(began.wait(), 5)
        process.toggle_pause()
        await until(lambda: all(consumer._reader.is_still for consumer in process._consumers))
        await leave_behind(aredis, range(10))
        async with working(two_groups(busy), server.url):
            await add(aredis, range(10, 20))
            await until(lambda: len(busy.numbers("orders")) == 20)
            meanwhile = resting.numbers("orders")
            may_end.set()
            await until(lambda: resting.numbers("held"))
        await leave_behind(aredis, range(20, 23))
        process.toggle_pause()
        await until(lambda: len(resting.numbers("orders")) == 3)

    assert set() == meanwhile
    assert [(number, 1, 1) for number in range(20, 23)] == resting.of("orders")


async def test_a_fleet_shares_the_suspects(server, aredis):
    """Slow ones that must run alone: each worker takes one at a time, so that two are run at once by two workers."""
    apps, runs = [], [Runs(), Runs()]
    for mine in runs:
        app = an_app(lease=LEASE)

        @app.handler("orders")
        async def charge(order: dict[str, str], ctx: Context, mine: Runs = mine) -> None:
            began = monotonic()
            await asyncio.sleep(0.6)
            mine.note("orders", ctx, order["order_id"], began)

        apps.append(app)
    async with working(apps[0], server.url), working(apps[1], server.url):
        await leave_behind(aredis, range(8))
        await until(lambda: sum(len(mine.spans) for mine in runs) == 8, within=20)

    assert set(range(8)) == runs[0].numbers("orders") | runs[1].numbers("orders")
    assert 3 <= min(len(mine.spans) for mine in runs)
    assert [[], []] == [mine.beside("orders") for mine in runs]


async def test_neither_suspects_nor_new_entries_starve(server, aredis):
    """Two hundred of a dead worker and as many new ones, on two workers: done soon, and none of them all before the others."""
    runs = Runs()
    await leave_behind(aredis, range(200))
    async with working(two_groups(runs), server.url), working(two_groups(runs), server.url):
        await until(lambda: len(runs.numbers("orders")) > 20)
        await add(aredis, range(200, 400))
        await until(lambda: len(runs.numbers("orders")) == 400, within=20)
    order = [number >= 200 for _, number, *_ in runs.spans]

    assert [(number, 1, int(number < 200)) for number in range(400)] == runs.of("orders")
    assert order.index(True) < len(order) - 1 - order[::-1].index(False)


def with_an_endless_suspect(runs: Runs, began: asyncio.Event):
    """An application in which one kind of order never ends."""
    app = an_app(lease=LEASE)

    @app.handler("orders", concurrency=1)
    async def charge(order: dict[str, str], ctx: Context) -> None:
        if order.get("way") == "endless":
            began.set()
            await asyncio.Event().wait()
        runs.note("orders", ctx, order["order_id"], monotonic())

    @app.handler("clicks")
    async def count(click: dict[str, str], ctx: Context) -> None:
        runs.note("clicks", ctx, click["order_id"], monotonic())

    return app


async def test_a_suspect_without_end_does_not_keep_its_process_for_ever(server, aredis):
    """After its time alone others begin beside it, but not in its own lane; a death after that is not laid at its door."""
    runs, began = Runs(), asyncio.Event()
    await leave_behind(aredis, range(1), way="endless")
    with structlog.testing.capture_logs() as lines:
        async with working(with_an_endless_suspect(runs, began), server.url) as process:
            process._isolation._first_patience = timedelta(milliseconds=300)
            await asyncio.wait_for(began.wait(), 10)
            await add(aredis, range(5), stream="clicks")
            await add(aredis, range(1, 2))
            await until(lambda: len(runs.numbers("clicks")) == 5)
            [entry] = await aredis.xpending_range("orders", "billing", "-", "+", 10)
            beside = runs.numbers("orders")

    assert 1_000_004 == entry["times_delivered"]
    assert set() == beside
    assert ["delivery.outstays"] == [line["event"] for line in lines if line["event"] == "delivery.outstays"]


async def test_the_time_alone_is_longer_the_next_time(server, aredis):
    """So that an entry that kills its worker late is found out in the end."""
    runs, began = Runs(), asyncio.Event()
    await leave_behind(aredis, range(1), way="endless")
    await aredis.xclaim("orders", "billing", "dead", 0, await _ids(aredis), retrycount=3_000_002, justid=True)
    async with working(with_an_endless_suspect(runs, began), server.url) as process:
        process._isolation._first_patience = timedelta(milliseconds=100)
        await asyncio.wait_for(began.wait(), 10)
        alone_since = monotonic()
        await add(aredis, range(1), stream="clicks")
        await until(lambda: runs.numbers("clicks"))
        seconds = monotonic() - alone_since

    assert 0.75 < seconds


async def test_a_process_that_cannot_begin_anything_does_not_count_as_reading(server, aredis, monkeypatch):
    """Readiness says so, and why; and is back when it begins again."""
    monkeypatch.setattr(isolation, "LONG_SECONDS", 0.1)
    runs, began = Runs(), asyncio.Event()
    await leave_behind(aredis, range(1), way="endless")
    async with working(with_an_endless_suspect(runs, began), server.url) as process:
        process._isolation._first_patience = timedelta(seconds=1)
        await asyncio.wait_for(began.wait(), 10)
        await until(lambda: process.status().solitary)
        during = process.status()
        await until(lambda: process.status().reading)

    assert (False, True) == (during.reading, during.connected)


async def test_sweeps_go_on_where_nobody_can_be_alone(server, aredis):
    """What has killed too many workers is set aside, and what would have to run alone is left to others for a while."""
    app, endless = two_groups(Runs()), asyncio.Event()

    @app.handler("endless", group="endless")
    async def never_end(order: dict[str, str]) -> None:
        endless.set()
        await asyncio.Event().wait()

    await add(aredis, range(1), stream="endless")
    async with working(app, server.url) as process:
        await asyncio.wait_for(endless.wait(), 5)
        process._isolation.rest(timedelta(hours=1))
        await leave_behind(aredis, range(2))
        first = (await _ids(aredis))[0]
        await aredis.xclaim("orders", "billing", "dead", 0, [first], retrycount=3_007, justid=True)
        await eventually(lambda: _none_pending(aredis), within=15)
        waiting = await retries_waiting(aredis)

    [letter] = await dead_letters(aredis)
    assert ("crashed", first) == (letter.notes["reason"], letter.notes["id"])
    assert "WorkerDied: 4 workers died while it ran alone, without a verdict" == letter.notes["error"]
    assert 1 == waiting


async def test_the_time_of_a_delivery_is_without_its_waiting(server, aredis):
    """One that waits for a slow one to end has not taken that long itself."""
    app, began, may_end = an_app(lease=LEASE), asyncio.Event(), asyncio.Event()

    @app.handler("slow", group="slow")
    async def be_slow(order: dict[str, str]) -> None:
        began.set()
        await may_end.wait()

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        pass

    await add(aredis, range(1), stream="slow")
    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url) as process:
            await asyncio.wait_for(began.wait(), 5)
            await leave_behind(aredis, range(1))
            await until(lambda: process._isolation.wanted)
            waited_since = monotonic()
            await until(lambda: monotonic() - waited_since > 0.5)
            may_end.set()
            await until(lambda: any(line["event"] == "delivery.acked" and line["stream"] == "orders" for line in lines))
    [line] = [line for line in lines if line["event"] == "delivery.acked" and line["stream"] == "orders"]

    assert line["duration_ms"] < 400


async def _ids(client) -> list[str]:
    return [one["message_id"].decode() for one in await client.xpending_range("orders", "billing", "-", "+", 10)]


async def _is_settled(client, process) -> bool:
    return process.in_flight == 0 and await pending(client) == 0


async def _none_pending(client) -> bool:
    return await pending(client) == 0
