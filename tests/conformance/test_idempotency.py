"""Handlers with an `Idempotency`: what has been done is not done again, whatever brings it back."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import redis
import structlog
from pydantic import BaseModel

from streamworker import Context, Idempotency, Reject, policies
from tests.harness import Ledger, an_app, dead_letters, pending, run_burst, working
from tests.torture.proxy import Cut, Proxy, nth
from tests.waiting import eventually

pytestmark = pytest.mark.matrix

DAY = timedelta(days=1)
SHORT = timedelta(milliseconds=50)


class Order(BaseModel):
    order_id: str
    ends: str = "well"


def charging(ledger: Ledger, **options):
    """An application whose handler notes each run; `key` is the order's."""
    app = an_app(**options)

    @app.handler("orders", idempotency=Idempotency(ttl=DAY, key=lambda order: order.order_id))
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(order.order_id)
        if order.ends == "ill":
            raise Reject("no")

    return app


async def test_an_entry_that_comes_again_is_acknowledged_and_not_run(server, aredis):
    """As after a group was set back: by its id, where no key is given. It is said."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders", idempotency=Idempotency(ttl=DAY))
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(order.order_id)

    entry = (await aredis.xadd("orders", {"order_id": 7})).decode()
    assert 0 == await run_burst(app, server.url)
    await aredis.xgroup_setid("orders", "billing", "0")
    with structlog.testing.capture_logs() as lines:
        assert 0 == await run_burst(app, server.url)
    skipped = [line for line in lines if line["event"] == "delivery.skipped_as_done"]

    assert ["7"] == ledger.seen
    assert [(entry, "charge", "orders")] == [(line["entry_id"], line["handler"], line["stream"]) for line in skipped]
    assert 0 == await pending(aredis)


async def test_what_a_producer_says_twice_is_done_once(server, aredis):
    """By a key of the body; the marker lies beside the stream, for as long as was asked for."""
    ledger = Ledger()
    for order_id in ("7", "8", "7"):
        await aredis.xadd("orders", {"order_id": order_id})
        assert 0 == await run_burst(charging(ledger), server.url)
    ttl = await aredis.pttl("{orders}:sw:done:billing:charge:7")

    assert ["7", "8"] == ledger.seen
    assert b"done" == await aredis.get("{orders}:sw:done:billing:charge:7")
    assert 86_300_000 < ttl <= 86_400_000


async def test_two_that_mean_the_same_do_not_run_at_once(server, aredis, monkeypatch):
    """In two workers: the second waits, uncounted, until it is known what came of the first."""
    monkeypatch.setattr(policies, "LOOK_AFTER_TWIN", SHORT)
    app, ledger, goes_on = an_app(), Ledger(), asyncio.Event()

    @app.handler("orders", idempotency=Idempotency(ttl=DAY, key=lambda order: order.order_id))
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note((order.order_id, ctx.delivery.attempt))
        await goes_on.wait()

    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url), working(app, server.url):
            for _ in range(3):
                await aredis.xadd("orders", {"order_id": 7})
            await eventually(lambda: asyncio.sleep(0, sum(line["event"] == "delivery.retrying" for line in lines) > 4))
            seen = list(ledger.seen)
            goes_on.set()
            await eventually(lambda: asyncio.sleep(0, sum(line["event"] == "delivery.skipped_as_done" for line in lines) == 2))

    assert [("7", 1)] == seen == ledger.seen
    assert {1} == {line["attempt"] for line in lines if line["event"] == "delivery.retrying"}


async def test_after_one_that_failed_its_twin_runs(server, aredis):
    """A claim is worth no more than its entry's being pending."""
    ledger = Ledger()
    await aredis.xadd("orders", {"order_id": 7, "ends": "ill"})
    assert 0 == await run_burst(charging(ledger), server.url)
    await aredis.xadd("orders", {"order_id": 7})
    assert 0 == await run_burst(charging(ledger), server.url)

    assert ["7", "7"] == ledger.seen
    assert 1 == len(await dead_letters(aredis))


