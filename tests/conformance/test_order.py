"""Order by key, on real servers: one at a time and in stream order, whatever happens to one of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import redis.asyncio
from pydantic import BaseModel

from streamworker import Backoff, Context, Reject, RetryPolicy, Snooze
from tests.harness import Ledger, an_app, dead_letters, pending, retries_waiting, run_burst, working
from tests.waiting import eventually


class Order(BaseModel):
    customer: str
    number: int


async def publish(client: redis.asyncio.Redis, *orders: tuple[str, int]) -> list[bytes]:
    """Add orders, all in one round trip; the customer is the header `_key` as well."""
    async with client.pipeline(transaction=False) as pipeline:
        for customer, number in orders:
            pipeline.xadd("orders", {"customer": customer, "number": number, "_key": customer})
        return list(await pipeline.execute())


def of(customer: str, seen: list[tuple[str, int]]) -> list[int]:
    return [number for name, number in seen if name == customer]


def each_in_order(seen: list[tuple[str, int]]) -> bool:
    """Whether no customer's order comes after a greater number."""
    return all(of(customer, seen) == sorted(of(customer, seen)) for customer, _ in seen)


@pytest.mark.parametrize("key", ["customer", "_key", lambda order: order.customer], ids=["field", "header", "function"])
async def test_one_of_a_key_runs_at_a_time_and_in_order(server, aredis, key):
    """Others run beside it: as many at once as there are keys, however many there are of each."""
    app, seen, running, most = an_app(), [], set(), 0

    @app.handler("orders", ordering_key=key, concurrency=4)
    async def charge(order: Order) -> None:
        nonlocal most
        assert order.customer not in running
        running.add(order.customer)
        most = max(most, len(running))
        await asyncio.sleep(0.001)
        running.discard(order.customer)
        seen.append((order.customer, order.number))

    await publish(aredis, *((customer, number) for number in range(60) for customer in "abc"))

    assert 0 == await run_burst(app, server.url)
    assert 180 == len(seen)
    assert 3 == most
    assert each_in_order(seen)


async def test_a_retry_holds_up_its_key_in_place_and_no_other(server, aredis):
    """The entry stays pending on the stream, its successor waits, other keys go on, and it takes no place meanwhile."""
    app, ledger = an_app(retry=RetryPolicy(max_attempts=3, backoff=Backoff.constant(timedelta(milliseconds=300)))), Ledger()

    @app.handler("orders", ordering_key="customer", concurrency=1)
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note((order.customer, order.number, ctx.delivery.attempt))
        if (order.customer, order.number) == ("a", 1) and ctx.delivery.attempt < 3:
            raise ValueError("not yet")

    ids = await publish(aredis, ("a", 1), ("a", 2), ("b", 1), ("b", 2))
    async with working(app, server.url):
        await ledger.until(lambda seen: ("b", 2, 1) in seen)
        assert [("a", 1, 1), ("b", 1, 1), ("b", 2, 1)] == ledger.seen
        assert 0 == await retries_waiting(aredis)
        assert ids[0] in {row["message_id"] for row in await aredis.xpending_range("orders", "billing", "-", "+", 10)}
        await ledger.until(lambda seen: ("a", 2, 1) in seen)

    assert [("a", 1, 2), ("a", 1, 3), ("a", 2, 1)] == ledger.seen[3:]


async def test_a_dead_letter_opens_its_key(server, aredis):
    """Rejected at once, or out of attempts: the next one runs."""
    app, seen = an_app(), []

    @app.handler("orders", ordering_key="customer")
    async def charge(order: Order, ctx: Context) -> None:
        seen.append((order.number, ctx.delivery.attempt))
        if order.number == 1:
            raise Reject("no")
        if order.number == 2:
            raise ValueError("no")

    await publish(aredis, *(("a", number) for number in (1, 2, 3)))

    assert 0 == await run_burst(app, server.url)
    assert [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1)] == seen
    letters = await dead_letters(aredis)
    assert [("rejected", "1"), ("exhausted", "3")] == [(letter.notes["reason"], letter.notes["attempts"]) for letter in letters]


