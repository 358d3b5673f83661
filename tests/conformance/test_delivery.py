"""What a delivery goes through, on every real server that is there."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import structlog
from pydantic import BaseModel

from streamworker import Backoff, Context, Reject, Retry, RetryPolicy, Snooze
from streamworker.settings import Settings
from streamworker.worker.process import WorkerProcess
from tests.harness import Ledger, an_app, dead_letters, pending, retries_waiting, run_burst, working
from tests.waiting import eventually

pytestmark = pytest.mark.matrix


class Order(BaseModel):
    order_id: int
    note: str = ""


async def test_entries_of_any_producer_reach_a_typed_handler(server, aredis):
    """XADD by redis-py, by redis-cli and by `publish` give the same typed body."""
    app = an_app()
    ledger = Ledger()

    @app.handler("orders")
    async def charge(order: Order) -> None:
        await ledger.note(order)

    async with working(app, server.url):
        await aredis.xadd("orders", {"order_id": 1, "note": "redis-py"})
        address = urlsplit(server.url)
        command = ["redis-cli", "-h", address.hostname, "-p", str(address.port), "XADD", "orders", "*", "order_id", "2"]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
        await app.publish("orders", Order(order_id=3, note="publish"))
        await ledger.until_count(3)

    assert [Order(order_id=1, note="redis-py"), Order(order_id=2), Order(order_id=3, note="publish")] == ledger.seen


async def test_success_takes_the_entry_off_the_pending_list_and_leaves_it_in_the_stream(server, aredis):
    """An ack is no delete."""
    app = an_app()

    @app.handler("orders")
    async def charge(order: Order) -> None:
        pass

    for number in range(250):
        await aredis.xadd("orders", {"order_id": number})
    code = await run_burst(app, server.url)

    assert 0 == code
    assert 0 == await pending(aredis)
    assert 250 == await aredis.xlen("orders")
    assert [] == await dead_letters(aredis)


async def test_a_failing_entry_is_retried_and_then_set_aside_with_its_fields_untouched(server, aredis):
    """Attempts count from 1 to the limit; the id stays the original one; the dead letter holds the same bytes in the same order."""
    app = an_app()
    attempts = []

    @app.handler("orders")
    async def charge(order: dict[bytes, bytes], ctx: Context) -> None:
        attempts.append((ctx.delivery.id, ctx.delivery.attempt))
        raise ValueError("no such card")

    raw = [b"order_id", b"7", b"note", b"\xff\x00\n", b"note", b"twice"]
    entry_id = (await aredis.execute_command("XADD", "orders", "*", *raw)).decode()
    await run_burst(app, server.url)
    letters = await aredis.execute_command("XRANGE", "{orders}:dlq:billing", "-", "+", NEVER_DECODE=True)
    [letter] = await dead_letters(aredis)

    assert [(entry_id, 1), (entry_id, 2), (entry_id, 3)] == attempts
    assert 1 == len(letters)
    assert ("exhausted", "3", "0") == tuple(letter.notes[name] for name in ("reason", "attempts", "crashes"))
    assert ("orders", "billing", "charge", entry_id) == tuple(letter.notes[name] for name in ("stream", "group", "handler", "id"))
    assert "ValueError: no such card" == letter.notes["error"]
    assert "no such card" in letter.notes["traceback"]
    assert 0 == await pending(aredis)
    assert 0 == await aredis.xlen("{orders}:retry:billing")
    assert 0 == await aredis.hlen("{orders}:parked:billing")


async def test_a_dead_letter_keeps_repeated_names_and_any_bytes(server, aredis):
    """Read without a dict in between, the original fields come first, byte for byte."""
    app = an_app()

    @app.handler("orders")
    async def charge(order: Order) -> None:
        raise Reject("never")

    raw = [b"order_id", b"7", b"x", b"\xff\x00\n", b"x", b"twice", b"_dlq_reason", b"a foreign field"]
    await aredis.execute_command("XADD", "orders", "*", *raw)
    await run_burst(app, server.url)
    client = aredis
    script = "return redis.call('XRANGE', KEYS[1], '-', '+')[1][2]"
    fields = await client.eval(script, 1, "{orders}:dlq:billing")

    assert raw == fields[: len(raw)]
    assert b"_dlq_reason" == fields[len(raw)]
    assert b"rejected" == fields[len(raw) + 1]


async def test_what_a_handler_raises_decides(server, aredis):
    """Reject is final, Snooze is free, Retry has its own delay, and hopeless types are not retried."""
    policy = RetryPolicy(max_attempts=2, backoff=Backoff.constant(timedelta(milliseconds=10)), give_up_on=(KeyError,))
    app = an_app(retry=policy)
    seen: dict[str, list[int]] = {}

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        runs = seen.setdefault(order.note, [])
        runs.append(ctx.delivery.attempt)
        match order.note:
            case "reject":
                raise Reject("card refused")
            case "snooze" if len(runs) < 4:
                raise Snooze(after=timedelta(milliseconds=5))
            case "retry":
                raise Retry("busy", after=timedelta(milliseconds=5))
            case "hopeless":
                raise KeyError("x")

    for note in ("reject", "snooze", "retry", "hopeless", "fine"):
        await aredis.xadd("orders", {"order_id": 1, "note": note})
    await run_burst(app, server.url)
    letters = {letter.fields[3].decode(): letter.notes["reason"] for letter in await dead_letters(aredis)}

    assert {"reject": [1], "snooze": [1, 1, 1, 1], "retry": [1, 2], "hopeless": [1], "fine": [1]} == seen
    assert {"reject": "rejected", "retry": "exhausted", "hopeless": "unretryable"} == letters


async def test_a_retry_waits_outside_of_the_pending_list(server, aredis):
    """While a retry waits, the group has nothing pending, and no other group sees anything of it."""
    app = an_app(retry=RetryPolicy(backoff=Backoff.constant(timedelta(hours=1))))
    ledger = Ledger()

    @app.handler("orders")
    async def charge(order: Order) -> None:
        await ledger.note(order)
        raise ValueError

    await aredis.xadd("orders", {"order_id": 1})
    async with working(app, server.url):
        await eventually(lambda: retries_waiting(aredis))

        assert 0 == await pending(aredis)
        assert 1 == await aredis.hlen("{orders}:parked:billing")
        assert 1 == await aredis.xlen("orders")
        assert 0 == await aredis.xlen("{orders}:retry:billing")


MALFORMED = {
    "missing field": [b"note", b"x"],
    "wrong type": [b"order_id", b"seven"],
    "not UTF-8": [b"order_id", b"1", b"note", b"\xff\xfe"],
    "name not UTF-8": [b"\xff", b"1"],
    "10 MB": [b"order_id", b"x" * 10_000_000],
    "5,000 digits": [b"order_id", b"9" * 5_000],
    "deeply nested": [b"data", b"[" * 100_000],
    "empty value": [b"order_id", b""],
    "many fields": [part for number in range(4_500) for part in (b"f%d" % number, b"v")],
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_malformed_entry_is_set_aside_at_once_and_its_neighbours_are_handled(server, aredis, what):
    """On its first delivery, with a capped error and its raw fields; the entries read together with it are handled."""
    app = an_app()
    handled = []

    @app.handler("orders", concurrency=10)
    async def charge(order: Order) -> None:
        handled.append(order.order_id)

    raw = MALFORMED[what]
    await aredis.xadd("orders", {"order_id": 1})
    await aredis.execute_command("XADD", "orders", "*", *raw)
    await aredis.xadd("orders", {"order_id": 2})
    code = await run_burst(app, server.url)
    [letter] = await dead_letters(aredis)

    assert 0 == code
    assert [1, 2] == sorted(handled)
    assert ("malformed", "1") == (letter.notes["reason"], letter.notes["attempts"])
    assert len(letter.notes["error"]) <= 2_100
    assert raw == letter.fields


async def test_publishes_commit_with_the_acknowledgement_or_not_at_all(server, aredis):
    """A handler that fails has published nothing; one that succeeds has published everything, once."""
    app = an_app()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ctx.publish("invoices", {"order_id": order.order_id, "attempt": ctx.delivery.attempt})
        ctx.publish("{other}:audit", {"order_id": order.order_id}, type="Charged", headers={"tenant": "eu"})
        if ctx.delivery.attempt < 3:
            raise ValueError

    await aredis.xadd("orders", {"order_id": 1})
    await run_burst(app, server.url)

    assert [{b"order_id": b"1", b"attempt": b"3"}] == [fields for _, fields in await aredis.xrange("invoices")]
    audit = [fields for _, fields in await aredis.xrange("{other}:audit")]
    assert [{b"order_id": b"1", b"_tenant": b"eu", b"_type": b"Charged"}] == audit


async def test_what_could_not_be_committed_is_not_logged_as_acked(server, aredis, capsys):
    """It is logged as what became of it."""
    app = an_app(retry=RetryPolicy(max_attempts=1))

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ctx.publish("audit", {"order_id": order.order_id})

    await aredis.set("audit", "a string")
    await aredis.xadd("orders", {"order_id": 1})
    await run_burst(app, server.url)
    said = capsys.readouterr().out

    assert "delivery.dead_lettered" in said
    assert "delivery.acked" not in said


async def test_a_publish_that_cannot_be_written_is_a_failure_that_writes_nothing(server, aredis):
    """A target of the wrong type costs attempts like any error, so that it holds nobody's place; repaired, all is written, once."""
    app, ledger = an_app(retry=RetryPolicy(max_attempts=50, backoff=Backoff.constant(timedelta(milliseconds=100)))), Ledger()

    @app.handler("orders", concurrency=1)
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(order.order_id)
        await ctx.publish("invoices", {"order_id": order.order_id})
        if order.order_id == 1:
            await ctx.publish("audit", {"order_id": order.order_id})

    await aredis.set("audit", "a string")
    await aredis.xadd("orders", {"order_id": 1})
    await aredis.xadd("orders", {"order_id": 2})
    async with working(app, server.url) as process:
        await ledger.until(lambda seen: 2 in seen and seen.count(1) >= 2)
        before = await aredis.xlen("invoices")
        await aredis.delete("audit")
        await eventually(lambda: aredis.xlen("audit"))
        await eventually(lambda: _is_zero(process))

    assert 1 == before
    assert (2, 1) == (await aredis.xlen("invoices"), await aredis.xlen("audit"))
    assert [] == await dead_letters(aredis)


