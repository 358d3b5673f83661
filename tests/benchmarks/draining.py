"""Start a program on a backlog and watch it go: the run that most scenarios are made of."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.contest import Measured, World
from tests.benchmarks.places import CONTENDERS, c_client
from tests.benchmarks.stage import Failed


def ours(world: World, *options: str, **asked: Any) -> Measured:
    """`streamworker run` of the tree under test."""
    return drain(world, command_of_ours(world, *options), {"concurrency": 100, **asked}, path=[world.tree])


def command_of_ours(world: World, *options: str) -> list[str]:
    """`streamworker run` of the tree under test, with the loop of the setup."""
    loop = "uvloop" if world.setup.speed else "asyncio"
    app = f"{CONTENDERS / 'ours.py'}:app"
    words = ["-m", "streamworker", "run", app, "-u", world.stage.url, "--loop", loop, "--log-level", "warning"]
    return [str(world.setup.python), *words, *options]


def by_hand(world: World, program: str = "by_hand.py", **asked: Any) -> Measured:
    """A hand-written program, with the same Python and libraries."""
    return drain(world, [str(world.setup.python), str(CONTENDERS / program)], asked)


def drain(
    world: World,
    command: Sequence[str],
    asked: Mapping[str, Any],
    path: Sequence[Path] = (),
    streams: Sequence[str] = (),
    prepare: Callable[[str, str], None] | None = None,
) -> Measured:
    """Let a program take `count` entries of a stock, or of `streams`, and see what it cost; nothing may stay pending."""
    stage, count = world.stage, asked["count"]
    streams = streams or [stage.stock(asked["codec"], count)]
    with stage.group(*streams) as group:
        if prepare is not None:
            prepare(streams[0], group)
        asked = {"stream": streams[0], "streams": streams, "group": group, **asked}
        return _watched(world, command, asked, path)


def _watched(world: World, command: Sequence[str], asked: Mapping[str, Any], path: Sequence[Path]) -> Measured:
    stage, count = world.stage, asked["count"]
    with stage.contender(command, asked, path) as contender:
        stage.client.config_resetstat()
        contender.next("begins")
        watch = stage.watch()
        told = contender.next("ends")
        costs = watch.costs(told["count"], told["cpu"])
        stage.wait_for_acknowledgements(asked["streams"], asked["group"])
        commands = stage.commands()
    return {"rate": told["count"] / told["wall"], **costs, "rss_mb": told["rss_mb"], "commands": commands / count}


def emptying(world: World, count: int, codec: str = "json") -> Measured:
    """The C client that decodes nothing."""
    stage = world.stage
    stream = stage.stock(codec, count)
    with stage.group(stream) as group:
        stage.client.config_resetstat()
        watch = stage.watch()
        words = [str(c_client()), str(stage.port), stream, group, str(count)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, preexec_fn=stage.take_place, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.terminate()
        if not line:
            raise Failed("the C client said nothing")
        taken, wall, used = map(float, line.split())
        costs, commands = watch.costs(int(taken), used), stage.commands()
    return {"rate": taken / wall, **costs, "commands": commands / taken}
