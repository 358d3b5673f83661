"""Consumer names that a user gives: no two living processes share one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from time import monotonic

import pytest
import redis

from streamworker import SetupError
from streamworker.settings import Settings
from streamworker.worker.process import WorkerProcess
from tests.harness import Ledger, an_app, working
from tests.provoking import a_full_server
from tests.waiting import eventually

CLAIM = "{orders}:sw:name:billing:worker-1"


def taking(ledger: Ledger):
    app = an_app(lease=timedelta(seconds=1))

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        await ledger.note(int(order["order_id"]))

    return app


async def test_a_second_process_of_the_same_name_does_not_start(server, aredis):
    """It says what to do; the first one goes on undisturbed."""
    ledger = Ledger()

    async with working(taking(ledger), server.url, consumer="worker-1"):
        with pytest.raises(SetupError, match="another living process is consumer 'worker-1' of group 'billing'"):
            await WorkerProcess(taking(Ledger()), Settings(redis_url=server.url, consumer="worker-1")).run()
        await aredis.xadd("orders", {"order_id": 1})
        await ledger.until_count(1)

    assert [1] == ledger.seen


async def test_a_name_is_free_at_once_when_its_owner_has_drained(server, aredis):
    """What is left of the claim is nobody's, and goes by itself."""
    async with working(taking(Ledger()), server.url, consumer="worker-1"):
        owner = await aredis.get(CLAIM)
    left, lasts_ms = await aredis.get(CLAIM), await aredis.pttl(CLAIM)
    began = monotonic()
    async with working(taking(Ledger()), server.url, consumer="worker-1"):
        successor = await aredis.get(CLAIM)

    assert 16 == len(owner) == len(successor)
    assert (b"", True) == (left, 0 < lasts_ms <= 667)
    assert monotonic() - began < 0.6


async def test_a_successor_of_a_killed_process_waits_until_its_claim_has_run_out(server, aredis):
    """Then it finds what that one had in hand, without waiting for a whole lease, and takes it for what a worker has died with."""
    ledger = Ledger()
    await aredis.xgroup_create("orders", "billing", "0", mkstream=True)
    await aredis.xadd("orders", {"order_id": 1})
    await aredis.xreadgroup("billing", "worker-1", {"orders": ">"})
    await aredis.set(CLAIM, "of the dead one", px=600)

    async with working(taking(ledger), server.url, consumer="worker-1"):
        await ledger.until_count(1)
        owner = await aredis.get(CLAIM)

    assert [1] == ledger.seen
    assert b"of the dead one" != owner


async def test_a_process_that_has_lost_its_name_stops(server, aredis, capsys):
    """It slept for so long that another one has begun under the name: it drains, and fails."""
    process = WorkerProcess(taking(Ledger()), Settings(redis_url=server.url, consumer="worker-1"))
    task = asyncio.create_task(process.run())
    await process.ready.wait()
    await aredis.set(CLAIM, "of another one", px=60_000)
    async with asyncio.timeout(10):
        code = await task

    assert 1 == code
    assert "another living process is consumer" in capsys.readouterr().out
    assert b"of another one" == await aredis.get(CLAIM)


@asynccontextmanager
async def trying(url: str, app=None):
    """A worker of the name while it starts; stopped at the end."""
    process = WorkerProcess(taking(Ledger()) if app is None else app, Settings(redis_url=url, consumer="worker-1"))
    task = asyncio.create_task(process.run())
    try:
        yield process, task
    finally:
        process.hurry()
        await asyncio.wait([task])


async def waits(process: WorkerProcess) -> bool:
    return process.status().waits_for != ""


async def test_who_waits_says_for_what(server, aredis, capsys):
    """In its status, from which /startupz answers, and in the log: without saying that the owner were dead."""
    await aredis.set(CLAIM, "of another one", px=60_000)

    async with trying(server.url) as (process, _):
        await eventually(lambda: waits(process))
        status = process.status()

    assert not status.started
    assert "the consumer name 'worker-1' in group 'billing', which another process has claimed" == status.waits_for
    assert "a process of this name lives, or was killed a moment ago" in capsys.readouterr().out


