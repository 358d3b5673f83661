"""The other frameworks, each with its own fast settings in an environment of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.benchmarks.contest import Entrant, Measured, World
from tests.benchmarks.places import CONTENDERS, NotHere, environment

SCRIPTS = CONTENDERS / "peers"
DATABASE = 1
"""Of the server; emptied before each run, as each peer has its own form of entries."""


@dataclass(frozen=True)
class Peer:
    """A framework: what to install, its script, how many entries are enough, and its own command where the script is not run itself."""

    name: str
    requirements: tuple[str, ...]
    script: str
    count: int
    command: tuple[str, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict)
    scenario: str = "throughput"


_FASTSTREAM = ("faststream[redis]~=0.7.8", "hiredis", "uvloop")
_CELERY_OFF = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR")

ALL = (
    Peer("FastStream", _FASTSTREAM, "faststream_peer", 10_000, asked={"mode": "one"}),
    Peer("FastStream, concurrent", _FASTSTREAM, "faststream_peer", 10_000, asked={"mode": "concurrent"}),
    Peer("FastStream, batch", _FASTSTREAM, "faststream_peer", 50_000, asked={"mode": "batch"}, scenario="batch"),
    Peer(
        "taskiq", ("taskiq~=0.13.0", "taskiq-redis~=1.2.4", "orjson", "hiredis", "uvloop"), "taskiq_peer", 8_000,
        ("taskiq", "worker", "taskiq_peer:broker", "--workers", "1", "--max-async-tasks", "100", "--max-prefetch", "100",
         "--log-level", "WARNING", "-d", str(SCRIPTS)),
    ),
    Peer("streaq", ("streaq~=7.2.0", "uvloop"), "streaq_peer", 3_000),
    Peer("repid", ("repid[redis]~=2.1.4", "pydantic", "hiredis", "uvloop"), "repid_peer", 15_000),
    Peer("saq", ("saq[redis,hiredis]~=0.26.4", "typing-extensions", "uvloop"), "saq_peer", 5_000),
    Peer("arq", ("arq~=0.28.0", "hiredis", "uvloop"), "arq_peer", 4_000),
    Peer("dramatiq", ("dramatiq[redis]~=2.2.1", "hiredis"), "dramatiq_peer", 6_000,
         ("dramatiq", "dramatiq_peer", "-p", "1", "-t", "8", "--skip-logging")),
    Peer("celery", ("celery[redis]~=5.7.0", "hiredis"), "celery_peer", 2_000,
         ("celery", "-A", "celery_peer", "worker", "-P", "solo", *_CELERY_OFF)),
)  # fmt: skip


def entrants(world: World, scenario: str) -> list[Entrant]:
    """The peers that are wanted and can be had here; the others are said with the reason."""
    found = []
    for peer in ALL if world.setup.speed else ():  # all of them are for their fast settings
        if peer.scenario == scenario and peer.script.removesuffix("_peer") in world.peers:
            try:
                environment(*_home(world, peer))
                found.append(Entrant(peer.name, partial(run, world, peer)))
            except NotHere as reason:
                world.say(f"{peer.name} is left out: {reason}")
    return found


def names() -> list[str]:
    """What `--peers` knows."""
    return list(dict.fromkeys(peer.script.removesuffix("_peer") for peer in ALL))


def run(world: World, peer: Peer) -> Measured:
    """Let the peer publish its own entries, then handle them."""
    stage, count = world.stage, world.size(peer.count)
    python = environment(*_home(world, peer))
    script = str(SCRIPTS / f"{peer.script}.py")
    asked = {"url": f"redis://127.0.0.1:{stage.port}/{DATABASE}", "count": count, **peer.asked}
    stage.clear(DATABASE)
    with stage.contender([str(python), script, "publish"], asked, [SCRIPTS]) as publisher:
        publisher.wait(120)
    command = [str(python.parent / peer.command[0]), *peer.command[1:]] if peer.command else [str(python), script, "work"]
    with stage.contender(command, asked, [SCRIPTS]) as contender:
        stage.client.config_resetstat()
        contender.next("begins")
        watch = stage.watch()
        told = contender.next("ends")
        costs, commands = watch.costs(told["count"], told["cpu"]), stage.commands()
    return {"rate": told["count"] / told["wall"], **costs, "rss_mb": told["rss_mb"], "commands": commands / count}


def _home(world: World, peer: Peer) -> tuple[str, str, Sequence[str]]:
    return f"{peer.script}-{world.setup.version}", world.setup.version, peer.requirements
