"""From the publishing of an entry to the start of its handler, at an even pace."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.contest import Entrant, Measured, World
from tests.benchmarks.draining import command_of_ours
from tests.benchmarks.places import CONTENDERS

WARM_UP = 100
"""So many of the first do not count."""
SECONDS = 4


def entrants(pace: int, world: World) -> list[Entrant]:
    """The worker beside the blocking loop; the sender is the same."""
    hand = [str(world.setup.python), str(CONTENDERS / "by_hand.py")]
    return [
        Entrant("by hand", partial(late, world, pace, hand)),
        Entrant("streamworker", partial(late, world, pace, command_of_ours(world), path=[world.tree])),
    ]


def late(world: World, pace: int, command: Sequence[str], path: Sequence[Path] = ()) -> Measured:
    """How late the handlers of entries that come at that pace start."""
    stage, stream = world.stage, f"timed-{pace}"
    count = WARM_UP + world.size(pace * SECONDS)
    asked: dict[str, Any] = {"stream": stream, "does": "time", "count": count, "pace": pace, "concurrency": 100}
    stage.client.delete(stream)
    with stage.group(stream) as group, stage.contender(command, {**asked, "group": group}, path) as contender:
        stage.wait_for_reader()
        with stage.sender(world.setup, asked) as sender:
            contender.next("begins")
            watch = stage.watch()
            sent = sender.next("sent")
            told = contender.next("ends")
            costs = watch.costs(count, told["cpu"] + sent["cpu"])
        stage.wait_for_acknowledgements([stream], group)
    costs["worker_us"] = told["cpu"] / count * 1e6
    return {**percentiles(told["latencies"][WARM_UP:]), **costs}


def percentiles(latencies: Sequence[float]) -> Measured:
    """The middle, the 99th of a hundred, and the worst, in microseconds."""
    ordered = sorted(latencies)
    at = {"p50_us": len(ordered) // 2, "p99_us": len(ordered) * 99 // 100, "max_us": len(ordered) - 1}
    return {name: ordered[position] * 1e6 for name, position in at.items()}
