"""Consumer names that a user gives: no two living processes share one."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from streamworker import SetupError
from streamworker.settings import Settings
from streamworker.worker.process import WorkerProcess
from tests.harness import Ledger, an_app, working
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
    """Nothing is left of the claim after a moment."""
    async with working(taking(Ledger()), server.url, consumer="worker-1"):
        assert 1 == await aredis.exists(CLAIM)
        lasts_ms = await aredis.pttl(CLAIM)

    assert await aredis.pttl(CLAIM) <= 1 < lasts_ms


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


async def test_made_up_names_need_no_claim(server, aredis):
    """They are unique."""
    async with working(taking(Ledger()), server.url):
        await eventually(lambda: aredis.exists("orders"))

        assert [] == [key async for key in aredis.scan_iter("*:sw:name:*")]
