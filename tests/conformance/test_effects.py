"""What a handler writes with its acknowledgement: all of it or nothing, once, whatever is in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
from taking import KEYS, take_one

from streamworker import Context, Transaction
from streamworker.admin.acl import Role, Server, least_user
from streamworker.delivery import Ack, Lease, Outgoing
from streamworker.effects import Write
from streamworker.errors import CommitRefused, ServerError
from streamworker.streams import groups, settling
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link
from streamworker.worker import commits
from tests.factories import a_delivery
from tests.harness import Ledger, an_app, dead_letters, pending, run_burst, working
from tests.torture.proxy import Call, Cut, Effect, Proxy, nth
from tests.waiting import eventually

pytestmark = pytest.mark.matrix

HOUR = timedelta(hours=1)


def of(gather: Callable[[Transaction], object]) -> tuple[Write, ...]:
    """The writes of a transaction."""
    transaction = Transaction()
    gather(transaction)
    return transaction.writes


async def commit(link: Link, lease: Lease, gather: Callable[[Transaction], object], *publishes: Outgoing) -> bool:
    return await settling.commit(link, "billing", KEYS, lease, publishes, of(gather))


async def everything(aredis: redis.asyncio.Redis) -> dict[bytes, Any]:
    """Each key that is not ours, byte for byte."""
    return {key: await aredis.dump(key) for key in sorted(await aredis.keys("*")) if not key.startswith((b"{orders}", b"orders"))}


def every_write(tx: Transaction) -> None:
    """Each method once, on keys of which some are there."""
    tx.set("name", "Zoë", ttl=HOUR)
    tx.set("blob", b"\x00\xff")
    tx.delete("old", "not there")
    tx.expire("kept", HOUR)
    tx.incrby("counter")
    tx.incrby("counter", -3)
    tx.hset("hash", {"a": 1, b"b": 2.5, "c": "x"})
    tx.hdel("hash", "gone")
    tx.hincrby("hash", "a", 41)
    tx.zadd("ranks", {"x": 1, "y": float("-inf"), "z": 1.5})
    tx.zrem("ranks", "z")
    tx.sadd("set", "m", 7)
    tx.srem("set", "m")
    tx.rpush("list", "b", "c")
    tx.lpush("list", "a")


async def test_every_kind_of_write_does_what_its_command_does(link, aredis):
    """And in the order in which they were gathered; a publish beside them."""
    await aredis.mset({"old": "1", "kept": "1", "counter": "10"})
    await aredis.hset("hash", "gone", "1")

    assert await commit(link, await take_one(link), every_write, Outgoing("invoices", [b"n", b"1"], 100))

    assert ["Zoë".encode(), b"\x00\xff", None, b"8"] == await aredis.mget("name", "blob", "old", "counter")
    assert all(3_590 < ttl <= 3_600 for ttl in [await aredis.ttl(key) for key in ("name", "kept")])
    assert {b"a": b"42", b"b": b"2.5", b"c": b"x"} == await aredis.hgetall("hash")
    assert [(b"y", float("-inf")), (b"x", 1.0)] == await aredis.zrange("ranks", 0, -1, withscores=True)
    assert {b"7"} == await aredis.smembers("set")
    assert [b"a", b"b", b"c"] == await aredis.lrange("list", 0, -1)
    assert [{b"n": b"1"}] == [fields for _, fields in await aredis.xrange("invoices")]
    assert 0 == await pending(aredis)


REFUSED: dict[str, tuple[Callable[[Transaction], object], str]] = {
    "hash on a string": (lambda tx: tx.hset("text", {"a": 1}), "HSET text: it holds a string"),
    "removal from a string": (lambda tx: tx.srem("text", "a"), "SREM text: it holds a string"),
    "list on a set that is new": (lambda tx: (tx.sadd("s", "a"), tx.rpush("s", "b")), "RPUSH s: it holds a set"),
    "sorted set on a string that is new": (lambda tx: (tx.set("new", 1), tx.zadd("new", {"a": 1})), "ZADD new: it holds a string"),
    "number on a text": (lambda tx: tx.incrby("text"), "INCRBY text: it holds no whole number"),
    "number on a fraction": (lambda tx: tx.incrby("fraction"), "INCRBY fraction: it holds no whole number"),
    "number on a hash": (lambda tx: tx.incrby("hash"), "INCRBY hash: it holds a hash"),
    "number on a field's text": (lambda tx: tx.hincrby("hash", "word"), "HINCRBY hash: it holds no whole number"),
    "number on a text that is new": (lambda tx: (tx.set("new", "x"), tx.incrby("new")), "INCRBY new: it holds no whole number"),
    "number on a new field's text": (lambda tx: (tx.hset("h", {"f": ""}), tx.hincrby("h", "f")), "HINCRBY h: it holds no"),
    "too large a number": (lambda tx: (tx.incrby("n", 2**62), tx.incrby("n", 2**62)), "INCRBY n: the number would be too large"),
    "too large a number on the server": (lambda tx: tx.incrby("large"), "INCRBY large: the number would be too large"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_one_write_is_refused_for_keeps_all_of_them_from_being_written(link, aredis, case):
    """Others before and behind it, the publish, and the acknowledgement: none happens."""
    await aredis.mset({"text": "x", "fraction": "1.5", "large": str(2**63 - 1)})
    await aredis.hset("hash", mapping={"word": "x", "n": "1"})
    lease, before = await take_one(link), await everything(aredis)

    def gather(tx: Transaction) -> None:
        tx.incrby("first")
        REFUSED[case][0](tx)
        tx.set("last", 1)

    with pytest.raises(ServerError, match=REFUSED[case][1]) as refused:
        await commit(link, lease, gather, Outgoing("invoices", [b"n", b"1"]))

    assert "WRONGTYPE" == refused.value.code
    assert before == await everything(aredis)
    assert 1 == await pending(aredis)


FINE: dict[str, tuple[Callable[[Transaction], object], dict[str, Any]]] = {
    "another type after a delete": (lambda tx: (tx.delete("text"), tx.rpush("text", "a")), {"text": [b"a"]}),
    "a number over a text": (lambda tx: (tx.set("text", 5), tx.incrby("text", 2)), {"text": b"7"}),
    "a number after a delete": (lambda tx: (tx.delete("text"), tx.incrby("text")), {"text": b"1"}),
    "a field's number over a text": (lambda tx: (tx.hset("hash", {"word": 5}), tx.hincrby("hash", "word", -6)), {"hash": {b"word": b"-1"}}),
    "a field's number after its removal": (lambda tx: (tx.hdel("hash", "word"), tx.hincrby("hash", "word")), {"hash": {b"word": b"1"}}),
    "a hash after a delete": (lambda tx: (tx.delete("hash"), tx.hincrby("hash", "word", 3)), {"hash": {b"word": b"3"}}),
    "a text over a hash": (lambda tx: tx.set("hash", "x"), {"hash": b"x"}),
    "a large number": (lambda tx: (tx.incrby("n", 2**62), tx.incrby("n", -(2**62))), {"n": b"0"}),
    "a negative number": (lambda tx: (tx.set("n", -5), tx.incrby("n")), {"n": b"-4"}),
}  # fmt: skip


@pytest.mark.parametrize("case", FINE)
async def test_what_writes_do_to_each_other_is_taken_into_account(link, aredis, case):
    """What a key holds when its turn comes is what counts, not what it holds before."""
    await aredis.set("text", "x")
    await aredis.hset("hash", "word", "x")
    gather, expected = FINE[case]

    assert await commit(link, await take_one(link), gather)

    for key, value in expected.items():
        read = {bytes: aredis.get, list: lambda key: aredis.lrange(key, 0, -1), dict: aredis.hgetall}[type(value)]
        assert value == await read(key)


async def test_who_lost_the_entry_commits_nothing_once_another_has(link, aredis):
    """Whoever finishes first, be it the one that lost it; and a repetition after a lost reply does nothing, trimmed or not."""
    lease = await take_one(link)
    await link.call("XCLAIM", "orders", "billing", "thief", 0, lease.entry_id)

    first = await commit(link, lease, lambda tx: tx.incrby("n"))
    late = await commit(link, Lease("orders", lease.entry_id, "thief", 2, 0.0), lambda tx: tx.incrby("n"))
    await link.call("XTRIM", "orders", "MAXLEN", 0)
    again = await commit(link, lease, lambda tx: tx.incrby("n"))

    assert (True, False, False) == (first, late, again)
    assert b"1" == await aredis.get("n")


async def test_a_full_server_refuses_all_of_it(private_server, server_kind):
    """And takes all of it, once, when there is memory again."""
    link = Link(Endpoint(private_server(server_kind).url))
    try:
        await groups.create(link, KEYS.stream, "billing", "0")
        lease = await take_one(link)
        await link.call("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(ServerError) as refused:
            await commit(link, lease, every_write)
        found = await link.call("EXISTS", "counter", "name", "hash", "list")
        await link.call("CONFIG", "SET", "maxmemory", 0)
        answers = [await commit(link, lease, every_write) for _ in range(2)]
        counted = await link.call("GET", "counter")
    finally:
        await link.close()

    assert ("OOM", 0) == (refused.value.code, found)
    assert [True, False] == answers
    assert b"-2" == counted


@pytest.mark.parametrize(
    "right", ["set", "pexpire", "incrby", "hset", "hdel", "hincrby", "zadd", "zrem", "sadd", "srem", "rpush", "lpush"]
)
async def test_a_right_that_lacks_is_found_before_anything_is_written(right, server, redis_client, aredis):
    """To one command among many, wherever it stands; with all that `streamworker acl` grants, everything is written."""
    old = redis_client.info("server")["redis_version"].startswith("6.")
    user = least_user(
        Role.WORKER,
        ["orders"],
        ["billing"],
        name="limited",
        writes_to=["name", "blob", "old", "not there", "kept", "counter", "hash", "ranks", "se*", "list"],
        server=Server.REDIS_6_2 if old else Server.REDIS_7_0,
    )
    redis_client.execute_command("ACL", "SETUSER", "limited", *(">pw" if rule == ">PASSWORD" else rule for rule in user.rules))
    limited = Link(Endpoint(server.url.replace("redis://", "redis://limited:pw@", 1)))
    try:
        await groups.create(limited, "orders", "billing", "0")
        lease = await take_one(Link(Endpoint(server.url)))
        redis_client.execute_command("ACL", "SETUSER", "limited", f"-{right}")
        with pytest.raises(ServerError) as refused:
            await commit(limited, lease, every_write)
        before = await everything(aredis)
        redis_client.execute_command("ACL", "SETUSER", "limited", f"+{right}")
        committed = await commit(limited, lease, every_write)
    finally:
        await limited.close()
        redis_client.acl_deluser("limited")

    assert "NOPERM" == refused.value.code
    assert {} == before
    assert committed
    assert b"-2" == await aredis.get("counter")


async def test_the_size_of_a_commit_has_its_bounds(link, aredis, monkeypatch):
    """One that is larger is refused before it is sent, with how large it is and may be."""
    monkeypatch.setattr(commits, "MOST_COMMANDS", 3)

    def a_commit(count: int) -> commits.Commit:
        return commits.Commit(link, KEYS, a_delivery(), Ack((), of(lambda tx: [tx.incrby("n") for _ in range(count)])))

    assert isinstance(a_commit(3), commits.Commit)
    with pytest.raises(
        CommitRefused, match=r"4 writes of 4 values and 4 bytes .* takes 3 of 200,000 and 67,108,864: divide the work"
    ):
        a_commit(4)


async def test_ten_thousand_writes_are_committed_in_one_step(link, aredis):
    """The most that there can be."""
    assert await commit(link, await take_one(link), lambda tx: [tx.incrby(f"n{number % 7}") for number in range(10_000)])
    assert 10_000 == sum(int(value) for value in await aredis.mget([f"n{number}" for number in range(7)]))


# ---- a whole worker ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_handlers_writes_happen_when_it_succeeds_and_only_then(kind, server, aredis):
    """Twice failed, twice dropped; a plain function in its thread as well."""
    app = an_app()

    def work(ctx: Context) -> None:
        ctx.transaction.incrby("runs")
        ctx.transaction.hset(f"order:{ctx.delivery.id}", {"attempt": ctx.delivery.attempt})
        ctx.publish("invoices", {"n": 1})
        if ctx.delivery.attempt < 3:
            raise ValueError

    if kind == "async":

        @app.handler("orders")
        async def charge(order: dict[str, str], ctx: Context) -> None:
            work(ctx)
    else:

        @app.handler("orders")
        def charge_in_a_thread(order: dict[str, str], ctx: Context) -> None:
            work(ctx)

    entry = (await aredis.xadd("orders", {"n": 1})).decode()
    assert 0 == await run_burst(app, server.url)

    assert b"1" == await aredis.get("runs")
    assert {b"attempt": b"3"} == await aredis.hgetall(f"order:{entry}")
    assert 1 == await aredis.xlen("invoices")


async def test_a_refused_transaction_fails_the_delivery_with_a_sentence(server, aredis):
    """Retried, then set aside, with what was wrong; nothing was written."""
    app = an_app()
    await aredis.set("stock", "many")

    @app.handler("orders")
    async def charge(order: dict[str, str], ctx: Context) -> None:
        ctx.transaction.incrby("sold")
        ctx.transaction.incrby("stock", -1)

    await aredis.xadd("orders", {"n": 1})
    await run_burst(app, server.url)
    [letter] = await dead_letters(aredis)

    assert "exhausted" == letter.notes["reason"]
    assert letter.notes["error"].startswith("CommitRefused: ")
    assert "cannot INCRBY stock: it holds no whole number" in letter.notes["error"]
    assert None is await aredis.get("sold")


@pytest.mark.parametrize("trimmed", [False, True], ids=["", "trimmed"])
async def test_a_commit_whose_reply_was_lost_happens_once(server, aredis, trimmed):
    """It is repeated, and changes nothing; not even where its entry was trimmed away between."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders")
    async def charge(order: dict[str, str], ctx: Context) -> None:
        ctx.transaction.incrby("n")
        await ledger.note(ctx.delivery.id)

    def cut(call: Call) -> Effect:
        if trimmed:
            with redis.Redis.from_url(server.url) as direct:
                direct.xtrim("orders", maxlen=0)
        return Cut()

    with Proxy(server.url) as proxy:
        proxy.on(lambda call: call.name == "settle_commit" and is_answered(call), "after_execute", cut, nth(1))
        async with working(app, proxy.url) as process:
            await aredis.xadd("orders", {"n": 1})
            await ledger.until_count(1)
            await eventually(lambda: asyncio.sleep(0, process.in_flight == 0))
        answers = [call.reply for call in proxy.calls if call.name == "settle_commit" and is_answered(call)]

    assert [b":1\r\n", b":0\r\n"] == answers
    assert b"1" == await aredis.get("n")
    assert 1 == len(ledger.seen)


