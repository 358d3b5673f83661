"""What goes wrong on the server: nothing is lost, it is said once, and work resumes by itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import redis.asyncio
import structlog
from pydantic import BaseModel

from streamworker import Backoff, Context, Reject, RetryPolicy
from tests.harness import Ledger, an_app, dead_letters, pending, retries_waiting, run_burst, working
from tests.waiting import eventually

pytestmark = pytest.mark.matrix


class Order(BaseModel):
    order_id: int
    note: str = ""


def taking(ledger: Ledger, **options):
    """An application whose handler notes the order's number."""
    app = an_app(**options)

    @app.handler("orders")
    async def charge(order: Order) -> None:
        await ledger.note(order.order_id)

    return app


async def add(client: redis.asyncio.Redis, *numbers: int, stream: str = "orders") -> None:
    for number in numbers:
        await client.xadd(stream, {"order_id": number})


async def restart(server, client: redis.asyncio.Redis) -> None:
    """Kill the server and start it again; the test's own client, which does not try again by itself, connects anew."""
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.restart)
    await client.connection_pool.disconnect()


@pytest.mark.parametrize("accident", ["DEL orders", "FLUSHALL", "XGROUP DESTROY orders billing", "DEL {orders}:retry:billing"])
async def test_a_group_that_vanishes_under_a_blocked_read_is_made_again(server, aredis, accident):
    """What is published after the accident is handled; of what came before, nothing is skipped, though some may be handled again."""
    ledger = Ledger()

    async with working(taking(ledger), server.url):
        await add(aredis, 1)
        await ledger.until_count(1)
        await eventually(lambda: _is_blocked(aredis))
        await aredis.execute_command(*accident.split())
        await add(aredis, 2, 3)
        await ledger.until(lambda seen: {2, 3} <= set(seen))

    assert {1, 2, 3} == set(ledger.seen)


async def test_what_is_published_between_flushall_and_the_new_group_is_not_skipped(server, aredis):
    """The group of a stream that began anew starts at its first entry, even where its ids are lower than the last one known."""
    ledger = Ledger()

    async with working(taking(ledger), server.url):
        await aredis.xadd("orders", {"order_id": 1}, id="9999999999999-1")
        await ledger.until_count(1)
        async with aredis.pipeline(transaction=True) as pipe:
            pipe.flushall()
            pipe.xadd("orders", {"order_id": 2}, id="5-1")
            await pipe.execute()
        await ledger.until_count(2)

    assert [1, 2] == ledger.seen


async def test_a_stream_of_the_wrong_type_stops_only_itself(server, aredis):
    """Its neighbours in the same worker go on; once the key is repaired it is read too; the log says it once, not in a flood."""
    ledger = Ledger()
    app = taking(ledger)

    @app.handler("returns")
    async def take_back(order: Order) -> None:
        await ledger.note(-order.order_id)

    await aredis.set("orders", "not a stream")
    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url):
            await add(aredis, 1, 2, stream="returns")
            await ledger.until_count(2)
            await aredis.delete("orders")
            await add(aredis, 3)
            await ledger.until_count(3)

    assert [-2, -1, 3] == sorted(ledger.seen)
    assert 1 == len([line for line in lines if line["event"] == "stream.failing"])
    assert 1 == len([line for line in lines if line["event"] == "stream.recovered"])


async def test_a_stream_overwritten_while_it_is_read_comes_back(server, aredis):
    """SET over the stream ends the blocked read with an error; after the repair new entries are handled."""
    ledger = Ledger()

    async with working(taking(ledger), server.url):
        await add(aredis, 1)
        await ledger.until_count(1)
        await eventually(lambda: _is_blocked(aredis))
        await aredis.set("orders", "not a stream")
        await aredis.delete("orders")
        await add(aredis, 2)
        await ledger.until_count(2)

    assert [1, 2] == ledger.seen


