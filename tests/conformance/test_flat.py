"""A worker that has been through everything holds as much as one that has just warmed up: nothing grows with what it has done."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
import redis.asyncio

from streamworker import Context, DeadLetterPolicy, Reject, Snooze
from streamworker.worker.process import WorkerProcess
from tests.harness import an_app, pending, retries_waiting, working
from tests.waiting import eventually

LIMIT = 2**20
CONCURRENCY = 20
DESCRIPTORS = Path("/proc/self/fd")
ROUNDS = int(os.environ.get("STREAMWORKER_SOAK_ROUNDS", "2"))
"""Of some 550 deliveries each, not counting what is tried again."""


def trying_everything(keep_last: int = 20):
    """An application whose handler fails in every way that an entry asks for, at its first attempt."""
    app = an_app(lease=timedelta(seconds=1), dead_letter=DeadLetterPolicy(keep_last=keep_last))

    @app.handler("orders", concurrency=CONCURRENCY, timeout=timedelta(milliseconds=300))
    async def charge(order: dict[str, str], ctx: Context) -> None:
        first = ctx.delivery.attempt == 1 and ctx.delivery.crashes == 0
        match order["way"]:
            case "failure" if first:
                raise ValueError
            case "exhaustion":
                raise ValueError
            case "rejection":
                raise Reject("no")
            case "snooze" if order["number"] not in snoozed:
                snoozed.add(order["number"])
                raise Snooze(after=timedelta(milliseconds=10))
            case "timeout" if first:
                await asyncio.sleep(1)
            case "publish":
                await ctx.publish("invoices", {"order": order["number"]}, max_length=10)

    snoozed: set[str] = set()

    @app.handler("threads", concurrency=4)
    def in_a_thread(order: dict[str, str]) -> None:
        pass

    return app


WAYS = ("success", "failure", "exhaustion", "rejection", "snooze", "timeout", "publish", "success", "success", "success")


async def a_round(client: redis.asyncio.Redis, process: WorkerProcess, number: int, size: int) -> None:
    """Entries of every kind, some of them of a worker that died, and the connections killed twice; then wait until all is settled."""
    async with client.pipeline(transaction=True) as pipe:
        for at in range(5):
            pipe.xadd("orders", {"way": "success", "number": f"{number}.dead.{at}"})
        pipe.xreadgroup("billing", f"dead-{number}", {"orders": ">"}, count=5)
        await pipe.execute()
    async with client.pipeline(transaction=False) as pipe:
        for at in range(size):
            pipe.xadd("orders", {"way": WAYS[at % len(WAYS)], "number": f"{number}.{at}", "padding": "x" * 100})
            if at % 10 == 0:
                pipe.xadd("threads", {"number": at})
                pipe.xadd("orders", {b"way": b"\xff not text"})
        await pipe.execute()
    for _ in range(2):
        await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await eventually(lambda: _has_connections(client, process), within=20)
    await eventually(lambda: _is_settled(client, process), within=40)


async def _has_connections(client, process) -> bool:
    return len(await connections(client, process)) >= 2


async def connections(client: redis.asyncio.Redis, process: WorkerProcess) -> list[dict[str, str]]:
    return [one for one in await client.client_list() if one["name"] == f"streamworker:{process.consumer}"]


async def _is_settled(client: redis.asyncio.Redis, process: WorkerProcess) -> bool:
    streams = ("orders", "threads")
    if process.in_flight or await client.xlen("{orders}:retry:billing"):
        return False
    for stream in streams:
        [group] = await client.xinfo_groups(stream)
        newest = (await client.xinfo_stream(stream))["last-generated-id"]
        if await pending(client, stream) or await retries_waiting(client, stream) or group["last-delivered-id"] != newest:
            return False
    return True


def count_descriptors() -> int:
    return len([*DESCRIPTORS.iterdir()]) if DESCRIPTORS.exists() else 0


async def measure(client: redis.asyncio.Redis, process: WorkerProcess) -> dict[str, object]:
    """What must not grow."""
    # Every connection that is opened when needed is open.
    await eventually(lambda: _all_connected(client, process))
    gc.collect()
    [consumer] = process._consumers
    return {
        "descriptors": count_descriptors(),
        # Threads are made when first needed: as many as handlers have run at once.
        "threads": {thread.name.rstrip("0123456789_") for thread in threading.enumerate()},
        "tasks": len(asyncio.all_tasks()),
        "connections": len(await connections(client, process)),
        "consumers": sorted(one["name"] for one in await client.xinfo_consumers("orders", "billing") if one["pending"]),
        "leases": consumer.in_flight,
        "bytes": process._budget.left,
        "suspects": process._isolation._suspects,
        "trips": consumer._crew._under_way,
        "held": sum(pool.lanes.held for pool in consumer._intake._pools),
        "running": (len(consumer._executor._running), len(consumer._executor._occupied)),
        "acks": len(consumer._settlement.acks._waiting),
        # One for each step and stream at most, made when first needed.
        "troubles": {stream for _, stream in consumer._settlement._troubles} | consumer._reclaimer._troubles.keys(),
        "listeners": len(process._budget._listeners),
    }


async def _all_connected(client, process) -> bool:
    return len(await connections(client, process)) == 3


@pytest.mark.one_server
@pytest.mark.timeout(30 + 30 * ROUNDS)
async def test_nothing_grows(server, aredis):
    """Deliveries of every ending, deaths of others and reconnects, again and again: the process and the server hold what they held."""
    app = trying_everything()
    async with working(app, server.url, in_flight_bytes=LIMIT) as process:
        await a_round(aredis, process, 0, 300)
        before = await measure(aredis, process)
        for number in range(1, ROUNDS + 1):
            await a_round(aredis, process, number, 500)
        after = await measure(aredis, process)
        letters = await aredis.xlen("{orders}:dlq:billing")

    assert LIMIT == before["bytes"]
    assert before == after
    assert letters < 20 + 110  # MAXLEN ~ removes whole nodes of a hundred entries
