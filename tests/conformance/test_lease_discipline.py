"""A worker that cannot renew gives its entries up before another one may take them, and takes up again what is still its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from datetime import timedelta
from time import monotonic, sleep

import pytest
import redis.asyncio
import structlog

from streamworker import Context, Reject
from streamworker.delivery import Lease
from streamworker.streams.connections import Endpoint
from streamworker.worker.ghosts import Ghosts
from streamworker.worker.leases import LeaseKeeper
from tests.harness import Ledger, an_app, pending, working
from tests.torture.proxy import Proxy, Stall
from tests.waiting import eventually, wait_until

LEASE = timedelta(seconds=1)


def taking(ledger: Ledger, name: str, *, ends: bool, concurrency: int = 10):
    """An application that notes who began and who was cancelled, and when; its handlers end at once, or never."""
    app = an_app(lease=LEASE)

    @app.handler("orders", concurrency=concurrency)
    async def charge(order: dict[str, str], ctx: Context) -> None:
        number = int(order["order_id"])
        await ledger.note((name, "begins", number, monotonic(), ctx.delivery.attempt, ctx.delivery.crashes))
        if ends:
            return
        try:
            await asyncio.Event().wait()
        finally:
            await ledger.note((name, "cancelled", number, monotonic(), ctx.delivery.attempt, ctx.delivery.crashes))

    return app


def times(ledger: Ledger, name: str, what: str) -> dict[int, float]:
    return {number: at for who, event, number, at, *_ in ledger.seen if (who, event) == (name, what)}


async def add(client: redis.asyncio.Redis, *numbers: int) -> None:
    for number in numbers:
        await client.xadd("orders", {"order_id": number})


def stall_keeper(proxy: Proxy) -> None:
    """Nothing of the leases' thread gets through, on whichever connection; everything else does."""
    proxy.drop_request(lambda call: call.name in ("renew", "PING"), then=Stall())


def stall_all(proxy: Proxy) -> None:
    """Nothing gets through, also not on connections that are made later."""
    proxy.stall(new_too=True)


@pytest.mark.parametrize("stall", [stall_keeper, stall_all], ids=["keeper", "all"])
async def test_handlers_are_cancelled_before_another_worker_may_begin(server, aredis, stall):
    """For each entry of a worker that was cut off in the midst of it; the other one runs it, as that of a dead worker."""
    ledger = Ledger()

    with Proxy(server.url) as proxy:
        async with working(taking(ledger, "cut off", ends=False), proxy.url):
            await add(aredis, *range(10))
            await ledger.until_count(10)
            async with working(taking(ledger, "other", ends=True), server.url):
                stall(proxy)
                await ledger.until(lambda seen: len(times(ledger, "other", "begins")) == 10)
                await eventually(lambda: _none_pending(aredis))
                cancelled, begun = times(ledger, "cut off", "cancelled"), times(ledger, "other", "begins")
            proxy.remove()
            proxy.heal()

    assert set(range(10)) == set(cancelled) == set(begun)
    assert [] == [number for number in begun if cancelled[number] >= begun[number]]


