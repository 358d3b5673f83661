"""A worker that has nothing to do, and how long it takes until it has done the first thing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.benchmarks.contest import Entrant, Measured, World
from tests.benchmarks.draining import command_of_ours
from tests.benchmarks.places import CONTENDERS

SECONDS = 10
SETTLED = 3.0


def entrants(world: World) -> list[Entrant]:
    """A process that has only imported the libraries, the loop that is written by hand, and the worker."""
    python = str(world.setup.python)
    return [
        Entrant("bare imports", partial(bare, world, [python, str(CONTENDERS / "bare.py")])),
        Entrant("by hand", partial(idle, world, [python, str(CONTENDERS / "by_hand.py")])),
        Entrant("streamworker", partial(idle, world, command_of_ours(world), [world.tree])),
    ]


def bare(world: World, command: Sequence[str]) -> Measured:
    """Its memory, and how long it takes to be there."""
    began = time.perf_counter()
    with world.stage.contender(command, {}) as contender:
        contender.next("begins")
        return {"start_ms": (time.perf_counter() - began) * 1000, "rss_mb": contender.resident_mb()}


def idle(world: World, command: Sequence[str], path: Sequence[Path] = ()) -> Measured:
    """From its start to its first delivery; then, with nothing to do, its commands, CPU and memory."""
    stage, stream, seconds = world.stage, "idle", world.size(SECONDS)
    stage.client.delete(stream)
    with stage.group(stream) as group:
        stage.fill(stream, "json", 1)
        began = time.perf_counter()
        with stage.contender(command, {"stream": stream, "group": group, "codec": "json", "count": 2}, path) as contender:
            contender.next("begins")
            start = time.perf_counter() - began
            time.sleep(SETTLED)
            stage.client.config_resetstat()
            cpu, began = contender.cpu(), time.perf_counter()
            time.sleep(seconds)
            wall = time.perf_counter() - began
            return {
                "start_ms": start * 1000,
                "commands_s": stage.commands() / wall,
                "cpu_percent": (contender.cpu() - cpu) / wall * 100,
                "rss_mb": contender.resident_mb(),
            }