@pytest.mark.parametrize(
    ("key", "event"),
    [
        ("{orders}:due:billing", "promoting.failing"),
        ("{orders}:parked:billing", "promoting.failing"),
        ("{orders}:retry:billing", "stream.failing"),
        ("{orders}:dlq:billing", "dead_letter.failing"),
    ],
)
async def test_a_key_of_the_wrong_type_is_named(server, aredis, key, event):
    """The server does not say which of several it was; nor is a set-aside entry said to be one before it is."""
    await aredis.set(key, "a string")
    await aredis.xadd("orders", {"order_id": "bad"})

    with structlog.testing.capture_logs() as lines:
        async with working(taking(Ledger()), server.url):
            await eventually(lambda: _has_logged(lines, event))
            early = await _has_logged(lines, "delivery.dead_lettered")
            await aredis.delete(key)
    said = next(line["error"] for line in lines if line["event"] == event)

    assert said.startswith(f"WRONGTYPE {key} holds a string, not a ")
    assert not early or event != "dead_letter.failing"


async def test_an_unwritable_dead_letter_key_holds_back_every_acknowledgement(server, aredis):
    """With a string in its place no malformed entry is acknowledged; after the repair there is exactly one dead letter each."""
    ledger = Ledger()
    await aredis.set("{orders}:dlq:billing", "not a stream")
    for number in range(8):
        await aredis.xadd("orders", {"order_id": f"bad {number}"})

    with structlog.testing.capture_logs() as lines:
        async with working(taking(ledger), server.url) as process:
            await eventually(lambda: _has_logged(lines, "dead_letter.failing"))
            held = await pending(aredis)
            await aredis.delete("{orders}:dlq:billing")
            await eventually(lambda: _holds(process, 0))
    letters = await dead_letters(aredis)

    assert 8 == held
    assert 8 == len({letter.notes["id"] for letter in letters}) == len(letters)
    assert 0 == await pending(aredis)
    said = [line for line in lines if line["event"] == "dead_letter.failing"]
    assert 1 == len(said)
    assert "delete that key" in said[0]["error"]


@pytest.mark.parametrize(("key", "step"), [("{orders}:parked:billing", "retry"), ("{orders}:due:billing", "retry")])
async def test_an_unwritable_retry_key_holds_back_the_acknowledgement(server, aredis, key, step):
    """Nothing is acknowledged, and nothing half written; after the repair the retry takes place."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(ctx.delivery.attempt)
        if ctx.delivery.attempt == 1:
            raise ValueError

    await aredis.set(key, "a string")
    await add(aredis, 1)
    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url) as process:
            await eventually(lambda: _has_logged(lines, f"{step}.failing"))
            held = await pending(aredis)
            others = await aredis.exists("{orders}:parked:billing", "{orders}:due:billing")
            await aredis.delete(key)
            await ledger.until_count(2)
            await eventually(lambda: _holds(process, 0))

    assert 1 == held
    assert 1 == others
    assert [1, 2] == ledger.seen


async def test_a_full_server_loses_nothing(private_server, server_kind):
    """At maxmemory, what was read is acknowledged all the same; what must be written waits, and is once there is memory again."""
    server = private_server(server_kind)
    app, ledger, full = an_app(), Ledger(), asyncio.Event()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note((order.order_id, ctx.delivery.attempt))
        await full.wait()
        if order.order_id == 2 and ctx.delivery.attempt == 1:
            raise ValueError

    async with redis.asyncio.Redis.from_url(server.url) as client:
        with structlog.testing.capture_logs() as lines:
            async with working(app, server.url) as process:
                await add(client, 1, 2, 3)
                await ledger.until_count(3)
                await client.config_set("maxmemory-policy", "noeviction")
                await client.config_set("maxmemory", "1")
                full.set()
                await eventually(lambda: _has_logged(lines, "retry.failing"))
                await eventually(lambda: _is_pending(client, 1))
                parked = await retries_waiting(client)
                await client.config_set("maxmemory", "0")
                await ledger.until_count(4)
                await eventually(lambda: _holds(process, 0))

    assert 0 == parked
    assert [(1, 1), (2, 1), (2, 2), (3, 1)] == sorted(ledger.seen)


async def test_a_server_that_is_killed_and_comes_back_loses_nothing(private_server, tmp_path, server_kind):
    """With its log on disk, every entry whose XADD was answered is handled after the restart; the worker reconnects by itself."""
    server = private_server(server_kind, data_dir=tmp_path)
    ledger = Ledger()

    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.config_set("appendfsync", "always")
        with structlog.testing.capture_logs() as lines:
            async with working(taking(ledger), server.url):
                await add(client, *range(100))
                await ledger.until_count(20)
                await restart(server, client)
                await add(client, *range(100, 150))
                await ledger.until(lambda seen: set(range(150)) <= set(seen), within=20)

    assert set(range(150)) == set(ledger.seen)
    assert 1 == len([line for line in lines if line["event"] == "reading.failing"])
    assert 1 == len([line for line in lines if line["event"] == "reading.recovered"])


async def test_a_server_that_comes_back_empty_is_worked_on_at_once(private_server, server_kind):
    """Its groups are made again, and new entries are handled."""
    server = private_server(server_kind)
    ledger = Ledger()

    async with redis.asyncio.Redis.from_url(server.url) as client, working(taking(ledger), server.url):
        await add(client, 1)
        await ledger.until_count(1)
        await restart(server, client)
        await add(client, 2)
        await ledger.until_count(2, within=20)

    assert [1, 2] == ledger.seen


async def test_connections_killed_again_and_again_leave_no_ghosts(server, aredis):
    """CLIENT KILL of everything, over and over under load: every entry is handled and nothing stays pending."""
    ledger = Ledger()

    async with working(taking(ledger), server.url) as process:
        for number in range(300):
            await add(aredis, number)
            if number % 20 == 0:
                await aredis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await ledger.until(lambda seen: set(range(300)) <= set(seen), within=20)
        await eventually(lambda: _none_pending(aredis), within=20)
        await eventually(lambda: _holds(process, 0))

    assert set(range(300)) == set(ledger.seen)


async def test_scripts_forgotten_by_the_server_are_sent_again(server, aredis):
    """SCRIPT FLUSH between deliveries changes nothing."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note((order.order_id, ctx.delivery.attempt))
        await aredis.script_flush()
        if ctx.delivery.attempt < 3:
            raise ValueError

    await add(aredis, 1, 2)
    code = await run_burst(app, server.url)

    assert 0 == code
    assert [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)] == sorted(ledger.seen)