async def test_handlers_are_cancelled_in_time_while_a_name_server_says_nothing(server, aredis, monkeypatch):
    """To find the server's address has no timeout of its own, and must hold up nothing but the renewing."""
    ledger, silent, speaks = Ledger(), threading.Event(), threading.Event()
    found = socket.getaddrinfo

    def look_up(*arguments, **options):
        if silent.is_set():
            speaks.wait(30)
        return found(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with Proxy(server.url) as proxy:
        async with working(taking(ledger, "cut off", ends=False), proxy.url):
            await add(aredis, 1)
            await ledger.until_count(1)
            silent.set()
            cut_at = monotonic()
            proxy.cut("rst")
            await ledger.until(lambda seen: 1 in times(ledger, "cut off", "cancelled"))
            cancelled_at = times(ledger, "cut off", "cancelled")[1]
            silent.clear()
            speaks.set()

    assert cancelled_at - cut_at < LEASE.total_seconds()


async def test_what_is_still_ours_is_taken_up_again_without_a_crash(server, aredis):
    """Nobody else took it meanwhile: after the cut is over it is run again here, at the same attempt, with no crash counted."""
    ledger = Ledger()

    with Proxy(server.url) as proxy:
        async with working(taking(ledger, "worker", ends=False), proxy.url):
            await add(aredis, *range(5))
            await ledger.until_count(5)
            stall_all(proxy)
            await ledger.until(lambda seen: len(times(ledger, "worker", "cancelled")) == 5)
            proxy.heal()
            await ledger.until(lambda seen: len(seen) == 15)

    assert {(1, 0)} == {(attempt, crashes) for *_, attempt, crashes in ledger.seen}


async def test_a_handler_in_a_thread_can_see_that_it_lost_its_lease(server, aredis):
    """It cannot be cancelled, so it must look; its success settles nothing, and the entry is run again only when it has ended."""
    app, runs, began, over = an_app(lease=LEASE), [], threading.Event(), threading.Event()

    @app.handler("orders")
    def charge(order: dict[str, str], ctx: Context) -> None:
        runs.append(["begins", ctx.lease_lost])
        began.set()
        while not ctx.lease_lost and not over.is_set():
            sleep(0.005)
        runs.append(["ends", ctx.lease_lost])

    with Proxy(server.url) as proxy:
        async with working(app, proxy.url) as process:
            await add(aredis, 1)
            await asyncio.to_thread(began.wait, 5)
            stall_all(proxy)
            await eventually(lambda: _length(runs, 2))
            over.set()
            proxy.heal()
            await eventually(lambda: _length(runs, 4))
            await eventually(lambda: _none_pending(aredis))
            await eventually(lambda: _holds_none(process))

    assert [["begins", False], ["ends", True], ["begins", False], ["ends", False]] == runs


async def test_an_entry_is_not_run_beside_its_own_cancelled_handler(server, aredis):
    """One that is slow to end keeps its entry and its place in this process, however long the connection is well again."""
    app, ledger, may_end = an_app(lease=LEASE), Ledger(), asyncio.Event()

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        await ledger.note("begins")
        if len(ledger.seen) == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await ledger.note("cancelled")
                await may_end.wait()
                await ledger.note("ends")
                raise

    with Proxy(server.url) as proxy, structlog.testing.capture_logs() as lines:
        async with working(app, proxy.url) as process:
            await add(aredis, 1)
            await ledger.until_count(1)
            stall_all(proxy)
            await ledger.until_count(2)
            proxy.heal()
            await eventually(lambda: _has_logged(lines, "leases.recovered"))
            # What it would be found by, twice over.
            await process._consumers[0]._intake.reconcile()
            await process._consumers[0]._intake.reconcile()
            seen = list(ledger.seen)
            may_end.set()
            await ledger.until_count(4)
            await eventually(lambda: _none_pending(aredis))

    assert ["begins", "cancelled"] == seen
    assert ["begins", "cancelled", "ends", "begins"] == ledger.seen


async def test_who_was_cut_off_takes_the_blame_back(server, aredis):
    """It ran alone, another worker had to take it for dead, and it was not: nothing is left of that death in the entry's book."""
    ledger = Ledger()
    await aredis.xgroup_create("orders", "billing", "$", mkstream=True)
    await add(aredis, 1)
    await aredis.xreadgroup("billing", "dead", {"orders": ">"})

    with Proxy(server.url) as proxy, structlog.testing.capture_logs() as lines:
        async with working(taking(ledger, "cut off", ends=False), proxy.url):
            await ledger.until_count(1)
            stall_all(proxy)
            async with working(taking(ledger, "other", ends=False), server.url):
                await ledger.until(lambda seen: "other" in {who for who, *_ in seen})
                [blamed] = await aredis.xpending_range("orders", "billing", "-", "+", 10)
                proxy.heal()
                await eventually(lambda: _has_logged(lines, "delivery.pardoned"))
                [pardoned] = await aredis.xpending_range("orders", "billing", "-", "+", 10)
                lost = [line for line in lines if line["event"] == "lease.lost"]

    assert [1_005, 5] == [blamed["times_delivered"], pardoned["times_delivered"]]
    assert blamed["consumer"] == pardoned["consumer"]
    assert 1 == len(lost)


async def test_a_handler_that_swallows_its_cancellation_does_not_keep_its_entry(server, aredis):
    """Its worker, whose leases are lost, takes it back in no sweep, however well the connection is again: another one runs it."""
    app, ledger, may_end = an_app(lease=LEASE), Ledger(), asyncio.Event()

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        await ledger.note("begins")
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                await ledger.note("swallows")

    with Proxy(server.url) as proxy:
        async with working(app, proxy.url) as process:
            await add(aredis, 1)
            await ledger.until_count(1)
            proxy.drop_request("renew", then=Stall())
            await ledger.until_count(2)
            proxy.remove()
            proxy.heal()
            swept = len([call for call in proxy.calls if call.name == "reclaim"])
            # Let its own sweeps, which are the only ones, go on until two leases are over.
            await eventually(lambda: _is_idle(aredis, 2 * LEASE))
            sweeps = len([call for call in proxy.calls if call.name == "reclaim"]) - swept
            async with working(taking(ledger, "other", ends=True), server.url):
                await ledger.until(lambda seen: len(seen) == 3)
            held = process.in_flight
            may_end.set()
            await eventually(lambda: _holds_none(process))

    assert sweeps > 0
    assert 1 == held
    assert ["begins", "swallows"] == ledger.seen[:2]
    assert ("other", "begins", 1) == ledger.seen[2][:3]


async def test_what_has_lapsed_while_it_waited_for_a_place_is_not_begun(server, aredis):
    """Where nothing here could run for longer than a lease, nobody was told yet: it is dropped, and found again without a crash."""
    app, ledger, gate = an_app(lease=LEASE), Ledger(), asyncio.Event()
    leases: list[Lease] = []

    @app.handler("orders", concurrency=1)
    async def charge(order: dict[str, str], ctx: Context) -> None:
        await ledger.note((int(order["order_id"]), ctx.delivery.attempt, ctx.delivery.crashes))
        leases.append(ctx.delivery.lease)
        await gate.wait()

    @app.handler("orders", type="another", concurrency=1)  # whose place is room for an entry that waits
    async def charge_another(order: dict[str, str]) -> None:
        return None

    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url) as process:
            await add(aredis, 1)
            await ledger.until_count(1)
            await add(aredis, 2)
            await eventually(lambda: _holds(process, 2))
            keeper, [entry_id] = process._consumers[0]._leases, await waiting_ids(aredis)
            waiting = keeper.find("orders", entry_id)
            keeper._renew_all = lambda: False  # as if its thread had stood still
            keeper._give_up_lapsed = lambda: None
            waiting.renewed_at -= LEASE.total_seconds()
            gate.set()
            await eventually(lambda: _has_logged(lines, "lease.lost"))
            await ledger.until_count(2)
            await eventually(lambda: _none_pending(aredis))

    assert waiting not in leases
    assert [(1, 1, 0), (2, 1, 0)] == ledger.seen


