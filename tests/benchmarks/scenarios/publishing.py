"""Publishing orders: one at a time, a hundred at once, and many in one call."""

from __future__ import annotations

from functools import partial

from tests.benchmarks.contest import Entrant, Measured, World
from tests.benchmarks.places import CONTENDERS

WAYS = (
    ("redis-py, one at a time", "redis-py", "one", 5_000),
    ("redis.asyncio, one at a time", "redis.asyncio", "one", 5_000),
    ("streamworker, one at a time", "streamworker", "one", 5_000),
    ("redis.asyncio, 100 at once", "redis.asyncio", "at once", 10_000),
    ("streamworker, 100 at once", "streamworker", "at once", 50_000),
    ("redis-py, pipeline", "redis-py", "many", 50_000),
    ("redis.asyncio, pipeline", "redis.asyncio", "many", 50_000),
    ("streamworker, publish_many", "streamworker", "many", 50_000),
)


def entrants(world: World) -> list[Entrant]:
    """Each way of ours beside that of redis-py."""
    return [Entrant(name, partial(publish, world, who, way, world.size(count))) for name, who, way, count in WAYS]


def publish(world: World, who: str, way: str, count: int) -> Measured:
    """Publish so many; all must be there."""
    stage, stream = world.stage, "published"
    stage.client.delete(stream)
    asked = {"stream": stream, "who": who, "way": way, "count": count, "uvloop": world.setup.speed}
    with stage.contender([str(world.setup.python), str(CONTENDERS / "publishing.py")], asked, [world.tree]) as contender:
        contender.next("begins")
        watch = stage.watch()
        told = contender.next("ends")
        costs = watch.costs(count, told["cpu"])
    assert stage.client.xlen(stream) == count
    return {"rate": count / told["wall"], **costs, "rss_mb": told["rss_mb"]}
