"""Handlers that take their time, in tasks and in threads; what the guarantees cost; what a handler publishes."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.benchmarks.contest import Entrant, World
from tests.benchmarks.draining import by_hand, ours

FOREVER = 24 * 3600
THREADS = 20


def sleeping(concurrency: int, world: World) -> list[Entrant]:
    """Ten milliseconds each, so many at once, beside an asyncio loop with a semaphore."""
    asked: dict[str, Any] = {"codec": "json", "seconds": 0.01, "concurrency": concurrency}
    asked["count"] = world.size(20_000 if concurrency < 1_000 else 60_000)
    return [
        Entrant("by hand", partial(by_hand, world, "by_hand_async.py", uvloop=world.setup.speed, **asked)),
        Entrant("streamworker", partial(ours, world, does="sleep", **asked)),
    ]


def threads(world: World) -> list[Entrant]:
    """`def` handlers, beside a ThreadPoolExecutor of as many threads."""
    found = []
    for name, seconds, count in (("no-op", 0.0, 30_000), ("1 ms", 0.001, 30_000)):
        asked: dict[str, Any] = {
            "codec": "json",
            "does": "block",
            "concurrency": THREADS,
            "seconds": seconds,
            "count": world.size(count),
        }
        found += [
            Entrant(f"by hand, {name}", partial(by_hand, world, **asked)),
            Entrant(f"streamworker, {name}", partial(ours, world, **asked)),
        ]
    return found


def price(world: World) -> list[Entrant]:
    """Everything that can be switched off, off and on: timeouts, renewals of leases, health endpoints."""
    asked = {"codec": "json", "count": world.size(100_000)}
    return [
        Entrant("everything off", partial(ours, world, "--health-addr", "off", timeout=None, lease=FOREVER, **asked)),
        Entrant("everything on", partial(ours, world, "--health-addr", "127.0.0.1:0", timeout=30, lease=30, **asked)),
    ]


def commit(world: World) -> list[Entrant]:
    """Each handler publishes one entry, together with its acknowledgement; by hand both are in one write, but not atomic."""
    asked = {"codec": "json", "does": "commit", "count": world.size(50_000)}
    return [
        Entrant("by hand, not atomic", partial(by_hand, world, **asked)),
        Entrant("streamworker", partial(ours, world, **asked)),
    ]