async def test_what_a_dead_worker_left_pending_is_reclaimed_as_a_crash(server, aredis):
    """After a lease it is run again, at the same attempt; the crash is counted."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note((order.order_id, ctx.delivery.attempt, ctx.delivery.crashes))

    await aredis.xgroup_create("orders", "billing", "0", mkstream=True)
    await add(aredis, *range(120))
    await aredis.xreadgroup("billing", "dead-worker", {"orders": ">"}, count=120)
    async with working(app, server.url):
        await ledger.until_count(120, within=15)
        await eventually(lambda: _none_pending(aredis))

    assert [(number, 1, 1) for number in range(120)] == sorted(ledger.seen)


async def test_an_entry_that_killed_its_workers_is_set_aside_before_any_user_code_runs(server, aredis):
    """After a death in company and three alone it becomes a dead letter `crashed`, undecoded."""
    ledger = Ledger()
    await aredis.xgroup_create("orders", "billing", "0", mkstream=True)
    await add(aredis, 1)
    [[_, [[entry_id, _]]]] = await aredis.xreadgroup("billing", "dead-1", {"orders": ">"})
    await aredis.xclaim(
        "orders", "billing", "dead-4", 0, [entry_id], retrycount=2_007
    )  # two died with it alone, and it was running alone again

    async with working(taking(ledger), server.url):
        await eventually(lambda: aredis.exists("{orders}:dlq:billing"))
    [letter] = await dead_letters(aredis)

    assert [] == ledger.seen
    assert ("crashed", "4", "1") == tuple(letter.notes[name] for name in ("reason", "crashes", "attempts"))


async def test_an_entry_trimmed_while_it_was_pending_is_reported(server, aredis):
    """It cannot be handled any more, so it is an error in the log, and leaves the pending list."""
    ledger = Ledger()
    await aredis.xgroup_create("orders", "billing", "0", mkstream=True)
    await add(aredis, 1)
    [[_, [[entry_id, _]]]] = await aredis.xreadgroup("billing", "dead-worker", {"orders": ">"})
    await aredis.xdel("orders", entry_id)

    with structlog.testing.capture_logs() as lines:
        async with working(taking(ledger), server.url):
            await eventually(lambda: _has_logged(lines, "entries.trimmed_while_pending"))
            await eventually(lambda: _none_pending(aredis))

    assert [] == ledger.seen


async def test_an_entry_trimmed_while_its_retry_waits_is_still_handled(server, aredis):
    """A waiting retry carries its own fields."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(ctx.delivery.attempt)
        await aredis.xtrim("orders", maxlen=0)
        if ctx.delivery.attempt == 1:
            raise ValueError

    await add(aredis, 1)
    await run_burst(app, server.url)

    assert [1, 2] == ledger.seen


