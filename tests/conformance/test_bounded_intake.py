"""What was delivered long ago comes in by as much as there is memory for, and no sweep of one stream keeps the others waiting."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import redis.asyncio
import structlog

from streamworker import Context
from streamworker.worker.budget import ByteBudget
from streamworker.worker.sweep_guard import SweepGuard
from tests.harness import Ledger, an_app, pending, working
from tests.waiting import eventually

COUNT, SIZE, LIMIT = 100, 2**20, 4 * 2**20
LEASE = timedelta(seconds=1)


class Most:
    """The most that a process has held at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        take = ByteBudget.take

        def noted(budget: ByteBudget, size: int) -> None:
            take(budget, size)
            self.bytes = max(self.bytes, budget._held)

        monkeypatch.setattr(ByteBudget, "take", noted)


async def leave_pending(client: redis.asyncio.Redis, consumer: str, *, count: int, size: int, stream: str = "orders") -> None:
    """Large entries in the hands of a consumer of which nothing is heard any more."""
    await client.xgroup_create(stream, "billing", id="0", mkstream=True)
    for number in range(count):
        await client.xadd(stream, {"number": number, "body": b"x" * size})
        await client.xreadgroup("billing", consumer, {stream: ">"}, count=1)


@pytest.mark.parametrize("consumer", ["me", "another"], ids=["under our own name", "of a dead worker"])
async def test_a_mountain_of_pending_entries_is_taken_up_within_the_memory(server, aredis, monkeypatch, consumer):
    """Each is handled, and counts its one crash in company; never more is held than the limit and one entry, however much waits."""
    most, ledger, app = Most(monkeypatch), Ledger(), an_app(lease=LEASE)

    @app.handler("orders")
    async def charge(order: dict[str, str], ctx: Context) -> None:
        await ledger.note((int(order["number"]), ctx.delivery.attempt, ctx.delivery.crashes))

    await leave_pending(aredis, consumer, count=COUNT, size=SIZE)
    async with working(app, server.url, consumer="me", in_flight_bytes=LIMIT):
        await ledger.until(lambda seen: len({number for number, *_ in seen}) == COUNT, within=40)
        await eventually(lambda: _none_pending(aredis))

    assert [(number, 1, 1) for number in range(COUNT)] == sorted(ledger.seen)
    assert most.bytes <= LIMIT + SIZE + 1_000


async def test_a_reply_that_was_lost_comes_back_within_the_memory(server, aredis, monkeypatch):
    """While handlers hold all that there is room for, nothing is taken up; as they end, the rest is, with no crash counted."""
    most, ledger, app, gate = Most(monkeypatch), Ledger(), an_app(lease=timedelta(seconds=30)), asyncio.Event()

    @app.handler("orders", concurrency=100)
    async def charge(order: dict[str, str], ctx: Context) -> None:
        await ledger.note((int(order["number"]), ctx.delivery.attempt, ctx.delivery.crashes))
        await gate.wait()

    async with working(app, server.url, in_flight_bytes=LIMIT) as process:
        [consumer] = process._consumers
        process.pause(True)
        for number in range(20):
            await aredis.xadd("orders", {"number": number, "body": b"x" * SIZE})
        # Read under the worker's name, but not by it.
        await aredis.xreadgroup("billing", process.consumer, {"orders": ">"}, count=20)
        consumer._reader.doubt()
        process.pause(False)
        await ledger.until_count(4)
        held = process.in_flight
        gate.set()
        await ledger.until_count(20)
        await eventually(lambda: _none_pending(aredis))

    assert 4 == held
    assert [(number, 1, 0) for number in range(20)] == sorted(ledger.seen)
    assert most.bytes <= LIMIT + SIZE + 1_000


async def test_a_flood_of_stale_entries_on_one_stream_leaves_the_others_their_sweeps(server, aredis):
    """The few of the second stream are run before the many of the first are over."""
    ledger, app = Ledger(), an_app(lease=LEASE)

    @app.handler("many")
    async def one_of_many(order: dict[str, str]) -> None:
        await ledger.note("many")

    @app.handler("few")
    async def one_of_few(order: dict[str, str]) -> None:
        await ledger.note("few")

    await leave_pending(aredis, "another", count=300, size=10, stream="many")
    await leave_pending(aredis, "another", count=3, size=10, stream="few")
    async with working(app, server.url):
        await ledger.until_count(303, within=30)

    assert ledger.seen.index("few") <= 200


async def test_a_sweep_that_was_not_made_tells_of_no_recovery(server, aredis):
    """Held back, it has tried nothing; what was wrong is said to be over only when a sweep went well."""
    app = an_app(lease=LEASE)

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        return None

    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url) as process:
            [consumer] = process._consumers
            reclaimer, [binding] = consumer._reclaimer, consumer._plan.bindings
            reclaimer.stop()
            await aredis.rename("{orders}:retry:billing", "aside")
            await aredis.set("{orders}:retry:billing", "no stream")
            reclaimer._stopping = False
            reclaimer._guard = SweepGuard(LEASE, -1_000.0)  # its own, which no trouble of the reader holds
            await aredis.delete(binding.keys.sweep)
            await reclaimer._guarded(binding)
            reclaimer._guard.hold(1e12)
            await reclaimer._guarded(binding)
            said = [line["event"] for line in lines if line["event"].startswith("reclaiming.")]
            await aredis.rename("aside", "{orders}:retry:billing")
            reclaimer._guard = SweepGuard(LEASE, -1_000.0)
            await aredis.delete(binding.keys.sweep)
            await reclaimer._guarded(binding)
            reclaimer.stop()

    assert ["reclaiming.failing"] == said
    assert "reclaiming.recovered" in [line["event"] for line in lines]


async def _none_pending(client: redis.asyncio.Redis) -> bool:
    return await pending(client) == 0