async def test_what_waits_to_be_settled_is_settled_as_soon_as_the_server_answers(server, aredis):
    """However long the pause between two tries has grown: whoever notices first wakes the others."""
    app, ledger, gate = an_app(lease=timedelta(seconds=60)), Ledger(), asyncio.Event()

    @app.handler("orders")
    async def charge(order: dict[str, str], ctx: Context) -> None:
        await ledger.note(int(order["order_id"]))
        await gate.wait()
        if order["order_id"] == "2":
            raise Reject("no")

    with Proxy(server.url) as proxy, structlog.testing.capture_logs() as lines:
        async with working(app, proxy.url):
            await add(aredis, 1, 2)
            await ledger.until_count(2)
            proxy.refuse()
            proxy.cut()
            with pytest.MonkeyPatch.context() as patch:
                # The next try would be long after the end of this test.
                patch.setattr("streamworker.worker.backoff.Pauses.next", lambda pauses: 3600.0)
                gate.set()
                await eventually(lambda: _has_logged(lines, "ack.failing"))
                await eventually(lambda: _has_logged(lines, "dead_letter.failing"))
            proxy.heal()
            await eventually(lambda: _none_pending(aredis))

    assert [1, 2] == sorted(ledger.seen)


async def test_a_connection_that_falls_silent_while_it_is_read_from_is_noticed_soon(server, aredis):
    """Entries that wait are read over another one."""
    ledger = Ledger()

    with Proxy(server.url) as proxy:
        rule = proxy.drop_reply("fill", then=Stall(), limit=1)
        async with working(taking(ledger, "worker", ends=True), proxy.url):
            await asyncio.to_thread(rule.happened.wait, 5)
            began = monotonic()
            await add(aredis, 1)
            await ledger.until_count(1, within=20)

    assert rule.fired
    assert monotonic() - began < 8


