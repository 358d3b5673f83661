"""A settlement whose reply is lost is repeated, and the entry may have been trimmed away between: it happens once all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
import redis
from pydantic import BaseModel
from taking import KEYS, take_one

from streamworker import Backoff, Context, Reject, RetryPolicy
from streamworker.delivery import Lease, Outgoing
from streamworker.errors import ServerError
from streamworker.streams import groups, inspecting, publishing, reading, settling
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link
from streamworker.streams.reading import Room
from tests.harness import Ledger, an_app, working
from tests.torture.proxy import Call, Cut, Effect, Proxy, nth
from tests.waiting import eventually

pytestmark = pytest.mark.matrix

DAY_MS = 24 * 60 * 60 * 1000

Settle = Callable[[Link, Lease], Awaitable[bool]]

STEPS: dict[str, Settle] = {
    "commit": lambda link, lease: settling.commit(link, "billing", KEYS, lease, [Outgoing("invoices", [b"n", b"1"])]),
    "retry": lambda link, lease: settling.retry_later(
        link, "billing", KEYS, lease, delay_ms=60_000, original_id=lease.entry_id, envelope=b"e"
    ),
    "release": lambda link, lease: settling.release(link, "billing", KEYS, lease, envelope=b"e"),
    "dead letter": lambda link, lease: settling.dead_letter(link, "billing", KEYS, lease, fields=[b"a", b"b"], keep_last=None),
}


async def written(link: Link) -> int:
    """How many things all settlements together have written."""
    lengths = [await inspecting.length(link, key) for key in ("invoices", KEYS.retry, KEYS.dead_letters)]
    return sum(lengths) + await inspecting.waiting(link, KEYS.due)


@pytest.mark.parametrize("second", STEPS)
@pytest.mark.parametrize("first", STEPS)
async def test_what_was_settled_is_not_settled_again_after_a_trim(link: Link, first: str, second: str) -> None:
    """Neither by the same step nor by another one, as when a drain ends."""
    lease = await take_one(link)

    settled = await STEPS[first](link, lease)
    await link.call("XTRIM", "orders", "MAXLEN", 0)
    repeated = await STEPS[second](link, lease)

    assert (True, False) == (settled, repeated)
    assert 1 == await written(link)


@pytest.mark.parametrize("late", [*STEPS, "recount"])
@pytest.mark.parametrize("first", STEPS)
async def test_who_lost_the_entry_does_nothing_after_its_new_owner_and_a_trim(link: Link, first: str, late: str) -> None:
    """It stood still while another took the entry over, settled it, and the stream was trimmed."""
    lease = await take_one(link)
    await link.call("XCLAIM", "orders", "billing", "thief", 0, lease.entry_id)

    settled = await STEPS[first](link, Lease("orders", lease.entry_id, "thief", 2, 0.0))
    await link.call("XTRIM", "orders", "MAXLEN", 0)
    if late == "recount":
        too_late = await settling.recount(link, "billing", KEYS, lease, 3)
    else:
        too_late = await STEPS[late](link, lease)

    assert (True, False) == (settled, too_late)
    assert 1 == await written(link)


@pytest.mark.parametrize("step", STEPS)
async def test_a_memory_that_is_something_else_holds_nothing_up(link: Link, step: str) -> None:
    """Somebody has written over it: settled all the same, trimmed or not."""
    await link.call("SET", KEYS.settled, "something else")
    kept, trimmed = await take_one(link), await take_one(link)
    await link.call("XTRIM", "orders", "MAXLEN", 0)
    await settling.renew(link, "billing", [trimmed])

    answers = [await STEPS[step](link, lease) for lease in (kept, trimmed)]

    assert [True, True] == answers
    assert 2 == await written(link)


@pytest.mark.parametrize("step", STEPS)
async def test_the_memory_is_bounded_and_ends(link: Link, step: str) -> None:
    """Ten thousand of the latest, for a day after the last."""
    await link.call("ZADD", KEYS.settled, *(word for number in range(10_000) for word in (number, f"{number}-1")))
    lease = await take_one(link)
    await STEPS[step](link, lease)

    assert 10_000 == await link.call("ZCARD", KEYS.settled)
    assert [b"1-1"] == await link.call("ZRANGE", KEYS.settled, 0, 0)
    assert [lease.entry_id.encode()] == await link.call("ZRANGE", KEYS.settled, -1, -1)
    assert DAY_MS - 10_000 < await link.call("PTTL", KEYS.settled) <= DAY_MS


@pytest.mark.parametrize("step", STEPS)
async def test_a_full_server_refuses_all_of_a_settlement(private_server, server_kind: str, step: str) -> None:
    """Nothing is written and nothing remembered, so that the same step goes through, once, when there is memory again."""
    link = Link(Endpoint(private_server(server_kind).url))
    try:
        for key in (KEYS.stream, KEYS.retry):
            await groups.create(link, key, "billing", "0")
        lease = await take_one(link)
        await link.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await link.call("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(ServerError) as refused:
            await STEPS[step](link, lease)
        found = await written(link), await link.call("EXISTS", KEYS.settled)
        await link.call("CONFIG", "SET", "maxmemory", 0)
        settled = await STEPS[step](link, lease)
        await link.call("XTRIM", "orders", "MAXLEN", 0)
        repeated = await STEPS[step](link, lease)
    finally:
        await link.close()

    assert "OOM" == refused.value.code
    assert (0, 0) == found
    assert (True, False) == (settled, repeated)


async def test_a_plain_acknowledgement_is_not_remembered(link: Link) -> None:
    """It costs what XACK costs."""
    await settling.ack(link, "billing", [await take_one(link)])

    assert 0 == await link.call("EXISTS", KEYS.settled)


@pytest.mark.parametrize("step", STEPS)
async def test_a_retry_is_not_remembered(link: Link, step: str) -> None:
    """An entry of the retry stream goes when it is settled, and cannot be taken for one that was trimmed."""
    await publishing.add(link, Outgoing(KEYS.retry, [b"delivery", b"e"]))
    [fresh], _ = await reading.fill(link, "billing", "me", [Room((KEYS.retry,), 1)], most_bytes=2**20, expected_bytes=100)
    [one] = fresh.as_taken()
    lease = Lease(one.key, one.entry.id, "me", one.count, 0.0, of_retry=True)

    answers = [await STEPS[step](link, lease) for _ in range(2)]

    assert [True, False] == answers
    assert 1 == await written(link)
    assert 0 == await link.call("EXISTS", KEYS.settled)


class Order(BaseModel):
    order_id: int


@pytest.mark.parametrize(
    ("ending", "step"),
    [("publish", "settle_commit"), ("rejection", "settle_dead_letter"), ("failure", "settle_retry"), ("drain", "settle_release")],
)
async def test_a_worker_that_did_not_hear_and_repeats_after_a_trim_settles_once(server, aredis, ending, step):
    """The server executes the step, the stream is trimmed, and only then the connection ends."""
    later = RetryPolicy(backoff=Backoff.constant(timedelta(minutes=1)))
    app, ledger = an_app(retry=later), Ledger()

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(order.order_id)
        match ending:
            case "publish":
                await ctx.publish("invoices", {"order_id": 1})
            case "rejection":
                raise Reject("no")
            case "failure":
                raise ValueError
            case "drain":
                await asyncio.Event().wait()

    def trim(call: Call) -> Effect:
        with redis.Redis.from_url(server.url) as direct:
            direct.xtrim("orders", maxlen=0)
        return Cut()

    with Proxy(server.url) as proxy:
        proxy.on(lambda call: call.name == step and is_answered(call), "after_execute", trim, nth(1))
        async with working(app, proxy.url) as process:
            await aredis.xadd("orders", {"order_id": 1})
            await ledger.until_count(1)
            if ending != "drain":
                await eventually(lambda: _has_settled(process))
        answers = [call.reply for call in proxy.calls if call.name == step and is_answered(call)]

    written = {
        "publish": await aredis.xlen("invoices"),
        "rejection": await aredis.xlen(KEYS.dead_letters),
        "failure": await aredis.zcard(KEYS.due),
        "drain": await aredis.xlen(KEYS.retry),
    }
    assert [b":1\r\n", b":0\r\n"] == answers
    assert [1] == ledger.seen
    assert {name: int(name == ending) for name in written} == written
    assert 0 == await aredis.xlen("orders")


def is_answered(call: Call) -> bool:
    """Whether the server has run it: it had not forgotten the script."""
    return call.reply is not None and call.reply.startswith(b":")


async def _has_settled(process) -> bool:
    return process.in_flight == 0