@pytest.mark.parametrize("ending", ["success", "failure", "rejection", "publish", "drain"])
async def test_an_entry_trimmed_while_its_handler_runs_is_still_settled(server, aredis, ending):
    """The next renewal or sweep takes it off the pending list, but for Redis 6.2; the worker alone has it in memory."""
    app, ledger, gate = an_app(lease=timedelta(milliseconds=600)), Ledger(), asyncio.Event()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(ctx.delivery.attempt)
        if ctx.delivery.attempt == 1:
            await gate.wait()
            match ending:
                case "failure":
                    raise ValueError
                case "rejection":
                    raise Reject("no")
                case "publish":
                    await ctx.publish("invoices", {"order_id": 1})
                case "drain":
                    await asyncio.Event().wait()

    keeps_trimmed = (await aredis.info("server"))["redis_version"].startswith("6.2")
    await add(aredis, 1)
    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url) as process:
            await ledger.until_count(1)
            async with aredis.pipeline(transaction=True) as pipe:
                await pipe.xtrim("orders", maxlen=0).config_resetstat().execute()
            await eventually(lambda: _has_called(aredis, "xclaim") if keeps_trimmed else _none_pending(aredis))
            await asyncio.to_thread(process._consumers[0]._leases._renew_all)
            gate.set()
            if ending != "drain":
                await eventually(lambda: _holds(process, 0))
            if ending == "failure":
                await ledger.until_count(2)

    assert [1, 2] == ledger.seen if ending == "failure" else [1] == ledger.seen
    assert not [line for line in lines if line["event"] in ("lease.lost", "delivery.abandoned")]
    assert int(ending == "rejection") == await aredis.xlen("{orders}:dlq:billing")
    assert int(ending == "publish") == await aredis.xlen("invoices")
    assert int(ending == "drain") == await aredis.xlen("{orders}:retry:billing")


async def test_a_flood_on_one_stream_does_not_hold_up_another_one_of_the_same_handler(server, aredis):
    """They take turns: the one entry of `returns` is handled among the first of a thousand others."""
    app, seen = an_app(), []

    @app.handler("orders", "returns", concurrency=2)
    async def any_of_them(order: Order, ctx: Context) -> None:
        seen.append(ctx.delivery.stream)

    async with aredis.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.xadd("orders", {"order_id": number})
        await pipe.execute()
    await add(aredis, 1, stream="returns")
    await run_burst(app, server.url)

    assert 1001 == len(seen)
    assert seen.index("returns") < 20


