"""Batch handlers on every real server: when a batch is closed, and that each of its entries has its own verdict."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis.asyncio
from pydantic import BaseModel

from streamworker import (
    Backoff,
    BatchContext,
    Context,
    Idempotency,
    Reject,
    RequestFailed,
    Retry,
    RetryPolicy,
    Snooze,
    StreamWorker,
)
from streamworker.settings import Settings
from tests.harness import Ledger, an_app, dead_letters, pending, retries_waiting, run_burst, working
from tests.waiting import eventually

pytestmark = pytest.mark.matrix

AT_ONCE, SOON, NEVER = timedelta(0), timedelta(milliseconds=50), timedelta(hours=1)


class Order(BaseModel):
    order_id: int
    note: str = ""


async def add(client: redis.asyncio.Redis, *numbers: int, stream: str = "orders", **fields: Any) -> None:
    async with client.pipeline(transaction=False) as pipe:
        for number in numbers:
            pipe.xadd(stream, {"order_id": number, **fields})
        await pipe.execute()


async def becomes(fact: Callable[[], object], within: float = 10.0) -> None:
    """Wait until it is so, and let the loop go on meanwhile."""

    async def is_so() -> object:
        return fact()

    await eventually(is_so, within)


async def numbers_of(client: redis.asyncio.Redis, stream: str) -> list[int]:
    return [int(fields[b"order_id"]) for _, fields in await client.xrange(stream)]


# ---- when it is closed ------------------------------------------------------------------------------------------------------


async def test_a_full_batch_starts_at_once_and_the_rest_when_its_time_has_come(server, aredis):
    """Of 25 entries, two tens wait for nothing, and five for max_wait; every entry is acknowledged, in the order of the stream."""
    app = an_app()
    batches: list[list[int]] = []

    @app.batch_handler("orders", max_size=10, max_wait=timedelta(milliseconds=200))
    async def charge(orders: list[Order]) -> None:
        batches.append([order.order_id for order in orders])

    await add(aredis, *range(25))
    code = await run_burst(app, server.url)

    assert 0 == code
    assert [[*range(10)], [*range(10, 20)], [*range(20, 25)]] == batches
    assert 0 == await pending(aredis)
    assert [] == await dead_letters(aredis)


async def test_a_batch_waits_for_its_time_from_its_first_entry_on(server, aredis):
    """Entries that come one by one are handled together, and not before."""
    app = an_app()
    ledger = Ledger()

    @app.batch_handler("orders", max_size=100, max_wait=timedelta(milliseconds=700))
    async def charge(orders: list[Order]) -> None:
        await ledger.note([order.order_id for order in orders])

    async with working(app, server.url) as worker:
        for number in range(3):
            await add(aredis, number)
            await becomes(lambda held=number + 1: worker.in_flight == held, within=0.6)
        assert [] == ledger.seen
        await ledger.until_count(1)

    assert [[0, 1, 2]] == ledger.seen


async def test_a_batch_of_a_wait_of_nothing_takes_what_is_there(server, aredis):
    """What one read brought is one batch, and a single entry does not wait."""
    app = an_app()
    ledger = Ledger()

    @app.batch_handler("orders", max_size=100, max_wait=AT_ONCE, concurrency=1)
    async def charge(orders: list[Order]) -> None:
        await ledger.note([order.order_id for order in orders])

    await add(aredis, *range(5))
    async with working(app, server.url):
        await ledger.until_count(1)
        await add(aredis, 5)
        await ledger.until_count(2)

    assert [[0, 1, 2, 3, 4], [5]] == ledger.seen


async def test_a_batch_never_holds_more_bytes_than_it_may(server, aredis):
    """One that would is closed before; an entry that is too large by itself is a batch of one."""
    app = an_app()
    batches: list[list[int]] = []

    @app.batch_handler("orders", max_size=100, max_wait=SOON, max_bytes=1_000)
    async def charge(orders: list[Order]) -> None:
        batches.append([order.order_id for order in orders])

    await add(aredis, *range(5), note="x" * 300)
    await add(aredis, 5, note="x" * 3_000)
    await add(aredis, 6)
    await run_burst(app, server.url)

    assert [[0, 1, 2], [3, 4], [5], [6]] == batches


async def test_concurrency_counts_batches(server, aredis):
    """Two run at once, though there is enough for four; the others follow."""
    app = an_app()
    running, most, gate = 0, 0, asyncio.Event()

    @app.batch_handler("orders", max_size=5, max_wait=SOON, concurrency=2)
    async def charge(orders: list[Order]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:
            gate.set()
        await gate.wait()
        running -= 1

    await add(aredis, *range(20))
    await run_burst(app, server.url)

    assert 2 == most
    assert 0 == await pending(aredis)


async def test_a_batch_that_memory_is_too_small_for_starts_with_what_there_is(server, aredis):
    """It does not wait for entries that cannot be read while it holds what it holds."""
    app = an_app()
    seen: list[int] = []

    @app.batch_handler("orders", max_size=1_000, max_wait=NEVER)
    async def charge(orders: list[Order]) -> None:
        seen.extend(order.order_id for order in orders)

    await add(aredis, *range(99), note="x" * 1_000)
    async with working(app, server.url, in_flight_bytes=8_000):
        await becomes(lambda: len(seen) > 90, within=20)

    assert [*range(len(seen))] == seen


async def test_one_batch_may_be_of_several_streams(server, aredis):
    """Each entry is acknowledged in its own."""
    app = an_app()
    batches: list[list[str]] = []

    @app.batch_handler("orders", "refunds", max_size=4, max_wait=timedelta(seconds=1))
    async def charge(orders: list[Order], ctx: BatchContext) -> None:
        batches.append(sorted(delivery.stream for delivery in ctx.deliveries))

    await add(aredis, 0, 1)
    await add(aredis, 2, 3, stream="refunds")
    await run_burst(app, server.url)

    assert [["orders", "orders", "refunds", "refunds"]] == batches
    assert (0, 0) == (await pending(aredis), await pending(aredis, "refunds"))


async def test_entries_for_batches_and_for_single_handlers_share_a_stream(server, aredis):
    """By their type."""
    app = an_app()
    batches: list[list[int]] = []
    singles: list[int] = []

    @app.batch_handler("orders", type="many", max_size=10, max_wait=SOON)
    async def charge_many(orders: list[Order]) -> None:
        batches.append([order.order_id for order in orders])

    @app.handler("orders")
    async def charge(order: Order) -> None:
        singles.append(order.order_id)

    await add(aredis, 0, 1, _type="many")
    await add(aredis, 2)
    await add(aredis, 3, _type="many")
    await run_burst(app, server.url)

    assert ([[0, 1, 3]], [2]) == (batches, singles)


# ---- what becomes of each entry -------------------------------------------------------------------------------------------------


async def test_only_what_is_said_to_have_failed_is_retried(server, aredis):
    """By position; each has its own attempts, backoff and dead letter, and the reason that was given."""
    app = an_app()
    seen: dict[int, list[int]] = {}

    @app.batch_handler("orders", max_size=10, max_wait=SOON)
    async def charge(orders: list[Order], ctx: BatchContext) -> None:
        for position, (order, delivery) in enumerate(zip(orders, ctx.deliveries, strict=True)):
            seen.setdefault(order.order_id, []).append(delivery.attempt)
            if order.order_id in (3, 7) and delivery.attempt == 1:
                ctx.fail(position, "not yet")
            if order.order_id == 5:
                ctx.fail(position, "card expired")

    await add(aredis, *range(10))
    await run_burst(app, server.url)
    [letter] = await dead_letters(aredis)

    assert {number: [1] for number in (0, 1, 2, 4, 6, 8, 9)} | {3: [1, 2], 7: [1, 2], 5: [1, 2, 3]} == seen
    assert ("exhausted", "3", "EntryFailed: card expired") == tuple(letter.notes[n] for n in ("reason", "attempts", "error"))
    assert 0 == await pending(aredis)
    assert 0 == await aredis.xlen("{orders}:retry:billing")


async def test_what_a_handler_returns_says_the_same(server, aredis):
    """A mapping of positions to exceptions, which decide as if they were raised: Reject, Snooze, Retry, and hopeless types."""
    app = an_app(retry=RetryPolicy(max_attempts=2, backoff=Backoff.constant(timedelta(milliseconds=10)), give_up_on=KeyError))
    verdicts = {
        "reject": Reject("never"),
        "snooze": Snooze(after=timedelta(milliseconds=10)),
        "retry": Retry(after=timedelta(milliseconds=10)),
        "hopeless": KeyError("x"),
    }
    attempts: dict[str, list[int]] = {}

    @app.batch_handler("orders", max_size=10, max_wait=SOON)
    async def charge(orders: list[Order], ctx: BatchContext) -> dict[int, BaseException]:
        failed: dict[int, BaseException] = {}
        for position, order in enumerate(orders):
            runs = attempts.setdefault(order.note, [])
            runs.append(ctx.deliveries[position].attempt)
            if order.note in verdicts and len(runs) < 4:
                failed[position] = verdicts[order.note]
        return failed

    for note in (*verdicts, "fine"):
        await add(aredis, 0, note=note)
    await run_burst(app, server.url)
    reasons = sorted((letter.notes["reason"], letter.notes["attempts"]) for letter in await dead_letters(aredis))

    assert {"reject": [1], "snooze": [1, 1, 1, 1], "retry": [1, 2], "hopeless": [1], "fine": [1]} == attempts
    assert [("exhausted", "2"), ("rejected", "1"), ("unretryable", "1")] == reasons


@pytest.mark.parametrize("returned", [[1, 3], {9: "beyond"}, {"1": "no position"}, {-1: "from the end"}, 0], ids=repr)
async def test_what_cannot_be_understood_acknowledges_nothing(server, aredis, returned):
    """A list of positions is no mapping, and a position outside of the list names nobody: all have failed, rather than the wrong ones."""
    app = an_app(retry=RetryPolicy(max_attempts=1))

    @app.batch_handler("orders", max_size=5, max_wait=SOON)
    async def charge(orders: list[Order]) -> Any:
        return returned

    await add(aredis, *range(5))
    await run_burst(app, server.url)

    assert 5 == len(await dead_letters(aredis))


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_an_exception_fails_every_entry(server, aredis, kind):
    """Each for itself; one that had its own reason by then keeps that. They come back in one batch, or in several."""
    app = an_app(retry=RetryPolicy(max_attempts=2, backoff=Backoff.constant(timedelta(milliseconds=10))))
    attempts: list[int] = []

    def charge(orders: list[Order], ctx: BatchContext) -> None:
        attempts.extend(delivery.attempt for delivery in ctx.deliveries)
        for position, order in enumerate(orders):
            if order.order_id == 2:
                ctx.fail(position, Reject("this one never"))
        raise ConnectionError("the store is gone")

    async def charge_async(orders: list[Order], ctx: BatchContext) -> None:
        charge(orders, ctx)

    app.batch_handler("orders", max_size=5, max_wait=SOON)(charge if kind == "thread" else charge_async)
    await add(aredis, *range(5))
    await run_burst(app, server.url)
    letters = await dead_letters(aredis)

    assert [1] * 5 + [2] * 4 == sorted(attempts)
    assert ["exhausted"] * 4 + ["rejected"] == sorted(letter.notes["reason"] for letter in letters)
    assert 4 == sum("ConnectionError: the store is gone" == letter.notes["error"] for letter in letters)


async def test_what_cannot_be_read_is_set_aside_before_the_handler_sees_the_list(server, aredis):
    """Positions count what the handler was given; where nothing is left it is not called at all."""
    app = an_app()
    batches: list[list[int]] = []

    @app.batch_handler("orders", max_size=4, max_wait=SOON)
    async def charge(orders: list[Order], ctx: BatchContext) -> None:
        batches.append([order.order_id for order in orders])
        assert len(orders) == len(ctx.deliveries)
        if orders[-1].order_id == 3:
            ctx.fail(len(orders) - 1, Reject("three"))

    for value in ("0", "one", "2", "3", "four", "five", "six", "seven"):
        await aredis.xadd("orders", {"order_id": value})
    await run_burst(app, server.url)
    letters = {letter.fields[1]: letter.notes["reason"] for letter in await dead_letters(aredis)}

    assert [[0, 2, 3]] == batches
    assert dict.fromkeys((b"one", b"four", b"five", b"six", b"seven"), "malformed") | {b"3": "rejected"} == letters


async def test_what_is_published_for_an_entry_commits_with_its_acknowledgement(server, aredis):
    """Once for each that went well; not at all for one that failed, however often it is tried."""
    app = an_app()

    @app.batch_handler("orders", max_size=10, max_wait=SOON)
    async def charge(orders: list[Order], ctx: BatchContext) -> None:
        for position, order in enumerate(orders):
            await ctx.publish(position, "invoices", order)
            if order.order_id % 3 == 0:
                ctx.fail(position, "odd third")

    await add(aredis, *range(10))
    await run_burst(app, server.url)

    assert [1, 2, 4, 5, 7, 8] == sorted(await numbers_of(aredis, "invoices"))
    assert 4 == len(await dead_letters(aredis))
    assert 0 == await pending(aredis)


async def test_a_publish_that_the_server_refuses_fails_its_own_entry(server, aredis):
    """The others are acknowledged."""
    app = an_app()

    @app.batch_handler("orders", max_size=4, max_wait=SOON)
    async def charge(orders: list[Order], ctx: BatchContext) -> None:
        for position, order in enumerate(orders):
            ctx.publish(position, "no-stream" if order.order_id == 2 else "invoices", order)

    await aredis.set("no-stream", "a string")
    await add(aredis, *range(4))
    await run_burst(app, server.url)
    [letter] = await dead_letters(aredis)

    assert [0, 1, 3] == sorted(await numbers_of(aredis, "invoices"))
    assert (b"2", "3") == (letter.fields[1], letter.notes["attempts"])


async def test_a_batch_that_takes_too_long_fails_as_a_whole(server, aredis):
    """Its entries time out, each counted for itself."""
    app = an_app(retry=RetryPolicy(max_attempts=1))

    @app.batch_handler("orders", max_size=3, max_wait=SOON, timeout=timedelta(milliseconds=50))
    async def charge(orders: list[Order]) -> None:
        await asyncio.Event().wait()

    await add(aredis, *range(3))
    await run_burst(app, server.url)

    assert ["HandlerTimeout: charge ran longer than 0:00:00.050000"] * 3 == [x.notes["error"] for x in await dead_letters(aredis)]


async def test_a_thread_past_its_timeout_keeps_the_place_of_its_batch(server, aredis):
    """Its entries have failed; nothing else starts or is read in its place until the thread has ended."""
    app = an_app(retry=RetryPolicy(max_attempts=1))
    gate = threading.Event()
    batches: list[int] = []

    @app.batch_handler("orders", max_size=3, max_wait=SOON, timeout=timedelta(milliseconds=50), concurrency=1)
    def charge(orders: list[Order]) -> None:
        batches.append(len(orders))
        if len(batches) == 1:
            gate.wait()

    try:
        await add(aredis, *range(3))
        async with working(app, server.url) as worker:

            async def has_failed() -> bool:
                return len(await dead_letters(aredis)) == 3 and worker.in_flight == 0

            await eventually(has_failed)
            await add(aredis, *range(3, 6))
            assert 0 == worker.in_flight
            assert [3] == batches
            gate.set()
            await becomes(lambda: batches == [3, 3])
    finally:
        gate.set()


async def test_a_handler_that_cancels_its_own_task_has_failed(server, aredis):
    """All its entries, once; the worker goes on."""
    app = an_app(retry=RetryPolicy(max_attempts=1))

    @app.batch_handler("orders", max_size=3, max_wait=SOON)
    async def charge(orders: list[Order]) -> None:
        task = asyncio.current_task()
        if orders[0].order_id == 0 and task is not None:
            task.cancel()
            await asyncio.sleep(0)

    await add(aredis, *range(6))
    await run_burst(app, server.url)

    assert 3 == len(await dead_letters(aredis))
    assert 0 == await pending(aredis)


async def test_middleware_is_called_once_around_a_batch(server, aredis):
    """It may call the handler again after it has dropped what was said so far."""
    app = an_app()
    calls: list[int] = []
    runs = 0

    @app.middleware
    async def again(ctx: Context | BatchContext, call_next: Any) -> None:
        calls.append(len(ctx.body))
        await call_next(ctx)
        if isinstance(ctx, BatchContext):
            ctx.forget()
        await call_next(ctx)

    @app.batch_handler("orders", max_size=4, max_wait=SOON)
    async def charge(orders: list[Order], ctx: BatchContext) -> None:
        nonlocal runs
        runs += 1
        ctx.publish(0, "invoices", orders[0])
        if runs == 1:
            ctx.fail(1, Reject("only the first time"))

    await add(aredis, *range(4))
    await run_burst(app, server.url)

    assert ([4], 2) == (calls, runs)
    assert [0] == await numbers_of(aredis, "invoices")
    assert [] == await dead_letters(aredis)


async def test_a_middleware_that_forgets_to_await_acknowledges_nothing(server, aredis):
    """The handler has not run, so every entry has failed."""
    app = an_app(retry=RetryPolicy(max_attempts=1))

    @app.middleware
    async def forget(ctx: Context | BatchContext, call_next: Any) -> None:
        call_next(ctx).close()

    @app.batch_handler("orders", max_size=3, max_wait=SOON)
    async def charge(orders: list[Order]) -> None:
        raise AssertionError("it must not run")

    await add(aredis, *range(3))
    await run_burst(app, server.url)

    assert 3 == sum("without awaiting it" in letter.notes["error"] for letter in await dead_letters(aredis))


# ---- leases, drains, deaths -------------------------------------------------------------------------------------------------------


async def test_entries_that_wait_in_a_batch_are_held_under_their_leases(server, aredis):
    """For several leases; another worker that looks for something to take over finds nothing."""
    app = an_app(lease=timedelta(milliseconds=400))
    ledger = Ledger()

    @app.batch_handler("orders", max_size=100, max_wait=timedelta(seconds=2))
    async def charge(orders: list[Order], ctx: BatchContext) -> None:
        await ledger.note([(order.order_id, delivery.crashes) for order, delivery in zip(orders, ctx.deliveries, strict=True)])

    async with working(app, server.url), working(app, server.url):
        await add(aredis, 0, 1)
        await ledger.until(lambda seen: sum(map(len, seen)) == 2)

    assert [(0, 0), (1, 0)] == sorted(one for batch in ledger.seen for one in batch)
    assert 0 == await pending(aredis)


async def test_an_entry_that_is_taken_away_leaves_its_batch_and_the_others_are_settled(server, aredis):
    """Another consumer claims one of three while they run: what is published with that one is not, and the batch is not stopped."""
    app = an_app(lease=timedelta(milliseconds=400))
    started, lost = asyncio.Event(), asyncio.Event()

    @app.batch_handler("orders", max_size=3, max_wait=SOON)
    async def charge(orders: list[Order], ctx: BatchContext) -> None:
        for position, order in enumerate(orders):
            ctx.publish(position, "invoices", order)
        started.set()
        await becomes(lambda: ctx.lost == [1])
        lost.set()

    await add(aredis, 0, 1, 2)
    async with working(app, server.url):
        await started.wait()
        entry_id = (await aredis.xrange("orders"))[1][0]
        await aredis.xclaim("orders", "billing", "thief", 0, [entry_id])
        await asyncio.wait_for(lost.wait(), 5)

        async def only_the_thiefs_is_left() -> bool:
            return await pending(aredis) == 1 and sorted(await numbers_of(aredis, "invoices")) == [0, 2]

        await eventually(only_the_thiefs_is_left)
        [left] = await aredis.xpending_range("orders", "billing", "-", "+", 10)
        assert (b"thief", entry_id) == (left["consumer"], left["message_id"])


async def test_a_batch_of_which_everything_is_taken_away_is_interrupted(server, aredis):
    """There is nothing left to work for."""
    app = an_app(lease=timedelta(milliseconds=400))
    started, stopped = asyncio.Event(), asyncio.Event()

    @app.batch_handler("orders", max_size=2, max_wait=SOON)
    async def charge(orders: list[Order]) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    await add(aredis, 0, 1)
    async with working(app, server.url):
        await started.wait()
        ids = [entry_id for entry_id, _ in await aredis.xrange("orders")]
        await aredis.xclaim("orders", "billing", "thief", 0, ids)
        await asyncio.wait_for(stopped.wait(), 5)
        assert 2 == await pending(aredis)


async def test_a_drain_starts_what_waits_and_lets_it_finish(server, aredis):
    """An open batch does not wait for its time any more; nothing is left, and nothing given back."""
    app = an_app()
    batches: list[int] = []

    @app.batch_handler("orders", max_size=100, max_wait=NEVER)
    async def charge(orders: list[Order]) -> None:
        batches.append(len(orders))

    await add(aredis, *range(7))
    async with working(app, server.url) as worker:
        await becomes(lambda: worker.in_flight == 7)
        worker.drain("the test says so")
        await becomes(lambda: batches == [7])

    assert (0, 0) == (await pending(aredis), await aredis.xlen("{orders}:retry:billing"))


async def test_a_batch_that_outlives_the_grace_is_given_back_whole(server, aredis):
    """Interrupted, its entries are released with their attempt uncounted, and so is what waited behind it."""
    app = an_app()
    started = asyncio.Event()

    @app.batch_handler("orders", max_size=3, max_wait=SOON, concurrency=1)
    async def charge(orders: list[Order]) -> None:
        started.set()
        await asyncio.Event().wait()

    await add(aredis, *range(5))
    async with working(app, server.url, grace=timedelta(milliseconds=100)) as worker:
        await started.wait()
        worker.drain("the test says so")
    attempts: list[int] = []
    later = an_app()

    @later.batch_handler("orders", max_size=5, max_wait=SOON)
    async def charge_later(orders: list[Order], ctx: BatchContext) -> None:
        attempts.extend(delivery.attempt for delivery in ctx.deliveries)

    assert 0 == await pending(aredis)
    await run_burst(later, server.url)
    assert [1] * 5 == attempts


async def test_what_was_in_a_dead_workers_batch_runs_alone(server, aredis):
    """Each of them as a batch of one, and what it says of position 0 counts."""
    app = an_app(lease=timedelta(milliseconds=300))
    batches: list[list[tuple[int, int]]] = []

    @app.batch_handler("orders", max_size=10, max_wait=SOON)
    async def charge(orders: list[Order], ctx: BatchContext) -> None:
        batches.append([(order.order_id, delivery.crashes) for order, delivery in zip(orders, ctx.deliveries, strict=True)])
        if orders[0].order_id == 1:
            ctx.fail(0, Reject("one"))
        else:
            ctx.publish(0, "invoices", orders[0])

    await aredis.xgroup_create("orders", "billing", "0", mkstream=True)
    await add(aredis, 0, 1, 2)
    await aredis.xreadgroup("billing", "dead", {"orders": ">"}, count=10)
    async with working(app, server.url):
        await becomes(lambda: len(batches) == 3, within=10)

        async def settled() -> bool:
            return await pending(aredis) == 0

        await eventually(settled)

    assert [[(0, 1)], [(1, 1)], [(2, 1)]] == sorted(batches)
    assert [0, 2] == sorted(await numbers_of(aredis, "invoices"))
    assert ["rejected"] == [letter.notes["reason"] for letter in await dead_letters(aredis)]


async def test_a_hundred_failures_among_thousands_are_exact(server, aredis):
    """Every tenth fails once, and every hundredth for good; each is handled as often as that says."""
    app = an_app()
    runs: dict[int, int] = {}

    @app.batch_handler("orders", max_size=64, max_wait=SOON, concurrency=3)
    async def charge(orders: list[Order], ctx: BatchContext) -> None:
        await asyncio.sleep(0.001)
        for position, order in enumerate(orders):
            runs[order.order_id] = runs.get(order.order_id, 0) + 1
            if order.order_id % 100 == 0 or (order.order_id % 10 == 0 and runs[order.order_id] == 1):
                ctx.fail(position, "no")

    await add(aredis, *range(2_000))
    await run_burst(app, server.url)

    assert {n: 3 if n % 100 == 0 else 2 if n % 10 == 0 else 1 for n in range(2_000)} == runs
    assert 20 == len(await dead_letters(aredis))
    assert (0, 0) == (await pending(aredis), await retries_waiting(aredis))


# ---- beside what only handlers of single entries have -----------------------------------------------------------------------


async def test_a_request_to_a_batch_handler_is_handled_but_only_its_failure_is_answered(server, aredis):
    """What it returns is for the batch, and no reply; whoever has asked for what becomes a dead letter is told so."""
    app = an_app()
    ledger = Ledger()

    @app.batch_handler("orders", max_size=2, max_wait=NEVER)
    async def charge(orders: list[Order]) -> dict[int, Exception]:
        await ledger.note({order.order_id for order in orders})
        return {position: Reject("odd") for position, order in enumerate(orders) if order.order_id % 2}

    async with working(app, server.url), StreamWorker(settings=Settings(redis_url=server.url)) as asker:
        asked = asyncio.create_task(asker.request("orders", {"order_id": 2}, timeout=timedelta(seconds=30)))
        with pytest.raises(RequestFailed, match="odd"):
            await asker.request("orders", {"order_id": 1}, timeout=timedelta(seconds=30))

        async def is_acked() -> bool:
            return await pending(aredis) == 0

        await eventually(is_acked)
        [key] = [key async for key in aredis.scan_iter("*:sw:reply:*")]
        replies = [fields for _, fields in await aredis.xrange(key) if fields != {b"_": b""}]
        asked.cancel()

    assert [{1, 2}] == ledger.seen
    # The failure's only: another one would have been written together with the acknowledgement.
    assert 1 == len(replies)


async def test_batches_orders_and_transactions_share_a_group(server, aredis):
    """Each entry goes to the handler of its type, with what that one promises, in the same room and memory."""
    app = an_app(retry=RetryPolicy(max_attempts=3, backoff=Backoff.constant(SOON)))
    in_order: list[int] = []

    @app.batch_handler("orders", type="many", max_size=7, max_wait=SOON)
    async def many(orders: list[Order], ctx: BatchContext) -> None:
        for position, order in enumerate(orders):
            if order.order_id % 5 == 0 and ctx.deliveries[position].attempt == 1:
                ctx.fail(position, "not yet")
            else:
                await ctx.publish(position, "charged", order)

    @app.handler("orders", type="ordered", ordering_key="_key", concurrency=3)
    async def ordered(order: Order, ctx: Context) -> None:
        if order.order_id % 10 == 1 and ctx.delivery.attempt == 1:
            raise ConnectionError("not yet")
        in_order.append(order.order_id)

    @app.handler("orders", type="counted", idempotency=Idempotency(timedelta(hours=1), key=lambda order: str(order.order_id)))
    def counted(order: Order, ctx: Context) -> None:
        ctx.transaction.incrby("counter")

    for number in range(60):
        kind = ("many", "ordered", "counted")[number % 3]
        await add(aredis, number, _type=kind, _key=str(number % 2))
    await add(aredis, 2, 5, 8, _type="counted")
    code = await run_burst(app, server.url)

    assert 0 == code
    assert [*range(0, 60, 3)] == sorted(await numbers_of(aredis, "charged"))
    for of_key in (0, 1):
        expected = [number for number in range(1, 60, 3) if number % 2 == of_key]
        assert expected == [number for number in in_order if number % 2 == of_key]
    assert b"20" == await aredis.get("counter")
    assert 0 == await pending(aredis)
    assert [] == await dead_letters(aredis)
