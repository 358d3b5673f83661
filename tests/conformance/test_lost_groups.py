"""Where a group that has vanished is made again, by each policy."""

from __future__ import annotations

import asyncio
import re

import pytest
import redis

from streamworker import SetupError, StreamWorker
from streamworker.settings import Settings
from streamworker.worker.process import WorkerProcess
from tests.harness import Ledger, an_app, working
from tests.provoking import a_full_server
from tests.waiting import eventually


def taking(ledger: Ledger, **options):
    app = an_app(**options)

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        await ledger.note(int(order["order_id"]))

    return app


async def add(client, *numbers: int) -> None:
    for number in numbers:
        await client.xadd("orders", {"order_id": number})


@pytest.mark.parametrize(("policy", "handled"), [("resume", {1, 2, 3, 4}), ("earliest", {1, 2, 3, 4}), ("latest", {1, 2, 4})])
async def test_a_destroyed_group_is_made_again_where_the_policy_says(server, aredis, policy, handled):
    """Entry 3 was added while the group was gone: not skipped, unless the policy is to begin at the end. From the first entry, all of
    them are handled again; where it was, at most those since this worker last looked."""
    ledger = Ledger()

    async with working(taking(ledger, on_group_lost=policy), server.url):
        await add(aredis, 1, 2)
        await ledger.until_count(2)
        await eventually(lambda: nothing_pending(aredis))
        async with aredis.pipeline(transaction=True) as pipe:
            pipe.xgroup_destroy("orders", "billing")
            pipe.xadd("orders", {"order_id": 3})
            await pipe.execute()
        await eventually(lambda: group_is_there(aredis))
        await add(aredis, 4)
        await ledger.until(lambda seen: 4 in seen)

    assert handled == set(ledger.seen)
    assert policy != "earliest" or [1, 1, 2, 2, 3, 4] == sorted(ledger.seen)


async def test_a_worker_that_is_to_stop_says_so_and_fails(server, aredis, capsys):
    """It finishes what runs, names the repair, and its exit code is 1, so that somebody looks."""
    ledger = Ledger()
    process = WorkerProcess(taking(ledger, on_group_lost="stop"), Settings(redis_url=server.url))
    task = asyncio.create_task(process.run())
    await add(aredis, 1)
    await ledger.until_count(1)
    await aredis.xgroup_destroy("orders", "billing")
    async with asyncio.timeout(10):
        code = await task

    assert 1 == code
    assert "XGROUP CREATE orders billing" in capsys.readouterr().out
    assert [] == await aredis.xinfo_groups("orders")


@pytest.mark.parametrize("loss", ["group", "stream"])
async def test_a_restart_does_not_undo_the_stop(server, aredis, capsys, loss):
    """A worker that starts refuses too, as long as nobody has made the group again; then it begins where that one says."""
    ledger = Ledger()
    app = taking(ledger, on_group_lost="stop")
    async with working(app, server.url):
        await add(aredis, 1)
        await ledger.until_count(1)
    await (aredis.xgroup_destroy("orders", "billing") if loss == "group" else aredis.delete("orders"))
    await add(aredis, 2)
    async with asyncio.timeout(10):
        code = await WorkerProcess(app, Settings(redis_url=server.url)).run()
    refusal = capsys.readouterr().out
    groups = await aredis.xinfo_groups("orders")
    await aredis.xgroup_create("orders", "billing", "0", mkstream=True)
    async with working(app, server.url):
        await ledger.until(lambda seen: 2 in seen)

    assert (1, []) == (code, groups)
    assert "XGROUP CREATE orders billing ID MKSTREAM" in refusal


async def test_the_place_that_the_refusal_names_misses_nothing(server, aredis, capsys):
    """Neither what was pending when a worker last looked, with anybody, nor what was added since; a worker that starts names it too."""
    ledger = Ledger()
    app = taking(ledger, on_group_lost="stop")
    ids = [await aredis.xadd("orders", {"order_id": number}) for number in (1, 2, 3)]
    await aredis.xgroup_create("orders", "billing", "0")
    await aredis.xreadgroup("billing", "somebody", {"orders": ">"}, count=2)
    await aredis.xack("orders", "billing", ids[0])
    process = WorkerProcess(app, Settings(redis_url=server.url))
    task = asyncio.create_task(process.run())
    await ledger.until_count(1)
    await aredis.xgroup_destroy("orders", "billing")
    async with asyncio.timeout(10):
        await task
        await WorkerProcess(app, Settings(redis_url=server.url)).run()
    named = re.findall(r"([0-9]+-[0-9]+): from below what was pending", capsys.readouterr().out)
    await aredis.xgroup_create("orders", "billing", named[0])
    async with working(app, server.url):
        await ledger.until(lambda seen: 2 in seen)

    assert 1 == len(set(named))
    assert {2, 3} == set(ledger.seen)


async def test_a_full_server_keeps_no_stream_from_being_read(private_server, server_kind):
    """That the group exists is written down only where there is room."""
    server = private_server(server_kind)
    ledger = Ledger()
    with redis.Redis.from_url(server.url) as client:
        client.xgroup_create("orders", "billing", "0", mkstream=True)
        client.xgroup_create("{orders}:retry:billing", "billing", "0", mkstream=True)
        client.xadd("orders", {"order_id": 1})
        with a_full_server(server, client):
            async with working(taking(ledger, on_group_lost="stop"), server.url):
                await ledger.until_count(1)


def test_an_unknown_policy_is_refused():
    """With the ones there are."""
    with pytest.raises(SetupError, match="on_group_lost is one of 'resume', 'earliest', 'latest', 'stop'"):
        StreamWorker(on_group_lost="restart")


async def nothing_pending(client) -> bool:
    return (await client.xpending("orders", "billing"))["pending"] == 0


async def group_is_there(client) -> bool:
    return len(await client.xinfo_groups("orders")) == 1
