"""What becomes of the rate, the memory and the latency where there is much of something."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from streamworker.streams.keys import keys_of
from tests.benchmarks.contest import Entrant, Measured, World
from tests.benchmarks.draining import command_of_ours, drain, ours
from tests.benchmarks.scenarios.latency import SECONDS, WARM_UP, percentiles

COUNT = 100_000
PACE = 200
LONG_AGO = 3_600_000
LEASE = 2
"""Seconds; short, as a worker looks for what is stale four times in it."""
SLOW_US = 10_000
DUE = 5_000
TOGETHER = 1_000

PARK = """
local head = '{"id": "%s", "attempt": 1, "crashes": 0, "crashes_alone": 0, "suspect": false, "misrouted": 0, "first_failed_at": null, '
local envelope = head .. '"last_error": null}\\n4:data' .. #ARGV[4] .. ':' .. ARGV[4]
for number = tonumber(ARGV[1]), tonumber(ARGV[1]) + tonumber(ARGV[2]) - 1 do
  local id = number .. '-1'
  redis.call('ZADD', KEYS[1], ARGV[3], id)
  redis.call('HSET', KEYS[2], id, string.format(envelope, id))
end
"""
"""Parks retries as a worker does: their first number, how many, when they are due, and the body."""

BODY = '{"order_id": 1, "customer": "c", "sku": "s", "quantity": 1, "price": 1.5}'


def streams(world: World) -> list[Entrant]:
    """The same number of orders, in more and more streams."""
    found = []
    for number in (1, 10, 100, 1_000):
        name = f"{number} stream{'s' if number > 1 else ''}"
        found.append(Entrant(name, partial(many_streams, world, number)))
    return found


def many_streams(world: World, number: int) -> Measured:
    """One process reads all of them."""
    count = world.size(COUNT)
    names = [world.stage.stock("json", count // number, f"of-{number}-{position}") for position in range(number)]
    asked = {"codec": "json", "count": count, "concurrency": 100}
    return drain(world, command_of_ours(world), asked, [world.tree], names)


def backlog(world: World) -> list[Entrant]:
    """Ten times as many orders lie there."""
    sizes = (("100,000 entries", COUNT), ("1,000,000 entries", 10 * COUNT))
    return [Entrant(name, partial(ours, world, codec="json", count=world.size(count))) for name, count in sizes]


def consumers(world: World) -> list[Entrant]:
    """Others have read in the group, and are still listed."""
    return [
        Entrant(f"{number} consumer{'s' if number > 1 else ''}", partial(among_consumers, world, number)) for number in (1, 1_000)
    ]


def among_consumers(world: World, number: int) -> Measured:
    """All but one of them do nothing."""

    def crowd(stream: str, group: str) -> None:
        with world.stage.client.pipeline(transaction=False) as pipeline:
            for position in range(1, number):
                pipeline.xgroup_createconsumer(stream, group, f"idle-{position}")
            pipeline.execute()

    asked = {"codec": "json", "count": world.size(COUNT), "concurrency": 100}
    return drain(world, command_of_ours(world), asked, [world.tree], prepare=crowd)


def processes(world: World) -> list[Entrant]:
    """More and more processes of one worker on one stream; one core of the server is the limit."""
    return [Entrant(f"{number} process{'es' if number > 1 else ''}", partial(in_processes, world, number)) for number in (1, 2, 4)]


def in_processes(world: World, number: int) -> Measured:
    """From the first entry that any of them handles until nothing is left; the server says when."""
    stage, count = world.stage, world.size(2 * COUNT)
    stream = stage.stock("json", count)
    asked = {"stream": stream, "codec": "json", "count": count, "concurrency": 100}
    command = command_of_ours(world, "--workers", str(number), "--health-addr", "off")
    with stage.group(stream) as group, stage.contender(command, {**asked, "group": group}, [world.tree]) as contender:
        contender.next("begins")
        began, watch = time.perf_counter(), stage.watch()
        stage.wait_until_all_is_done(stream, group)
        wall, costs = time.perf_counter() - began, watch.costs(count, 0.0)
    return {"rate": count / wall, "server_us": costs["server_us"], "server_busy": costs["server_busy"]}


def stale(world: World) -> list[Entrant]:
    """A dead consumer has left entries behind; new ones come at an even pace."""
    return [
        Entrant("none stale", partial(among_stale, world, 0)),
        Entrant("100,000 stale", partial(among_stale, world, world.size(COUNT))),
    ]


def among_stale(world: World, number: int) -> Measured:
    """How late the new ones are while the old ones are taken over, and how fast that goes."""
    stage, stream, count = world.stage, f"stale-{number}", WARM_UP + world.size(PACE * SECONDS)
    stage.client.delete(stream)
    with stage.group(stream) as group:
        _leave_behind(world, stream, group, number)
        asked: dict[str, Any] = {"stream": stream, "group": group, "does": "time", "count": count, "pace": PACE, "lease": LEASE}
        stage.client.config_set("slowlog-log-slower-than", SLOW_US)
        stage.client.slowlog_reset()
        with stage.contender(command_of_ours(world), asked, [world.tree]) as contender:
            stage.wait_for_client()
            left, began = _held_by(world, stream, group, "dead"), time.perf_counter()
            with stage.sender(world.setup, asked) as sender:
                contender.next("begins")
                sender.next("sent")
                told = contender.next("ends")
            taken, wall = left - _held_by(world, stream, group, "dead"), time.perf_counter() - began
        slow = stage.client.slowlog_len()
    return {**percentiles(told["latencies"][WARM_UP:]), "slow_commands": slow, **({"reclaimed_s": taken / wall} if number else {})}


def _leave_behind(world: World, stream: str, group: str, number: int) -> None:
    """So many entries are with a consumer that has not been heard of for an hour."""
    client = world.stage.client
    world.stage.fill(stream, "json", number)
    for _ in range(0, number, TOGETHER):
        [(_, entries)] = client.xreadgroup(group, "dead", {stream: ">"}, count=TOGETHER)  # type: ignore[misc]
        client.xclaim(stream, group, "dead", 0, [entry_id for entry_id, _ in entries], idle=LONG_AGO, justid=True)


def _held_by(world: World, stream: str, group: str, consumer: str) -> int:
    rows: Any = world.stage.client.xinfo_consumers(stream, group)
    return next((row["pending"] for row in rows if row["name"] == consumer.encode()), 0)


def parked(world: World) -> list[Entrant]:
    """Retries that are due, without and with many that are not."""
    return [
        Entrant("none parked", partial(among_parked, world, 0)),
        Entrant("1,000,000 parked", partial(among_parked, world, world.size(10 * COUNT))),
    ]


def among_parked(world: World, number: int) -> Measured:
    """How fast the due ones are promoted and handled."""
    stage, stream, due = world.stage, f"parked-{number}", world.size(DUE)
    with stage.group(stream) as group:
        keys = keys_of(stream, group)
        park = stage.client.register_script(PARK)
        in_a_day = int(time.time() * 1000) + 24 * 3_600_000
        for first in range(0, number, 10 * TOGETHER):
            park(keys=[keys.due, keys.parked], args=[10_000_000 + first, min(10 * TOGETHER, number - first), in_a_day, BODY])
        park(keys=[keys.due, keys.parked], args=[1, due, 1, BODY])
        asked = {"stream": stream, "group": group, "codec": "json", "count": due, "concurrency": 100}
        with stage.contender(command_of_ours(world), asked, [world.tree]) as contender:
            contender.next("begins")
            watch = stage.watch()
            told = contender.next("ends")
            costs = watch.costs(due, told["cpu"])
        stage.client.delete(keys.due, keys.parked, keys.retry)
    return {"promoted_s": told["count"] / told["wall"], **costs, "rss_mb": told["rss_mb"]}
