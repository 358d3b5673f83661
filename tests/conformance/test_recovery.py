"""A running worker gets over each trouble of its server that can pass: nothing lost, said with its repair, soon well again."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import redis
import redis.asyncio
import structlog

from streamworker import Context
from streamworker.worker.process import WorkerProcess
from tests.harness import Ledger, an_app, dead_letters, pending, working
from tests.provoking import a_stale_replica, busy, demoted, no_replicas, unable_to_persist
from tests.torture.proxy import Proxy, Stall
from tests.waiting import eventually

SOON = 8.0
"""Within so many seconds after the repair everything is handled: the longest pause between two tries is five."""


class Story:
    """A worker with some entries in its hands when the trouble comes, which are let go in the midst of it."""

    def __init__(self) -> None:
        self.started, self.done = Ledger(), Ledger()
        self.gate = asyncio.Event()
        self.app = an_app(lease=timedelta(seconds=10))

        @self.app.handler("orders")
        async def charge(order: dict[str, str]) -> None:
            await self.started.note(int(order["order_id"]))
            await self.gate.wait()
            await self.done.note(int(order["order_id"]))


async def add(client: redis.asyncio.Redis, *numbers: int) -> None:
    for number in numbers:
        await client.xadd("orders", {"order_id": number})


@asynccontextmanager
async def in_a_thread(manager):
    """Enter and leave where it may block, so that the worker in this loop goes on."""
    value = await asyncio.to_thread(manager.__enter__)
    try:
        yield value
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


async def is_settled(process: WorkerProcess, client: redis.asyncio.Redis) -> bool:
    return process.in_flight == 0 and await pending(client) == 0


def check_log(lines, *words: str, repeats: str = "") -> None:
    """Each trouble was said once, with its repair, and its end was said, or will be at the next look of those who look at times only.

    `repeats` may be said more than once: a server that loads answers, and ends the connection with that, so two troubles take turns.
    """
    said = [line for line in lines if line["event"].endswith(".failing")]
    twice = {
        what: count
        for what, count in Counter((one["event"], one["error"]) for one in said).items()
        if count > 1 and what[0] != repeats
    }
    ended = {line["event"].removesuffix(".recovered") for line in lines if line["event"].endswith(".recovered")}

    assert said
    assert {} == twice
    assert {line["event"].removesuffix(".failing") for line in said} - {"reclaiming", "promoting"} <= ended
    assert [] == [word for word in words if not any(word in line["error"] for line in said)]


async def until_said(lines, *events: str) -> None:
    async def is_said() -> bool:
        return any(line["event"] in events for line in lines)

    await eventually(is_said)


@pytest.mark.parametrize(
    ("trouble", "repair"),
    [
        (no_replicas, "mend them, and the worker goes on by itself"),
        (demoted, "point the worker at the primary"),
        (a_stale_replica, "point the worker at the primary"),  # a server refuses a write for that before it looks at its link
        (unable_to_persist, "mend its disk"),
        (busy, "end it with SCRIPT KILL"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_a_trouble_of_the_server_passes(private_server, server_kind, trouble, repair):
    """What was in hand is settled, what waited is handled, each once; soon after the repair, without any help."""
    server, story = private_server(server_kind), Story()
    async with redis.asyncio.Redis.from_url(server.url) as client:
        with redis.Redis.from_url(server.url) as hand, structlog.testing.capture_logs() as lines:
            async with working(story.app, server.url) as process:
                await add(client, *range(20))
                await story.started.until_count(10)
                async with in_a_thread(trouble(server, hand)):
                    story.gate.set()
                    await until_said(lines, "reading.failing")
                    await until_said(lines, "ack.failing")
                await add(client, *range(20, 30))
                await story.done.until_count(30, within=SOON)
                await eventually(lambda: is_settled(process, client), within=SOON)

    assert list(range(30)) == sorted(story.done.seen)
    check_log(lines, repair)


async def test_a_worker_follows_its_url_to_another_server(private_server, server_kind):
    """A master is demoted while its replica takes over: connections that a name once led to are given up, and the new ones lead on."""
    old, new, story = private_server(server_kind), private_server(server_kind), Story()
    async with redis.asyncio.Redis.from_url(old.url) as client, redis.asyncio.Redis.from_url(new.url) as successor:
        await successor.replicaof("127.0.0.1", old.port)
        await eventually(lambda: is_in_step(successor))
        with structlog.testing.capture_logs() as lines, Proxy(old.url) as name:
            async with working(story.app, name.url) as process:
                await add(client, *range(20))
                await story.started.until_count(10)
                await client.wait(1, 5_000)
                await successor.replicaof("NO", "ONE")
                name.lead_to(new.url)
                await client.replicaof("127.0.0.1", new.port)
                story.gate.set()
                await add(successor, *range(20, 30))
                await story.done.until_count(30, within=SOON)
                await eventually(lambda: is_settled(process, successor), within=SOON)

    assert list(range(30)) == sorted(story.done.seen)
    check_log(lines, "point the worker at the primary")


async def is_in_step(client: redis.asyncio.Redis) -> bool:
    return (await client.info("replication"))["master_link_status"] == "up"


async def test_a_worker_waits_until_its_server_has_loaded(private_server, server_kind, tmp_path):
    """A server that is killed and reads its log for a while says LOADING; what was written before is handled afterwards."""
    slow = ("--key-load-delay", "100")
    server, story = private_server(server_kind, data_dir=tmp_path, extra_args=slow), Story()
    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.config_set("appendfsync", "always")
        with structlog.testing.capture_logs() as lines:
            async with working(story.app, server.url) as process:
                async with client.pipeline(transaction=False) as pipe:
                    for number in range(5_000):
                        pipe.set(f"key {number}", "x")
                    await pipe.execute()
                await add(client, *range(20))
                await story.started.until_count(10)
                await asyncio.to_thread(server.kill)
                story.gate.set()
                await asyncio.to_thread(server.restart)
                await client.connection_pool.disconnect()
                await add(client, *range(20, 30))
                await story.done.until(lambda seen: len({*seen}) == 30, within=SOON)
                await eventually(lambda: is_settled(process, client), within=SOON)

    assert list(range(30)) == sorted(story.done.seen)
    check_log(lines, "loading the dataset in memory", repeats="ack.failing")


async def test_a_worker_waits_for_a_free_connection(private_server, server_kind):
    """Where the server takes no more clients, it says so until somebody leaves."""
    server, story = private_server(server_kind), Story()
    async with redis.asyncio.Redis.from_url(server.url) as client:
        with structlog.testing.capture_logs() as lines:
            async with working(story.app, server.url) as process:
                await add(client, *range(20))
                await story.started.until_count(10)
                await client.config_set("maxclients", 1)
                await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                story.gate.set()
                await eventually(lambda: _error_said(lines, "max number of clients"))
                await client.config_set("maxclients", 100)
                await story.done.until_count(20, within=SOON)
                await eventually(lambda: is_settled(process, client), within=SOON)

    assert list(range(20)) == sorted(story.done.seen)
    check_log(lines, "raise maxclients")


async def test_a_worker_gets_its_revoked_rights_back(private_server, server_kind):
    """First the right to one stream goes, then the user with its password; each is said, and nothing is lost."""
    server, story = private_server(server_kind), Story()
    all_rights = ("ACL", "SETUSER", "worker", "reset", "on", ">a-secret", "~*", "+@all")
    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.execute_command(*all_rights)
        url = server.url.replace("redis://", "redis://worker:a-secret@")
        with structlog.testing.capture_logs() as lines:
            async with working(story.app, url) as process:
                await add(client, *range(20))
                await story.started.until_count(10)
                await client.execute_command("ACL", "SETUSER", "worker", "resetkeys", "~others*")
                story.gate.set()
                await eventually(lambda: _error_said(lines, "the user lacks a right"))
                await client.execute_command("ACL", "DELUSER", "worker")
                await eventually(lambda: _error_said(lines, "the user or its password is wrong"))
                await client.execute_command(*all_rights)
                await story.done.until_count(20, within=SOON)
                await eventually(lambda: is_settled(process, client), within=SOON)

    assert list(range(20)) == sorted(story.done.seen)
    check_log(lines, "streamworker acl", "mend the URL")
    assert "a-secret" not in str(lines)


async def test_a_half_open_connection_is_noticed(private_server, server_kind):
    """Nobody answers and nobody hangs up: a blocked read is given up after its two seconds and three more, any other connection that
    went with it three later, and then all goes on."""
    server, story = private_server(server_kind), Story()
    story.gate.set()
    async with redis.asyncio.Redis.from_url(server.url) as client:
        with structlog.testing.capture_logs() as lines, Proxy(server.url) as proxy:
            async with working(story.app, proxy.url) as process:
                await add(client, 1)
                await story.done.until_count(1)
                await eventually(lambda: is_blocked(client))
                stalled_at = asyncio.get_running_loop().time()
                assert proxy.stall(Stall())
                await add(client, *range(2, 10))
                await story.done.until_count(9, within=9)
                took = asyncio.get_running_loop().time() - stalled_at
                await eventually(lambda: is_settled(process, client), within=SOON)

    assert list(range(1, 10)) == sorted(story.done.seen)
    assert took < 9
    check_log(lines, "connection to Redis was lost")


async def is_blocked(client: redis.asyncio.Redis) -> bool:
    return bool((await client.info("clients"))["blocked_clients"])


async def _error_said(lines, words: str) -> bool:
    return any(words in line.get("error", "") for line in lines)


async def test_a_read_that_was_ended_once_is_followed_by_quiet_ones(server, aredis):
    """To end a read takes one CLIENT UNBLOCK or a few; the next read blocks for its whole time again."""
    story = Story()

    async with working(story.app, server.url) as process:
        for _ in range(3):
            await eventually(lambda: is_blocked(aredis))
            process.toggle_pause()
            await eventually(lambda: _is_not_blocked(aredis))
            process.toggle_pause()
        await eventually(lambda: is_blocked(aredis))
        process._consumers[0]._reader.doubt()
        # Each turn reads once, both streams together.
        began, before = asyncio.get_running_loop().time(), await reads(aredis)
        await eventually(lambda: _grew(aredis, before + 1))
        took = asyncio.get_running_loop().time() - began

    assert took > 1


async def reads(client: redis.asyncio.Redis) -> int:
    return int((await client.info("commandstats"))["cmdstat_xreadgroup"]["calls"])


async def _grew(client: redis.asyncio.Redis, count: int) -> bool:
    return await reads(client) > count


async def _is_not_blocked(client: redis.asyncio.Redis) -> bool:
    return not await is_blocked(client)


async def test_a_publish_that_is_too_large_for_the_server_is_refused_not_tried_for_ever(private_server, server_kind):
    """The server hangs up in the midst of it; the entry fails as its own doing, and those beside it are handled all the same."""
    server, ledger = private_server(server_kind), Ledger()
    app = an_app(lease=timedelta(seconds=10))

    @app.handler("orders")
    async def charge(order: dict[str, str], ctx: Context) -> None:
        number = int(order["order_id"])
        await ledger.note((number, ctx.delivery.attempt))
        await ctx.publish("invoices", {"order_id": number, "body": "x" * (3 * 2**20 if number == 1 else 10)})

    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.config_set("proto-max-bulk-len", 2**20)
        async with working(app, server.url) as process:
            await add(client, *range(10))
            await eventually(lambda: client.exists("{orders}:dlq:billing"), within=20)
            await eventually(lambda: is_settled(process, client))
        [letter] = await dead_letters(client)
        invoices = await client.xlen("invoices")

    assert ("exhausted", [b"order_id", b"1"]) == (letter.notes["reason"], letter.fields)
    assert "proto-max-bulk-len" in letter.notes["error"]
    assert [(number, 1) for number in range(10)] == sorted(one for one in ledger.seen if one[1] == 1)
    assert 9 == invoices