def is_answered(call: Call) -> bool:
    """Whether the server has run it: it had not forgotten the script."""
    return call.reply is not None and call.reply.startswith(b":")


async def test_keys_of_different_slots_are_refused_with_what_to_call_them(private_server):
    """On a node of a cluster, with the name that is wrong."""
    server = private_server("valkey", extra_args=["--cluster-enabled", "yes"])
    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await eventually(lambda: _is_up(client))
        link = Link(Endpoint(server.url))
        try:
            for key in (KEYS.stream, KEYS.retry):
                await groups.create(link, key, "billing", "0")
            lease = await take_one(link)
            delivery = a_delivery(id=lease.entry_id, lease=lease)
            writes = of(lambda tx: (tx.incrby("{orders}:n"), tx.incrby("stock")))
            with pytest.raises(CommitRefused) as refused:
                await commits.Commit(link, KEYS, delivery, Ack((), writes)).send()
            fine = await commits.Commit(link, KEYS, delivery, Ack((), writes[:1])).send()
        finally:
            await link.close()

    assert (
        "'stock' is in another slot of the cluster than 'orders', so they cannot be written in one step: "
        "give its name the hash tag {orders}"
    ) == str(refused.value)
    assert fine


async def _is_up(client: redis.asyncio.Redis) -> bool:
    return b"cluster_state:ok" in await client.execute_command("CLUSTER", "INFO")