async def test_a_publish_that_can_never_be_written_ends_as_a_dead_letter(server, aredis):
    """With its reason, and the name of the key."""
    app = an_app()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ctx.publish("audit", {"order_id": order.order_id})

    await aredis.set("audit", "a string")
    await aredis.xadd("orders", {"order_id": 1})
    await run_burst(app, server.url)
    [letter] = await dead_letters(aredis)

    assert "exhausted" == letter.notes["reason"]
    assert "cannot publish to audit" in letter.notes["error"]


async def test_what_cannot_be_settled_until_the_end_of_a_drain_is_given_back_uncounted(server, aredis):
    """The worker says so, leaves nothing pending, and a worker after the repair handles it as if it were the first time."""
    app = an_app(lease=timedelta(seconds=30))
    seen = []

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        seen.append((ctx.delivery.attempt, ctx.delivery.crashes))
        raise Reject("never")

    await aredis.set("{orders}:dlq:billing", "a string")
    await aredis.xadd("orders", {"order_id": 1})
    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url, grace=timedelta(0)) as process:
            await eventually(lambda: _has_logged(lines, "dead_letter.failing"))
            process.drain("the test wants it")
    left = await pending(aredis)
    await aredis.delete("{orders}:dlq:billing")
    await run_burst(app, server.url)

    assert 0 == left
    assert 1 == len([line for line in lines if line["event"] == "delivery.given_back"])
    assert [(1, 0), (1, 0)] == seen
    assert 1 == len(await dead_letters(aredis))