async def test_a_claim_that_is_deleted_is_not_taken_from_a_living_owner(server, aredis):
    """FLUSHDB while a second process of the name waits: the owner claims it again, and the second one never runs."""
    owner_log, second_log = Ledger(), Ledger()

    async with (
        working(taking(owner_log), server.url, consumer="worker-1") as owner,
        trying(server.url, taking(second_log)) as (second, task),
    ):
        await eventually(lambda: waits(second))
        await aredis.flushdb()
        with pytest.raises(SetupError, match="another living process"):
            await asyncio.wait_for(task, 10)
        await aredis.xadd("orders", {"order_id": 1})
        await owner_log.until_count(1)
        assert not owner.status().draining

    assert [] == second_log.seen


async def test_a_deleted_claim_of_a_dead_owner_is_taken_when_it_would_have_run_out(server, aredis):
    """Not for ever waited for."""
    await aredis.set(CLAIM, "of the dead one", px=700)

    async with trying(server.url) as (process, _):
        await eventually(lambda: waits(process))
        await aredis.delete(CLAIM)
        await asyncio.wait_for(process.ready.wait(), 5)
        assert await aredis.get(CLAIM) not in (None, b"", b"of the dead one")


async def test_on_a_full_server_a_name_is_claimed_later(private_server, server_kind, capsys):
    """The worker goes on with a warning; once there is room its name is claimed. A claim that is made lasts while the server is full."""
    server = private_server(server_kind)
    with redis.Redis.from_url(server.url) as client:
        client.xgroup_create("orders", "billing", "0", mkstream=True)
        client.xgroup_create("{orders}:retry:billing", "billing", "0", mkstream=True)
        with a_full_server(server, client):
            async with trying(server.url) as (process, task):
                await asyncio.wait_for(process.ready.wait(), 10)
                unclaimed = client.get(CLAIM)
                client.config_set("maxmemory", 0)
                await eventually(lambda: is_claimed(client))
                client.config_set("maxmemory", 1)
                owner, first_end = client.get(CLAIM), monotonic() + 1.5
                await eventually(lambda: is_past(first_end))
                assert owner == client.get(CLAIM)
                assert not task.done()

    assert unclaimed is None
    assert "consumer.name_unclaimed" in capsys.readouterr().out


async def is_claimed(client: redis.Redis) -> bool:
    return client.get(CLAIM) is not None


async def is_past(moment: float) -> bool:
    return monotonic() > moment


async def test_a_key_of_another_type_is_a_sentence_with_the_repair(server, aredis):
    """It names the key."""
    await aredis.lpush(CLAIM, "x")

    async with trying(server.url) as (_, task):
        with pytest.raises(
            SetupError, match=r"cannot claim the consumer name 'worker-1'.*delete or rename the key '{orders}:sw:name"
        ):
            await asyncio.wait_for(task, 10)


async def test_a_missing_right_is_a_sentence_with_the_repair(private_server):
    """It names the command that prints the rights."""
    server = private_server()
    with redis.Redis.from_url(server.url) as client:
        client.acl_setuser("default", enabled=True, nopass=True, commands=["+@all", "-get"], keys=["*"])
        async with trying(server.url) as (_, task):
            with pytest.raises(SetupError, match=r"cannot claim the consumer name.*streamworker acl"):
                await asyncio.wait_for(task, 10)


async def test_one_groups_claim_is_kept_while_anothers_is_waited_for(server, aredis):
    """And given up again when the other one turns out to be in use."""
    app = taking(Ledger())

    @app.handler("shipments", group="shipping")
    async def ship(order: dict[str, str]) -> None: ...

    other = "{shipments}:sw:name:shipping:worker-1"
    await aredis.set(other, "of another one", px=2_000)
    async with trying(server.url, app) as (process, _):
        await eventually(lambda: waits(process))
        first = await aredis.get(CLAIM)
        await aredis.set(other, "of another one", px=2_000)
        past_the_claims_time = monotonic() + 1
        await eventually(lambda: is_past(past_the_claims_time))
        kept = await aredis.get(CLAIM)

    assert first == kept
    assert first not in (None, b"")
    assert b"" == await aredis.get(CLAIM)


async def test_made_up_names_need_no_claim(server, aredis):
    """They are unique."""
    async with working(taking(Ledger()), server.url):
        await eventually(lambda: aredis.exists("orders"))

        assert [] == [key async for key in aredis.scan_iter("*:sw:name:*")]