async def test_a_snooze_stays_in_place_uncounted(server, aredis):
    """It goes on with the same attempt, and its successor waits."""
    app, seen = an_app(), []

    @app.handler("orders", ordering_key="customer")
    async def charge(order: Order, ctx: Context) -> None:
        seen.append((order.number, ctx.delivery.attempt))
        if len(seen) < 6:
            raise Snooze(after=timedelta(milliseconds=5))

    await publish(aredis, ("a", 1), ("a", 2))

    assert 0 == await run_burst(app, server.url)
    assert [(1, 1)] * 6 + [(2, 1)] == seen


async def test_attempts_in_place_are_counted_on_the_server(server, aredis):
    """So they outlive the worker: the next one goes on with the attempt that this one has not begun."""
    slow = RetryPolicy(max_attempts=5, backoff=Backoff.constant(timedelta(milliseconds=20)))
    patient = RetryPolicy(
        max_attempts=5, backoff=Backoff.by(lambda attempt: timedelta(milliseconds=20 if attempt < 3 else 600_000))
    )
    first, ledger = an_app(retry=patient, lease=timedelta(seconds=1)), Ledger()

    @first.handler("orders", ordering_key="customer")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note((order.number, ctx.delivery.attempt))
        raise ValueError("no")

    await publish(aredis, ("a", 1), ("a", 2))
    async with working(first, server.url):
        await ledger.until(lambda seen: (1, 3) in seen)
        await eventually(lambda: _count_is(aredis, 3))
    second, seen = an_app(retry=slow), []

    @second.handler("orders", name="charge", ordering_key="customer")
    async def charge_again(order: Order, ctx: Context) -> None:
        seen.append((order.number, ctx.delivery.attempt))

    assert 0 == await run_burst(second, server.url)
    assert [(1, 4), (2, 1)] == seen


async def _count_is(client: redis.asyncio.Redis, failed: int) -> bool:
    rows = await client.xpending_range("orders", "billing", "-", "+", 1)
    return bool(rows) and rows[0]["times_delivered"] // 1_000_000_000 == failed


async def test_what_waits_is_released_in_order_and_comes_first_after_a_restart(server, aredis):
    """What was running and interrupted goes back first, then what waited behind it, then what is new on the stream."""
    first, ledger = an_app(), Ledger()

    @first.handler("orders", ordering_key="customer", concurrency=3)
    async def charge(order: Order) -> None:
        await ledger.note((order.customer, order.number))
        await asyncio.sleep(3600)

    numbers = range(1, 31)
    await publish(aredis, *((customer, number) for number in numbers for customer in "ab"))
    async with working(first, server.url):
        await ledger.until(lambda seen: len(seen) == 2)
        await eventually(lambda: _pending_are(aredis, 60))
    assert 0 == await pending(aredis)
    await publish(aredis, ("a", 99), ("b", 99))
    second, seen = an_app(), []

    @second.handler("orders", name="charge", ordering_key="customer")
    async def charge_again(order: Order) -> None:
        seen.append((order.customer, order.number))

    assert 0 == await run_burst(second, server.url)
    assert {"a": [*numbers, 99], "b": [*numbers, 99]} == {customer: of(customer, seen) for customer in "ab"}


async def _pending_are(client: redis.asyncio.Redis, count: int) -> bool:
    return await pending(client) == count


async def test_a_body_whose_key_cannot_be_told_is_malformed(server, aredis):
    """With a reason that holds nothing of its content, and it holds up nobody."""
    app, seen = an_app(), []

    def key(order: dict[str, str]) -> str:
        return {"secret": "a"}[order["customer"]]

    @app.handler("orders", ordering_key=key)
    async def charge(order: dict[str, str]) -> None:
        seen.append(order["customer"])

    for customer in ("nobody", "secret"):
        await aredis.xadd("orders", {"customer": customer})

    assert 0 == await run_burst(app, server.url)
    assert ["secret"] == seen
    (letter,) = await dead_letters(aredis)
    assert "malformed" == letter.notes["reason"]
    assert "DecodeError: its ordering key cannot be told: KeyError" == letter.notes["error"]


