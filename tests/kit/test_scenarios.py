"""One scenario file, on the fake server and on real ones: what a user's test sees must not depend on where it runs."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from pydantic import BaseModel

from streamworker import Backoff, Context, Reject, Retry, RetryPolicy, Snooze, StreamWorker
from streamworker.testing import TestWorker

MINUTE = timedelta(minutes=1)


class Order(BaseModel):
    order_id: int
    cents: int


class Invoice(BaseModel):
    order_id: int


class Shop:
    """A program, and what its handlers did."""

    def __init__(self) -> None:
        self.app = app = StreamWorker(group="billing", retry=RetryPolicy(max_attempts=3, backoff=Backoff.constant(MINUTE)))
        self.charged: list[int] = []
        self.attempts: list[int] = []

        @app.handler("orders")
        async def charge(order: Order, ctx: Context) -> None:
            self.attempts.append(ctx.delivery.attempt)
            if order.cents <= 0:
                raise Reject("nothing to charge")
            self.charged.append(order.order_id)
            await ctx.publish("invoices", Invoice(order_id=order.order_id))

        self.charge = charge


@pytest.fixture(params=["fake", "valkey", "redis"])
def redis_url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "fake":
        return None
    url: str = request.getfixturevalue("server_pool").empty(request.param).url
    return url


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def test_the_good_way(redis_url: str | None, shop: Shop) -> None:
    """A handled entry is acknowledged, and what its handler published is there."""
    async with TestWorker(shop.app, redis_url=redis_url) as worker:
        entry_id = await worker.publish("orders", Order(order_id=7, cents=990))
        await worker.run_until_idle()

        assert [7] == shop.charged
        assert [Invoice(order_id=7)] == await worker.published("invoices", Invoice)
        assert [{"order_id": "7"}] == await worker.published("invoices")
        assert [] == await worker.pending()
        assert [("succeeded", "ack")] == [(d.outcome, d.verdict) for d in worker.deliveries(entry_id)]


async def test_what_is_rejected_or_malformed_is_set_aside(redis_url: str | None, shop: Shop) -> None:
    """Each with its reason and its fields as they came."""
    async with TestWorker(shop.app, redis_url=redis_url) as worker:
        await worker.publish("orders", Order(order_id=8, cents=0))
        await worker.add("orders", {"order_id": "nine"})
        await worker.run_until_idle()

        letters = await worker.dead_letters()
        assert [("rejected", "charge"), ("malformed", "charge")] == [(letter.reason, letter.handler) for letter in letters]
        assert {"order_id": "nine"} == letters[1].fields
        assert [("failed", "dead letter"), ("malformed", "dead letter")] == [(d.outcome, d.verdict) for d in worker.deliveries()]


async def test_a_failure_is_tried_again_when_the_time_has_come(redis_url: str | None, shop: Shop) -> None:
    """And not a moment sooner, however slow the machine."""
    async with TestWorker(shop.app, redis_url=redis_url) as worker:
        worker.fail_next(shop.charge, TimeoutError("the bank sleeps"))
        entry_id = await worker.publish("orders", Order(order_id=7, cents=990))
        await worker.run_until_idle()
        [waiting] = await worker.waiting()
        assert (entry_id, 2, MINUTE, "TimeoutError: the bank sleeps") == (
            waiting.id, waiting.attempt, waiting.due_in, waiting.error
        )  # fmt: skip

        await worker.advance(MINUTE - timedelta(milliseconds=1))
        assert [] == shop.charged
        await worker.advance(timedelta(milliseconds=1))
        assert [7] == shop.charged

        first, second = worker.deliveries(entry_id)
        assert ("failed", "retry", MINUTE, 1) == (first.outcome, first.verdict, first.after, first.attempt)
        assert ("succeeded", "ack", None, 2) == (second.outcome, second.verdict, second.after, second.attempt)
        assert isinstance(first.error, TimeoutError)
        assert MINUTE == second.at - first.at


async def test_one_long_step_is_many_short_ones(redis_url: str | None, shop: Shop) -> None:
    """All attempts happen on the way, each at its own time."""
    async with TestWorker(shop.app, redis_url=redis_url) as worker:
        worker.fail_next("charge", ValueError("again"), times=3)
        await worker.publish("orders", Order(order_id=7, cents=990))
        began = worker.now
        await worker.advance(timedelta(hours=1))

        assert [timedelta(0), MINUTE, 2 * MINUTE] == [d.at - began for d in worker.deliveries()]
        assert ["retry", "retry", "dead letter"] == [d.verdict for d in worker.deliveries()]
        assert [("exhausted", 3)] == [(letter.reason, letter.attempts) for letter in await worker.dead_letters()]
        assert timedelta(hours=1) == worker.now - began


@pytest.mark.parametrize(("when", "done_before"), [("before", []), ("after", [7])])
async def test_what_a_crash_leaves_is_taken_over(redis_url: str | None, shop: Shop, when: str, done_before: list[int]) -> None:
    """It stays pending until its lease is over; then it is handled again, and what was published is there once."""
    async with TestWorker(shop.app, redis_url=redis_url) as worker:
        worker.crash_next("charge", when=when)  # type: ignore[arg-type]
        entry_id = await worker.publish("orders", Order(order_id=7, cents=990))
        await worker.run_until_idle()
        assert done_before == shop.charged
        assert [entry_id] == [entry.id for entry in await worker.pending()]
        assert [] == await worker.published("invoices")

        await worker.advance(timedelta(seconds=29))
        assert done_before == shop.charged
        await worker.advance(timedelta(seconds=1))
        assert [*done_before, 7] == shop.charged
        assert [Invoice(order_id=7)] == await worker.published("invoices", Invoice)
        assert [] == await worker.pending()
        assert [("crashed", None, 1, 0), ("succeeded", "ack", 1, 1)] == [
            (d.outcome, d.verdict, d.attempt, d.crashes) for d in worker.deliveries(entry_id)
        ]


async def test_many_crashes_end_as_a_dead_letter(redis_url: str | None, shop: Shop) -> None:
    """An entry that kills its worker again and again is set aside, and the next one is handled."""
    async with TestWorker(shop.app, redis_url=redis_url) as worker:
        worker.crash_next("charge", times=4)
        await worker.publish("orders", Order(order_id=7, cents=990))
        await worker.advance(timedelta(minutes=10))
        await worker.publish("orders", Order(order_id=8, cents=990))
        await worker.run_until_idle()

        assert ["crashed"] == [letter.reason for letter in await worker.dead_letters()]
        assert [Invoice(order_id=8)] == await worker.published("invoices", Invoice)


async def test_words_of_a_handler(redis_url: str | None) -> None:
    """`Retry` counts and waits as long as it says, `Snooze` waits without counting."""
    app = StreamWorker(group="g")
    seen: list[int] = []

    @app.handler("work")
    def work(body: dict[str, str], ctx: Context) -> None:
        seen.append(ctx.delivery.attempt)
        if len(seen) == 1:
            raise Snooze(after=timedelta(hours=2))
        if len(seen) == 2:
            raise Retry(after=timedelta(days=1))

    async with TestWorker(app, redis_url=redis_url) as worker:
        await worker.publish("work", {"a": "1"})
        await worker.advance(timedelta(hours=2))
        assert [1, 1] == seen
        await worker.advance(timedelta(days=1))
        assert [1, 1, 2] == seen


async def test_a_chain_of_handlers(redis_url: str | None) -> None:
    """What one handler publishes, the next one is given, in another group and in a thread, before all is idle."""
    app = StreamWorker(group="one")
    done: list[str] = []

    @app.handler("a")
    async def first(body: dict[str, str], ctx: Context) -> None:
        await ctx.publish("b", body)

    @app.handler("b", group="two")
    def second(body: dict[str, str]) -> None:
        done.append(body["x"])

    async with TestWorker(app, redis_url=redis_url) as worker:
        for number in range(20):
            await worker.publish("a", {"x": number})
        await worker.run_until_idle()
        assert sorted(map(str, range(20))) == sorted(done)
        assert 40 == len(worker.deliveries())


async def test_what_nobody_handles_is_set_aside_in_the_end(redis_url: str | None) -> None:
    """An entry of a type that no handler takes waits for newer workers, and then is a dead letter."""
    app = StreamWorker(group="g")

    @app.handler("work", type="Known")
    async def work(body: dict[str, str]) -> None: ...

    async with TestWorker(app, redis_url=redis_url) as worker:
        await worker.publish("work", {"a": "1"}, type="Unknown")
        await worker.run_until_idle()
        assert [("unroutable", "retry")] == [(d.outcome, d.verdict) for d in worker.deliveries()]
        await worker.advance(timedelta(hours=1))
        assert ["unroutable"] == [letter.reason for letter in await worker.dead_letters()]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_handler_in_a_thread_fails_and_crashes_too(redis_url: str | None, when: str) -> None:
    """As one on the loop does."""
    app = StreamWorker(group="g", lease=timedelta(minutes=2))
    done: list[str] = []

    @app.handler("work")
    def work(body: dict[str, str]) -> None:
        done.append(body["n"])

    async with TestWorker(app, redis_url=redis_url) as worker:
        worker.crash_next(work, when=when)  # type: ignore[arg-type]
        worker.fail_next(work, OSError("no"))
        entry_id = await worker.publish("work", {"n": "1"})
        await worker.advance(timedelta(minutes=2))
        await worker.advance(timedelta(minutes=5))
        assert (["1"] if when == "before" else ["1", "1"]) == done
        assert [("crashed", None), ("failed", "retry"), ("succeeded", "ack")] == [
            (d.outcome, d.verdict) for d in worker.deliveries(entry_id)
        ]


async def test_a_crash_of_a_retry_is_taken_over_as_well(redis_url: str | None, shop: Shop) -> None:
    """It lies in another stream than a new entry; its attempts go on from where they were."""
    async with TestWorker(shop.app, redis_url=redis_url) as worker:
        worker.fail_next("charge", ValueError("no"))
        worker.crash_next("charge")
        entry_id = await worker.publish("orders", Order(order_id=7, cents=990))
        await worker.advance(MINUTE)
        assert [entry_id] == [entry.id for entry in await worker.pending()]
        await worker.advance(timedelta(seconds=30))
        assert [("failed", 1), ("crashed", 2), ("succeeded", 2)] == [(d.outcome, d.attempt) for d in worker.deliveries(entry_id)]
        assert [] == await worker.pending()


async def test_many_things_that_come_due_come_due_in_order(redis_url: str | None) -> None:
    """Whatever the order in which they were put aside, and each at its own time."""
    app = StreamWorker(group="g")

    @app.handler("work", concurrency=1)
    async def work(body: dict[str, str], ctx: Context) -> None:
        if ctx.delivery.attempt == 1:
            raise Retry(after=timedelta(minutes=int(body["after"])))

    minutes = [7, 3, 9, 1, 5, 8, 2, 6, 4]
    async with TestWorker(app, redis_url=redis_url) as worker:
        began = worker.now
        for after in minutes:
            await worker.publish("work", {"after": after})
        await worker.advance(timedelta(minutes=10))
        assert [MINUTE * after for after in sorted(minutes)] == [d.at - began for d in worker.deliveries() if d.attempt == 2]


async def test_what_is_published_for_later_is_there_then(redis_url: str | None, shop: Shop) -> None:
    """By a delay or a time, with a dedupe id or without, read by a handler of this app or by nobody here; what is taken back is not."""
    app = shop.app
    async with TestWorker(app, redis_url=redis_url) as worker:
        await app.publish("orders", Order(order_id=1, cents=1), delay=timedelta(hours=2))
        await worker.publish("orders", Order(order_id=2, cents=1), at=worker.now + timedelta(hours=1), dedupe_id="two")
        handle = await app.publish("orders", Order(order_id=3, cents=1), delay=timedelta(hours=1))
        await app.publish_many("orders", [Order(order_id=number, cents=1) for number in (4, 5)], delay=timedelta(hours=3))
        await app.publish("letters", {"to": "me"}, delay=timedelta(days=1))
        assert await app.cancel("orders", handle)
        await worker.run_until_idle()
        assert [] == shop.charged

        await worker.advance(timedelta(hours=1))
        assert [2] == shop.charged
        await worker.advance(timedelta(hours=2))
        assert [2, 1, 4, 5] == shop.charged
        assert [] == await worker.published("letters")
        await worker.advance(timedelta(days=1))
        assert [{"to": "me"}] == await worker.published("letters")


async def test_a_program_without_a_loop_publishes_to_the_test_too(redis_url: str | None, shop: Shop) -> None:
    """At the time of the test."""
    async with TestWorker(shop.app, redis_url=redis_url) as worker:
        await worker.advance(timedelta(days=1))
        with shop.app.sync_publisher() as publisher:
            await asyncio.to_thread(publisher.publish, "orders", Order(order_id=1, cents=1), delay=timedelta(hours=1))
            bodies = [Order(order_id=number, cents=1) for number in (2, 3)]
            await asyncio.to_thread(publisher.publish_many, "orders", bodies, delay=timedelta(hours=2))
        await worker.advance(timedelta(hours=1))
        assert [1] == shop.charged
        await worker.advance(timedelta(hours=1))
        assert [1, 2, 3] == shop.charged