@pytest.mark.parametrize("ran_alone", [False, True])
async def test_what_a_full_server_kept_from_being_settled_and_given_back_is_no_crash(server, aredis, ran_alone):
    """The drain leaves it pending and ends with 4; whoever takes it over sees neither an attempt nor a death."""
    app = an_app(lease=timedelta(seconds=1))
    seen = []

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        seen.append((ctx.delivery.attempt, ctx.delivery.crashes, ctx.delivery.history.crashes_alone))
        if len(seen) == 1:
            await aredis.config_set("maxmemory", 1)
            raise Reject("not yet")

    await aredis.config_set("maxmemory-policy", "noeviction")
    await aredis.xgroup_create("orders", "billing", "0", mkstream=True)
    await aredis.xadd("orders", {"order_id": 1})
    if ran_alone:
        await aredis.xreadgroup("billing", "dead-worker", {"orders": ">"})
    process = WorkerProcess(app, Settings(redis_url=server.url, grace=timedelta(0)))
    try:
        with structlog.testing.capture_logs() as lines:
            running = asyncio.create_task(process.run())
            await eventually(lambda: _has_logged(lines, "dead_letter.failing"))
            process.drain("the test wants it")
            code = await running
        left = await pending(aredis)
    finally:
        await aredis.config_set("maxmemory", 0)
    await run_burst(app, server.url)

    assert (4, 1) == (code, left)
    assert [(1, int(ran_alone), 0)] * 2 == seen