async def test_a_retry_is_not_taken_for_its_own_twin(server, aredis):
    """It comes back under another id, in another stream."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders", idempotency=Idempotency(ttl=DAY, key=lambda order: order.order_id))
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(ctx.delivery.attempt)
        if ctx.delivery.attempt < 3:
            raise ValueError

    await aredis.xadd("orders", {"order_id": 7})
    assert 0 == await run_burst(app, server.url)

    assert [1, 2, 3] == ledger.seen


async def test_one_whose_worker_died_goes_on_and_one_that_was_done_does_not_wait_to_be_alone(server, aredis):
    """The dead worker's claim is its entry's own."""
    ledger = Ledger()
    app = charging(ledger, lease=timedelta(milliseconds=400))
    await aredis.xgroup_create("orders", "billing", "0", mkstream=True)
    entries = [await aredis.xadd("orders", {"order_id": order_id}) for order_id in (7, 8)]
    await aredis.xreadgroup("billing", "dead", {"orders": ">"})
    await aredis.xclaim("orders", "billing", "dead", 0, entries, idle=60_000, justid=True)
    await aredis.set("{orders}:sw:done:billing:charge:7", f"2 {entries[0].decode()}")
    await aredis.set("{orders}:sw:done:billing:charge:8", "done")

    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url):
            await eventually(lambda: _is(pending(aredis), 0), within=20)

    assert ["7"] == ledger.seen
    assert [entries[0].decode()] == [line["entry_id"] for line in lines if line["event"] == "delivery.runs_alone"]
    assert [entries[1].decode()] == [line["entry_id"] for line in lines if line["event"] == "delivery.skipped_as_done"]


async def test_each_group_and_each_handler_has_markers_of_its_own(server, aredis):
    """The same entry is done once by each."""
    ledger = Ledger()
    app = an_app()
    for group, name in (("billing", "charge"), ("billing", "refund"), ("search", "index")):

        @app.handler(
            "orders",
            group=group,
            name=name,
            type=name if name == "refund" else None,
            idempotency=Idempotency(DAY, lambda order: "k"),
        )
        async def handle(order: Order, ctx: Context) -> None:
            await ledger.note(ctx.handler.name)

    await aredis.xadd("orders", {"order_id": 7})
    await aredis.xadd("orders", {"order_id": 7, "_type": "refund"})
    assert 0 == await run_burst(app, server.url)

    assert {"charge", "refund", "index"} == set(ledger.seen)
    assert 2 == ledger.seen.count("charge") + ledger.seen.count("refund")


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        (lambda order: 7, "TypeError: the key= of an Idempotency gives a text that is not empty, not a int"),
        (lambda order: "", "TypeError: the key= of an Idempotency gives a text"),
        (
            lambda order: "x" * 1_001,
            "ValueError: the key= of an Idempotency gives at most 1,000 bytes, not 1,001: hash what is longer",
        ),
        (lambda order: order.nothing, "AttributeError"),
    ],
)
async def test_a_key_that_cannot_be_used_fails_the_delivery(server, aredis, gives, says):
    """By the handler's policy, and before the handler runs."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders", idempotency=Idempotency(DAY, gives))
    async def charge(order: Order) -> None:
        await ledger.note(order)

    await aredis.xadd("orders", {"order_id": 7})
    assert 0 == await run_burst(app, server.url)
    [letter] = await dead_letters(aredis)

    assert ("exhausted", []) == (letter.notes["reason"], ledger.seen)
    assert letter.notes["error"].startswith(says)


async def test_a_malformed_entry_is_set_aside_as_ever(server, aredis):
    """Its key cannot be asked for."""
    ledger = Ledger()
    await aredis.xadd("orders", {"nonsense": 7})
    assert 0 == await run_burst(charging(ledger), server.url)

    assert ["malformed"] == [letter.notes["reason"] for letter in await dead_letters(aredis)]


async def test_a_claim_whose_reply_was_lost_is_the_entrys_own(server, aredis):
    """It asks again, and goes on."""
    ledger = Ledger()
    with Proxy(server.url) as proxy, structlog.testing.capture_logs() as lines:
        proxy.on(
            lambda call: call.name == "begin_once" and call.reply == b"$5\r\nbegun\r\n", "after_execute", lambda call: Cut(), nth(1)
        )
        async with working(charging(ledger), proxy.url) as process:
            await aredis.xadd("orders", {"order_id": 7})
            await ledger.until_count(1)
            await eventually(lambda: asyncio.sleep(0, process.in_flight == 0))

    assert ["7"] == ledger.seen
    assert {"idempotency.failing", "idempotency.recovered"} <= {line["event"] for line in lines}


async def test_a_full_server_lets_nothing_begin_that_it_could_not_mark(private_server, server_kind):
    """It waits for room, and is run then, once."""
    ledger = Ledger()
    server = private_server(server_kind)
    async with redis.asyncio.Redis.from_url(server.url) as client:
        with structlog.testing.capture_logs() as lines:
            async with working(charging(ledger), server.url):
                await client.xadd("orders", {"order_id": 6})
                await ledger.until_count(1)
                # Added and filled in one step, so that the worker has no chance between.
                async with client.pipeline(transaction=True) as both:
                    both.xadd("orders", {"order_id": 7})
                    both.config_set("maxmemory", 1)
                    await both.execute()
                await eventually(lambda: asyncio.sleep(0, any(line["event"] == "idempotency.failing" for line in lines)))
                seen = list(ledger.seen)
                await client.config_set("maxmemory", 0)
                await ledger.until_count(2)
                await eventually(lambda: _is(pending(client), 0))

    assert ["6"] == seen
    assert ["6", "7"] == ledger.seen


async def test_a_drain_gives_back_what_waits_for_its_claim(server, aredis):
    """It is not begun any more, and keeps its attempt."""
    ledger = Ledger()
    await aredis.set("{orders}:sw:done:billing:charge:7", "x")
    await aredis.delete("{orders}:sw:done:billing:charge:7")
    await aredis.hset("{orders}:sw:done:billing:charge:7", "not", "a text")
    with structlog.testing.capture_logs() as lines:
        async with working(charging(ledger), server.url) as process:
            await aredis.xadd("orders", {"order_id": 7})
            await eventually(lambda: asyncio.sleep(0, any(line["event"] == "idempotency.failing" for line in lines)))
            process.drain("the test wants it")
            await eventually(lambda: _is(aredis.xlen("{orders}:retry:billing"), 1))

    assert [] == ledger.seen
    assert 0 == await pending(aredis)


async def test_a_handler_without_it_asks_for_nothing(server, aredis):
    """Neither before its run nor with its acknowledgement."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders")
    async def charge(order: Order) -> None:
        await ledger.note(order.order_id)

    with Proxy(server.url) as proxy:
        await aredis.xadd("orders", {"order_id": 7})
        assert 0 == await run_burst(app, proxy.url)

    assert ["7"] == ledger.seen
    assert [] == [call.name for call in proxy.calls if call.name in ("begin_once", "settle_commit")]


async def _is(asked, expected: int) -> bool:
    return await asked == expected