async def test_an_entry_without_a_key_has_no_order(server, aredis):
    """Nothing holds it up, and it holds up nothing, its retries included."""
    app, seen = an_app(retry=RetryPolicy(max_attempts=2, backoff=Backoff.constant(timedelta(milliseconds=100)))), []

    @app.handler("orders", ordering_key="_key")
    async def charge(order: Order, ctx: Context) -> None:
        seen.append(order.number)
        if order.number == 1 and ctx.delivery.attempt == 1:
            raise ValueError("not yet")

    for number in (1, 2, 3):
        await aredis.xadd("orders", {"customer": "a", "number": number})

    assert 0 == await run_burst(app, server.url)
    assert [1, 2, 3, 1] == seen


async def test_one_key_that_does_not_get_on_lets_many_wait_and_others_pass(server, aredis):
    """What waits for its key takes no place and no room, up to twenty for each place."""
    app, ledger = an_app(retry=RetryPolicy(max_attempts=2, backoff=Backoff.constant(timedelta(minutes=5)))), Ledger()

    @app.handler("orders", ordering_key="customer", concurrency=2)
    async def charge(order: Order) -> None:
        await ledger.note((order.customer, order.number))
        if order.customer == "poisoned":
            raise ValueError("no")

    await publish(aredis, *(("poisoned", number) for number in range(36)), *(("b", number) for number in range(20)))
    async with working(app, server.url) as process:
        await ledger.until(lambda seen: ("b", 19) in seen)

        assert [0] == of("poisoned", ledger.seen)
        assert list(range(20)) == of("b", ledger.seen)
        assert process.in_flight >= 36


async def test_a_key_that_snoozes_for_ever_does_not_starve_the_others_for_ever(server, aredis):
    """Once all room is taken by what waits behind it, its snoozes count: it ends as a dead letter, and others are read again."""
    app, ledger = an_app(retry=RetryPolicy(max_attempts=2)), Ledger()

    @app.handler("orders", ordering_key="customer", concurrency=1)
    async def charge(order: Order) -> None:
        await ledger.note((order.customer, order.number))
        if order.customer == "stuck" and order.number == 0:
            raise Snooze(after=timedelta(milliseconds=20))

    await publish(aredis, *(("stuck", number) for number in range(50)), ("b", 1))
    async with working(app, server.url):
        await ledger.until(lambda seen: ("b", 1) in seen and ("stuck", 49) in seen)

    assert ["exhausted"] == [letter.notes["reason"] for letter in await dead_letters(aredis)]
    numbers = of("stuck", ledger.seen)
    assert list(range(1, 50)) == numbers[numbers.index(1) :]


async def test_a_lost_lease_does_not_let_the_next_one_go_first(server, aredis):
    """Another consumer takes the first one over and is gone; its successor runs only when that is known, and nothing is lost."""
    app, ledger = (
        an_app(lease=timedelta(milliseconds=600), retry=RetryPolicy(backoff=Backoff.constant(timedelta(milliseconds=50)))),
        Ledger(),
    )

    @app.handler("orders", ordering_key="customer")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(order.number)
        if order.number == 1 and ledger.seen.count(1) == 1:
            await asyncio.sleep(3600)

    (first, _) = await publish(aredis, ("a", 1), ("a", 2))
    async with working(app, server.url) as process:
        await ledger.until(lambda seen: seen == [1])
        await aredis.xclaim("orders", "billing", process.consumer, 0, [first], retrycount=5, justid=True)
        await ledger.until(lambda seen: 2 in seen)

    assert [1, 1, 2] == ledger.seen


async def test_a_timed_out_thread_keeps_its_key_until_it_ends(server, aredis):
    """The next attempt does not begin beside the one that cannot be stopped."""
    import threading

    app, release, seen, running = an_app(), threading.Event(), [], set()

    @app.handler("orders", ordering_key="customer", timeout=timedelta(milliseconds=50))
    def charge(order: Order, ctx: Context) -> None:
        assert order.customer not in running
        running.add(order.customer)
        seen.append((order.number, ctx.delivery.attempt))
        if len(seen) == 1:
            release.wait(0.4)
        running.discard(order.customer)

    await publish(aredis, ("a", 1), ("a", 2))

    assert 0 == await run_burst(app, server.url)
    assert [(1, 1), (1, 2), (2, 1)] == seen