async def test_a_middleware_that_forgets_to_await_acknowledges_nothing(server, aredis):
    """The handler has not run, so the entry is retried, and set aside in the end with the repair."""
    app = an_app()

    @app.middleware
    async def forgetful(ctx, call_next):
        call_next(ctx).close()

    @app.handler("orders")
    async def charge(order: Order) -> None:
        raise AssertionError("never reached")

    await aredis.xadd("orders", {"order_id": 1})
    await run_burst(app, server.url)
    [letter] = await dead_letters(aredis)

    assert "await call_next(ctx)" in letter.notes["error"]


async def test_middleware_and_lifespan_surround_handlers(server, aredis):
    """The first middleware is outermost; what the lifespan yields arrives as state; it is left after the last delivery."""
    story = []

    @asynccontextmanager
    async def lifespan(app):
        story.append("open")
        yield {"rate": 3}
        story.append("close")

    app = an_app(lifespan=lifespan)

    @app.middleware
    async def outer(ctx, call_next):
        story.append("outer in")
        await call_next(ctx)
        story.append("outer out")

    @app.middleware
    async def inner(ctx, call_next):
        story.append("inner in")
        await call_next(ctx)
        story.append("inner out")

    @app.handler("orders")
    def charge(order: Order, ctx: Context) -> None:
        story.append(order.order_id * ctx.state["rate"])

    await aredis.xadd("orders", {"order_id": 7})
    await run_burst(app, server.url)

    assert ["open", "outer in", "inner in", 21, "inner out", "outer out", "close"] == story


async def test_types_on_one_stream_go_to_their_handlers(server, aredis):
    """`type=` takes what its header names, a handler without it the rest."""
    app = an_app()
    handled = []

    @app.handler("orders", type="Placed")
    async def placed(order: Order) -> None:
        handled.append(("placed", order.order_id))

    @app.handler("orders")
    async def other(order: dict[str, str], ctx: Context) -> None:
        handled.append((ctx.delivery.headers.get("type"), int(order["order_id"])))

    await aredis.xadd("orders", {"order_id": 1, "_type": "Placed"})
    await aredis.xadd("orders", {"order_id": 2, "_type": "Cancelled"})
    await aredis.xadd("orders", {"order_id": 3})
    await run_burst(app, server.url)

    assert [("placed", 1), ("Cancelled", 2), (None, 3)] == sorted(handled, key=lambda each: each[1])


async def test_an_entry_of_an_unknown_type_waits_for_a_newer_worker(server, aredis):
    """It is neither acknowledged away nor handled by the wrong handler; a worker that knows its type gets it, at attempt 1."""
    older, newer = an_app(), an_app()
    ledger = Ledger()

    @older.handler("orders", type="Placed")
    async def old_placed(order: Order) -> None:
        raise AssertionError("not for this handler")

    @newer.handler("orders", type="Refunded")
    async def refunded(order: Order, ctx: Context) -> None:
        await ledger.note((order.order_id, ctx.delivery.attempt))

    await aredis.xadd("orders", {"order_id": 1, "_type": "Refunded"})
    async with working(older, server.url):
        await eventually(lambda: retries_waiting(aredis))
    async with working(newer, server.url):
        await ledger.until_count(1)

    assert [(1, 1)] == ledger.seen
    assert [] == await dead_letters(aredis)


async def test_one_handler_takes_several_streams(server, aredis):
    """Its concurrency is shared between them."""
    app = an_app()
    running, most, handled = 0, 0, []

    @app.handler("orders", "returns", "gifts", concurrency=3)
    async def any_of_them(order: Order, ctx: Context) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        handled.append((ctx.delivery.stream, order.order_id))

    expected = [(stream, number) for stream in ("gifts", "orders", "returns") for number in range(40)]
    for stream, number in expected:
        await aredis.xadd(stream, {"order_id": number})
    await run_burst(app, server.url)

    assert expected == sorted(handled)
    assert most <= 3