async def test_entries_under_our_name_that_we_never_saw_are_found_again(server, aredis):
    """What an earlier run of the same consumer name left pending is taken up at once, as a crash, without waiting for its lease."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note((order.order_id, ctx.delivery.crashes))

    await aredis.xgroup_create("orders", "billing", "0", mkstream=True)
    await add(aredis, 1, 2)
    await aredis.xreadgroup("billing", "pod-0", {"orders": ">"})
    async with working(app, server.url, consumer="pod-0"):
        await ledger.until_count(2, within=1)

    assert [(1, 1), (2, 1)] == sorted(ledger.seen)


async def test_a_lost_lease_interrupts_the_handler_and_settles_nothing(server, aredis):
    """When another consumer has the entry, our handler is cancelled, publishes nothing and acknowledges nothing."""
    app, ledger = an_app(), Ledger()
    ended = asyncio.Event()
    contexts = []

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        contexts.append(ctx)
        await ctx.publish("invoices", {"order_id": 1})
        await ledger.note(order.order_id)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    await add(aredis, 1)
    async with working(app, server.url):
        await ledger.until_count(1)
        await aredis.xclaim("orders", "billing", "thief", 0, [contexts[0].delivery.id])
        async with asyncio.timeout(5):
            await ended.wait()
        held = await aredis.xpending_range("orders", "billing", "-", "+", 10)

    assert contexts[0].lease_lost
    assert [b"thief"] == [row["consumer"] for row in held]
    assert 0 == await aredis.exists("invoices")
    assert 0 == await retries_waiting(aredis)


async def test_a_handler_that_cancels_its_own_task_has_failed(server, aredis):
    """It costs an attempt, so that it ends as a dead letter in the end; its place is free for others at once."""
    app, ledger = an_app(lease=timedelta(milliseconds=500)), Ledger()

    @app.handler("orders", concurrency=1)
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note((order.order_id, ctx.delivery.attempt))
        if order.order_id == 1:
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

    await add(aredis, 1, 2)
    async with working(app, server.url) as process:
        await eventually(lambda: aredis.exists("{orders}:dlq:billing"))
        await eventually(lambda: _holds(process, 0))
    [letter] = await dead_letters(aredis)

    assert [(1, 1), (1, 2), (1, 3), (2, 1)] == sorted(ledger.seen)
    assert "exhausted" == letter.notes["reason"]
    assert "cancelled its own task" in letter.notes["error"]


async def test_malformed_entries_that_cannot_be_set_aside_do_not_fill_the_memory(server, aredis):
    """Whatever waits to be settled takes room, also where no handler sees it: with an unwritable key, no more is held than fits."""
    app = an_app()

    @app.handler("orders", type="Known", concurrency=4)
    async def charge(order: Order) -> None:
        raise AssertionError("nothing here is for this handler")

    await aredis.set("{orders}:parked:billing", "a string")
    for number in range(50):
        await aredis.xadd("orders", {"order_id": number, "_type": "Unknown"})
    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url) as process:
            await eventually(lambda: _has_logged(lines, "retry.failing"))
            await asyncio.sleep(0)
            held = process.in_flight

    assert 4 == held


@pytest.mark.parametrize("key", ["{orders}:due:billing", "{orders}:parked:billing"])
async def test_a_waiting_retry_survives_the_loss_of_one_of_its_keys(server, aredis, key):
    """Without its due time it is due at once; without its envelope it is made anew from the stream, at its first attempt."""
    app, ledger = an_app(retry=RetryPolicy(backoff=Backoff.constant(timedelta(milliseconds=600)))), Ledger()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note((order.order_id, ctx.delivery.attempt))
        if len(ledger.seen) == 1:
            raise ValueError

    await add(aredis, 1)
    async with working(app, server.url):
        await eventually(lambda: retries_waiting(aredis))
        await aredis.delete(key)
        await ledger.until_count(2)

    assert [(1, 1), (1, 2 if "due" in key else 1)] == ledger.seen


async def test_a_group_destroyed_while_a_dead_worker_has_entries_pending_loses_none(server, aredis):
    """It is made again below what was pending when this worker last looked."""
    ledger = Ledger()
    await aredis.xgroup_create("orders", "billing", "0", mkstream=True)
    await add(aredis, *range(10))
    await aredis.xreadgroup("billing", "dead-worker", {"orders": ">"}, count=10)

    async with working(taking(ledger, lease=timedelta(minutes=5)), server.url):
        await add(aredis, *range(10, 15))
        await ledger.until_count(5)
        await aredis.xgroup_destroy("orders", "billing")
        await ledger.until(lambda seen: set(range(15)) <= set(seen))

    assert set(range(15)) == set(ledger.seen)


async def test_a_damaged_envelope_is_set_aside_and_its_neighbours_are_handled(server, aredis):
    """Something foreign in our retry stream is a malformed delivery, not an end of the worker."""
    ledger = Ledger()
    await aredis.xadd("{orders}:retry:billing", {"delivery": b"\xff not ours"})
    await aredis.xadd("{orders}:retry:billing", {"other": "fields"})
    await add(aredis, 1)

    code = await run_burst(taking(ledger), server.url)
    letters = await dead_letters(aredis)

    assert 0 == code
    assert [1] == ledger.seen
    assert ["malformed", "malformed"] == [letter.notes["reason"] for letter in letters]


async def _is_blocked(client) -> bool:
    return bool((await client.info("clients"))["blocked_clients"])


async def _has_logged(lines, event: str) -> bool:
    return any(line["event"] == event for line in lines)


async def _is_pending(client, count: int) -> bool:
    return await pending(client) == count


async def _holds(process, count: int) -> bool:
    return process.in_flight == count


async def _has_called(client, command: str) -> bool:
    return f"cmdstat_{command}" in await client.info("commandstats")


async def _none_pending(client) -> bool:
    return await pending(client) == 0
