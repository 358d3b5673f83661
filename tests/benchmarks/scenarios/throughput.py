"""A backlog of orders, a handler that does nothing, concurrency 100; limits, leases and log lines as they are by default."""

from __future__ import annotations

from functools import partial

from tests.benchmarks import peers
from tests.benchmarks.contest import Entrant, World
from tests.benchmarks.draining import by_hand, emptying, ours

COUNT = 100_000


def entrants(world: World) -> list[Entrant]:
    """Both codecs, each beside the loop that is written by hand for it, and a C client that decodes nothing."""
    count = world.size(COUNT)
    codecs = ("json", "fields")
    return [
        *(Entrant(f"by hand, {codec}", partial(by_hand, world, codec=codec, count=count)) for codec in codecs),
        *(Entrant(f"streamworker, {codec}", partial(ours, world, codec=codec, count=count)) for codec in codecs),
        Entrant("C client, decodes nothing", partial(emptying, world, count)),
        *peers.entrants(world, "throughput"),
    ]


def batches(world: World) -> list[Entrant]:
    """A handler that takes a hundred orders in one call."""
    asked = {"codec": "json", "count": world.size(COUNT)}
    return [
        Entrant("by hand, json", partial(by_hand, world, **asked)),
        Entrant("streamworker, batch", partial(ours, world, does="batch", concurrency=1, **asked)),
        *peers.entrants(world, "batch"),
    ]