async def test_no_more_is_read_than_there_is_room_for(server, aredis):
    """With a concurrency of 2 and handlers that do not end, exactly 2 entries are pending; the others stay for other workers."""
    app = an_app()
    ledger, gate = Ledger(), asyncio.Event()

    @app.handler("orders", concurrency=2)
    async def charge(order: Order) -> None:
        await ledger.note(order.order_id)
        await gate.wait()

    for number in range(10):
        await aredis.xadd("orders", {"order_id": number})
    async with working(app, server.url):
        await ledger.until_count(2)
        held = await pending(aredis)
        gate.set()
        await ledger.until_count(10)

    assert 2 == held


async def test_a_group_that_starts_at_the_latest_entry_skips_what_was_there(server, aredis):
    """`start="latest"` is XGROUP CREATE $; the default is the earliest entry."""
    app = an_app()
    late, early = Ledger(), Ledger()

    @app.handler("orders", start="latest", group="late")
    async def from_now_on(order: Order) -> None:
        await late.note(order.order_id)

    @app.handler("orders")
    async def everything(order: Order) -> None:
        await early.note(order.order_id)

    await aredis.xadd("orders", {"order_id": 1})
    async with working(app, server.url):
        await aredis.xadd("orders", {"order_id": 2})
        await late.until_count(1)
        await early.until_count(2)

    assert [2] == late.seen
    assert [1, 2] == early.seen


async def test_a_plain_redis_consumer_shares_the_load(server, aredis):
    """A redis-py consumer in the same group gets entries that ours does not get, and the other way round; together they get all."""
    app = an_app()
    ours, theirs = Ledger(), []

    @app.handler("orders", concurrency=1)
    async def charge(order: Order) -> None:
        await ours.note(order.order_id)
        await turn.wait()
        turn.clear()

    turn = asyncio.Event()
    await aredis.xgroup_create("orders", "billing", "0", mkstream=True)
    async with working(app, server.url):
        for number in range(20):
            await aredis.xadd("orders", {"order_id": number})
        while len(theirs) + len(ours.seen) < 20:
            for _, entries in await aredis.xreadgroup("billing", "plain", {"orders": ">"}, count=1):
                for entry_id, fields in entries:
                    theirs.append(int(fields[b"order_id"]))
                    await aredis.xack("orders", "billing", entry_id)
            seen = len(ours.seen)
            turn.set()
            if len(theirs) + seen < 20:
                await ours.until_count(seen + 1)

    assert list(range(20)) == sorted(theirs + ours.seen)
    assert theirs
    assert ours.seen


async def _has_logged(lines, event: str) -> bool:
    return any(line["event"] == event for line in lines)


async def _is_zero(process) -> bool:
    return process.in_flight == 0


async def test_a_slow_stream_of_one_place_is_read_again_as_soon_as_there_is_room(server, aredis):
    """The reader that waits for the other stream learns of it, also when the room opens while it is reading."""
    app = an_app()
    ledger = Ledger()

    @app.handler("orders", concurrency=1)
    async def charge(order: Order) -> None:
        await ledger.note(order.order_id)

    @app.handler("clicks")
    async def count(click: Order) -> None: ...

    for number in range(30):
        await aredis.xadd("orders", {"order_id": number})
    async with working(app, server.url):
        await ledger.until_count(30, within=5)

    assert list(range(30)) == ledger.seen


async def test_a_fresh_worker_takes_up_a_due_retry_at_once(server, aredis):
    """It does not first sleep because no group was known yet when it looked."""
    app = an_app(retry=RetryPolicy(max_attempts=2, backoff=Backoff.constant(timedelta(hours=1))))
    ledger = Ledger()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(ctx.delivery.attempt)
        if ctx.delivery.attempt == 1:
            raise ValueError

    await aredis.xadd("orders", {"order_id": 1})
    async with working(app, server.url):
        await eventually(lambda: retries_waiting(aredis))
    [entry_id] = await aredis.zrange("{orders}:due:billing", 0, 0)
    await aredis.zadd("{orders}:due:billing", {entry_id: 1})
    async with working(app, server.url):
        await ledger.until_count(2, within=3)

    assert [1, 2] == ledger.seen
