"""Streams with a retention, worked off by real workers: they get short, and nobody is robbed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import structlog
from pydantic import BaseModel

from streamworker import BatchContext, Context, Reject, Retention
from streamworker.worker import trimmer
from tests.harness import Ledger, an_app, dead_letters, run_burst, working
from tests.torture.proxy import Proxy, nth
from tests.waiting import eventually

pytestmark = pytest.mark.matrix

WHEN_ACKED = {"orders": Retention(delete_when_acked=True)}


class Order(BaseModel):
    n: int


async def add(client, *numbers: int, stream: str = "orders") -> list[bytes]:
    return [await client.xadd(stream, {"n": n}) for n in numbers]


async def is_as_long_as(client, length: int, stream: str = "orders") -> bool:
    return await client.xlen(stream) == length


# ---- deleted when acknowledged -------------------------------------------------------------------------------------------------


async def test_a_stream_is_empty_when_all_is_acknowledged_however_it_ended(server, aredis):
    """Success, an own publish, a retry, a dead letter, an entry without a body. Nothing is left but what was set aside."""
    app, ledger = an_app(retention=WHEN_ACKED), Ledger()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note((order.n, ctx.delivery.attempt))
        match order.n, ctx.delivery.attempt:
            case 2, _:
                ctx.publish("invoices", {"n": 2})
            case 3, 1:
                raise ValueError
            case 4, _:
                raise Reject("no")

    await add(aredis, 1, 2, 3, 4)
    await aredis.xadd("orders", {"n": "no number"})
    code = await run_burst(app, server.url)

    assert 0 == code
    assert [(1, 1), (2, 1), (3, 1), (3, 2), (4, 1)] == sorted(ledger.seen)
    assert (0, 1) == (await aredis.xlen("orders"), await aredis.xlen("invoices"))
    assert ["malformed", "rejected"] == sorted(letter.notes["reason"] for letter in await dead_letters(aredis))


async def test_a_batch_that_is_acknowledged_is_gone_and_what_failed_is_in_its_retry(server, aredis):
    """Each entry for itself."""
    app = an_app(retention=WHEN_ACKED)

    @app.batch_handler("orders", max_size=10, max_wait=timedelta(milliseconds=50))
    async def charge(orders: list[Order], ctx: BatchContext) -> None:
        if len(orders) > 1:
            ctx.fail(0, "not yet")

    await add(aredis, *range(10))
    await run_burst(app, server.url)

    assert await is_as_long_as(aredis, 0)


async def test_what_a_drain_gives_back_is_gone_from_the_stream_and_handled_by_the_next_worker(server, aredis):
    """The retry stream has a copy with all its fields."""
    app, ledger = an_app(retention=WHEN_ACKED), Ledger()

    @app.handler("orders")
    async def charge(order: Order) -> None:
        await ledger.note(order.n)
        if len(ledger.seen) == 1:
            await asyncio.Event().wait()

    await add(aredis, 1)
    async with working(app, server.url):
        await ledger.until_count(1)
    released = (await aredis.xlen("orders"), await aredis.xlen("{orders}:retry:billing"))
    await run_burst(app, server.url)

    assert (0, 1) == released
    assert [1, 1] == ledger.seen
    assert 0 == await aredis.xlen("{orders}:retry:billing")


async def test_many_acknowledgements_are_one_round_trip(server, aredis):
    """The server that knows XACKDEL gets that, the others a script; none gets a command for each entry."""
    app, ledger = an_app(retention=WHEN_ACKED), Ledger()
    held = asyncio.Event()

    @app.handler("orders", concurrency=200)
    async def charge(order: Order) -> None:
        await ledger.note(order.n)
        await held.wait()

    await add(aredis, *range(200))
    async with working(app, server.url):
        await ledger.until_count(200)
        await aredis.config_resetstat()
        held.set()
        await eventually(lambda: is_as_long_as(aredis, 0))
        used = {name.lower(): stats["calls"] for name, stats in (await aredis.info("commandstats")).items()}

    if "xackdel" in await aredis.command():
        assert 200 / 8 <= used["cmdstat_xackdel"] <= 200 / 8 + 5
    else:
        assert used["cmdstat_xdel"] <= 5


async def test_another_group_is_given_everything_before_it_goes(server, aredis):
    """It begins late, is of another framework, acknowledges with a plain XACK, and has seen all; then the rest is swept up."""
    app, ledger = an_app(retention=WHEN_ACKED), Ledger()

    @app.handler("orders")
    async def charge(order: Order) -> None:
        await ledger.note(order.n)

    await aredis.xgroup_create("orders", "search", id="0", mkstream=True)
    await add(aredis, *range(20))
    async with working(app, server.url):
        await ledger.until_count(20)
        await eventually(lambda: _none_pending(aredis))
        [[_, first]] = await aredis.xreadgroup("search", "other", {"orders": ">"}, count=5)
        await asyncio.wait_for(_turns(aredis, 3), 20)
        kept = await aredis.xlen("orders")
        await aredis.xack("orders", "search", *(entry_id for entry_id, _ in first))
        await eventually(lambda: is_as_long_as(aredis, 15))
        [[_, rest]] = await aredis.xreadgroup("search", "other", {"orders": ">"})
        await aredis.xack("orders", "search", *(entry_id for entry_id, _ in rest[1:]))
        await asyncio.wait_for(_turns(aredis, 3), 20)
        blocked = await aredis.xlen("orders")
        await aredis.xack("orders", "search", rest[0][0])
        await eventually(lambda: is_as_long_as(aredis, 0))

    assert (20, 15) == (kept, blocked)
    assert list(range(20)) == [int(fields[b"n"]) for _, fields in [*first, *rest]]


async def _turns(client, count: int) -> None:
    """Wait until workers have trimmed so often."""
    for _ in range(count):
        await client.delete("{orders}:sw:trim")
        await eventually(lambda: client.exists("{orders}:sw:trim"))


async def _none_pending(client) -> bool:
    return (await client.xpending("orders", "billing"))["pending"] == 0


async def test_who_comes_late_to_what_was_handled_and_deleted_writes_nothing(server, aredis):
    """Its lease was lost while it ran, another worker has handled the entry, and it is gone: no second retry, no second dead letter."""
    app, ledger, gate = an_app(retention=WHEN_ACKED, lease=timedelta(milliseconds=400)), Ledger(), asyncio.Event()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(ctx.delivery.consumer)
        if len(ledger.seen) == 1:
            while not gate.is_set():
                try:
                    await gate.wait()
                except asyncio.CancelledError:  # as a thread would, it goes on
                    continue
            raise Reject("too late")

    await add(aredis, 1)
    async with working(app, server.url) as first:
        await ledger.until_count(1)
        leases = first._consumers[0]._leases
        await asyncio.to_thread(leases.stop)
        async with working(app, server.url):
            await ledger.until_count(2)
            await eventually(lambda: is_as_long_as(aredis, 0))
            gate.set()
            await eventually(lambda: asyncio.sleep(0, first.in_flight == 0))

    assert [] == await dead_letters(aredis)
    assert 0 == await aredis.zcard("{orders}:due:billing")


@pytest.mark.parametrize("step", ["ack_and_delete", "settle_commit", "settle_retry", "settle_dead_letter"])
async def test_a_settlement_whose_reply_was_lost_is_done_once(server, aredis, step):
    """It is repeated, when the entry has gone, and changes nothing more."""
    app, ledger = an_app(retention=WHEN_ACKED), Ledger()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(ctx.delivery.attempt)
        if step == "settle_commit":
            ctx.publish("invoices", {"n": 1})
        elif step == "settle_retry" and ctx.delivery.attempt == 1:
            raise ValueError
        elif step == "settle_dead_letter":
            raise Reject("no")

    with Proxy(server.url) as proxy:
        proxy.drop_reply(step, when=nth(1))
        await add(aredis, 1)
        code = await run_burst(app, proxy.url)

    assert 0 == code
    assert ([1, 2] if step == "settle_retry" else [1]) == ledger.seen
    assert int(step == "settle_commit") == await aredis.xlen("invoices")
    assert int(step == "settle_dead_letter") == await aredis.xlen("{orders}:dlq:billing")
    assert await is_as_long_as(aredis, 0)


# ---- bounded -------------------------------------------------------------------------------------------------------------------


async def test_a_stream_is_as_long_as_it_may_be(server, aredis):
    """The newest stay."""
    app, ledger = an_app(retention={"orders": Retention(max_length=30)}), Ledger()

    @app.handler("orders")
    async def charge(order: Order) -> None:
        await ledger.note(order.n)

    await add(aredis, *range(250))
    async with working(app, server.url):
        await eventually(lambda: is_as_long_as(aredis, 30))

    assert 250 == len(ledger.seen)
    assert [b"%d" % n for n in range(220, 250)] == [fields[b"n"] for _, fields in await aredis.xrange("orders")]


async def test_what_is_too_old_goes(server, aredis):
    """The rest stays, acknowledged or not."""
    app = an_app(retention={"orders": Retention(max_age=timedelta(hours=1))})

    @app.handler("orders")
    async def charge(order: Order) -> None: ...

    for n in range(250):
        await aredis.xadd("orders", {"n": n}, id=f"{1_700_000_000_000 + n}-0")
    await add(aredis, 250, 251)
    async with working(app, server.url):
        await eventually(lambda: is_as_long_as(aredis, 2))


async def test_a_group_that_holds_a_stream_back_is_named_in_the_log_and_in_the_status(server, aredis, monkeypatch):
    """Until it has caught up; nothing is taken from it meanwhile."""
    monkeypatch.setattr(trimmer, "SAID_AFTER_SECONDS", 0.5)
    app = an_app(retention={"orders": Retention(max_length=3)})

    @app.handler("orders")
    async def charge(order: Order) -> None: ...

    await aredis.xgroup_create("orders", "search", id="0", mkstream=True)
    await add(aredis, *range(10))
    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url) as process:
            await eventually(lambda: asyncio.sleep(0, process.status().held_back))
            held_back, length = process.status().held_back, await aredis.xlen("orders")
            [[_, given]] = await aredis.xreadgroup("search", "other", {"orders": ">"})
            await aredis.xack("orders", "search", *(entry_id for entry_id, _ in given))
            await eventually(lambda: asyncio.sleep(0, not process.status().held_back))

    assert ("orders: undelivered in group search",) == held_back
    assert (10, 10, 3) == (length, len(given), await aredis.xlen("orders"))
    [said] = [line for line in lines if line["event"] == "stream.held_back"]
    assert ("warning", "orders", "search", 10) == (said["log_level"], said["stream"], said["group"], said["length"])
    assert [3] == [line["length"] for line in lines if line["event"] == "stream.released"]


async def test_nothing_goes_before_all_groups_of_the_program_are_there(server, aredis):
    """A handler of another process, which was never started, would begin with the first entry."""
    app, ledger = an_app(retention={"orders": Retention(max_length=1)}), Ledger()

    @app.handler("orders")
    async def charge(order: Order) -> None:
        await ledger.note(order.n)

    @app.handler("orders", group="search")
    async def index(order: Order) -> None:
        await ledger.note(-order.n)

    await add(aredis, 1, 2, 3)
    async with working(app, server.url, handlers=("charge",)):
        await ledger.until_count(3)
        await asyncio.wait_for(_turns(aredis, 3), 20)
        kept = await aredis.xlen("orders")
    async with working(app, server.url, handlers=("index",)):
        await eventually(lambda: is_as_long_as(aredis, 1))

    assert 3 == kept
    assert [-3, -2, -1, 1, 2, 3] == sorted(ledger.seen)


# ---- ghosts --------------------------------------------------------------------------------------------------------------------


async def test_an_entry_trimmed_in_a_workers_hands_is_an_alarm_and_is_finished(server, aredis):
    """By whoever trims without asking: it is counted, the worker that has it ends it, and what it publishes is written."""
    app = an_app(retention=WHEN_ACKED, lease=timedelta(milliseconds=600))
    ledger, gate = Ledger(), asyncio.Event()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(order.n)
        await gate.wait()
        ctx.publish("invoices", {"n": order.n})

    keeps_trimmed = (await aredis.info("server"))["redis_version"].startswith("6.2")
    await add(aredis, 1)
    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url) as process:
            await ledger.until_count(1)
            await aredis.xtrim("orders", maxlen=0)
            if not keeps_trimmed:
                await eventually(lambda: asyncio.sleep(0, process.status().trimmed))
            gate.set()
            await eventually(lambda: asyncio.sleep(0, process.in_flight == 0))
            found = process.status().trimmed

    assert int(not keeps_trimmed) == found
    assert int(not keeps_trimmed) == len([line for line in lines if line["event"] == "entries.trimmed_while_pending"])
    assert [1] == ledger.seen
    assert 1 == await aredis.xlen("invoices")
    assert not [line for line in lines if line["event"] in ("lease.lost", "commit.not_pending")]


async def test_an_entry_trimmed_under_a_dead_worker_is_an_alarm_in_the_status(server, aredis):
    """On 6.2, too, where the server does not tell which it is."""
    app, ledger = an_app(lease=timedelta(milliseconds=400)), Ledger()

    @app.handler("orders")
    async def charge(order: Order) -> None:
        await ledger.note(order.n)

    await aredis.xgroup_create("orders", "billing", id="0", mkstream=True)
    await add(aredis, 1, 2)
    await aredis.xreadgroup("billing", "dead", {"orders": ">"}, count=1)
    await aredis.xtrim("orders", maxlen=1, approximate=False)
    async with working(app, server.url) as process:
        await eventually(lambda: asyncio.sleep(0, process.status().trimmed == 1))

    assert [2] == ledger.seen