async def _is_idle(client, time: timedelta) -> bool:
    [row] = await client.xpending_range("orders", "billing", "-", "+", 1)
    return row["time_since_delivered"] >= time / timedelta(milliseconds=1)


def test_a_group_that_has_vanished_is_no_trouble_of_renewing(server):
    """Its reader says so, and makes it again; what cannot be renewed meanwhile is given up in time, as ever."""
    lost = threading.Event()
    with structlog.testing.capture_logs() as log:
        keeper = LeaseKeeper(
            Endpoint(server.url),
            "billing",
            timedelta(seconds=0.5),
            lambda _lease: lost.set(),
            lambda: None,
            lambda: None,
            Ghosts(structlog.get_logger()),
            structlog.get_logger(),
        )
        keeper.hold(Lease("orders", "1-0", "me", 1, monotonic(), of_retry=False))
        keeper.start()
        assert lost.wait(5)
        keeper.stop()

    assert ["lease.lost"] == [line["event"] for line in log]


class BrokenLog:
    """What writes to a pipe whose other end is closed, and nobody made it harmless."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def bind(self, **_facts: object) -> BrokenLog:
        return self

    def error(self, event: str, **_facts: object) -> None:
        self.lines.append(event)
        raise BrokenPipeError

    info = warning = error


def test_a_log_that_raises_does_not_end_the_thread_that_renews(server, redis_client):
    """What lapses later is still given up, and its handler told: without the thread two would run it, and nobody would know."""
    lost, log, lease = threading.Event(), BrokenLog(), timedelta(seconds=0.5)
    redis_client.set("orders", "no stream")
    keeper = LeaseKeeper(
        Endpoint(server.url), "billing", lease, lambda _lease: lost.set(), lambda: None, lambda: None, Ghosts(log), log
    )
    keeper.hold(Lease("orders", "1-0", "me", 1, monotonic(), of_retry=False))
    keeper.start()
    wait_until(lambda: "leases.failing" in log.lines)
    assert lost.wait(5)
    lost.clear()
    keeper.hold(Lease("orders", "2-0", "me", 1, monotonic(), of_retry=False))
    assert lost.wait(5)
    keeper.stop()


async def _none_pending(client) -> bool:
    return await pending(client) == 0


async def waiting_ids(client) -> list[str]:
    """The ids of all that is pending but the first."""
    rows = await client.xpending_range("orders", "billing", "-", "+", 10)
    return [row["message_id"].decode() if isinstance(row["message_id"], bytes) else row["message_id"] for row in rows[1:]]


async def _holds(process, count: int) -> bool:
    return process.in_flight == count


async def _holds_none(process) -> bool:
    return process.in_flight == 0


async def _length(things, count: int) -> bool:
    return len(things) >= count


async def _has_logged(lines, event: str) -> bool:
    return any(line["event"] == event for line in lines)
