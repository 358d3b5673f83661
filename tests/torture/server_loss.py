"""What a server loses of what it has answered, by its configuration: no client can prevent it. `python -m tests.torture.server_loss`

For each accident, `app.publish` is called from several tasks until the accident is over, and then it is counted which of the ids that it
returned are still there. Prints a table; `--server` names one of `tests/servers.py`, `--seconds` is how long each load lasts.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass

import redis

from streamworker import ConnectionLost, ServerError, StreamWorker
from streamworker.embedded import EmbeddedServer
from tests.servers import make_server

WRITERS = 8
STREAM = "orders"
MARKER = "in-sync"
SYNC_WITHIN_SECONDS = 30


@dataclass
class Loss:
    """One accident: how many publishes returned an id, and how many of those ids are gone."""

    accident: str
    answered: int
    lost: int


Accident = Callable[[ExitStack], Awaitable[Loss]]


class Measure:
    """The accidents, on one kind of server."""

    def __init__(self, kind: str, seconds: float) -> None:
        self._kind = kind
        self._seconds = seconds
        self.accidents: dict[str, Accident] = {
            "kill -9, no persistence": lambda stack: self._killed(stack, None),
            "kill -9, appendfsync everysec": lambda stack: self._killed(stack, "everysec"),
            "kill -9, appendfsync always": lambda stack: self._killed(stack, "always"),
            "kill -9 of a primary, its replica takes over": self._failed_over,
            "a replica is promoted while clients still write to the old primary": lambda stack: self._promoted(
                stack, guarded=False
            ),
            "the same with min-replicas-to-write 1, min-replicas-max-lag 1": lambda stack: self._promoted(stack, guarded=True),
        }

    async def _killed(self, stack: ExitStack, fsync: str | None) -> Loss:
        """The server's process dies, its machine lives: what the system has been given to write is written."""
        options = (
            {}
            if fsync is None
            else {"data_dir": stack.enter_context(tempfile.TemporaryDirectory()), "extra_args": ["--appendfsync", fsync]}
        )
        server = stack.enter_context(make_server(self._kind, **options))
        ids = await self._write(server, until=lambda: asyncio.to_thread(server.kill))
        await asyncio.to_thread(server.restart)
        return _count("", ids, server)

    async def _failed_over(self, stack: ExitStack) -> Loss:
        primary, replica = self._pair(stack)
        ids = await self._write(primary, until=lambda: asyncio.to_thread(primary.kill))
        _command(replica, "REPLICAOF", "NO", "ONE")
        return _count("", ids, replica)

    async def _promoted(self, stack: ExitStack, *, guarded: bool) -> Loss:
        """As at a planned failover by Sentinel: the old primary takes writes until it is told, here for as long as the load lasts."""
        primary, replica = self._pair(stack)
        if guarded:
            _command(primary, "CONFIG", "SET", "min-replicas-to-write", "1")
            _command(primary, "CONFIG", "SET", "min-replicas-max-lag", "1")

        async def promote_then_wait() -> None:
            _command(replica, "REPLICAOF", "NO", "ONE")
            await asyncio.sleep(self._seconds)

        ids = await self._write(primary, until=promote_then_wait)
        return _count("", ids, replica)

    def _pair(self, stack: ExitStack) -> tuple[EmbeddedServer, EmbeddedServer]:
        primary = stack.enter_context(make_server(self._kind, extra_args=["--repl-diskless-sync-delay", "0"]))
        replica = stack.enter_context(make_server(self._kind, extra_args=["--replicaof", "127.0.0.1", str(primary.port)]))
        _wait_in_sync(primary, replica)
        return primary, replica

    async def _write(self, server: EmbeddedServer, *, until: Callable[[], Awaitable[None]]) -> list[str]:
        """Publish for a while, let the accident happen meanwhile, and go on until the server answers no more or the load is over."""
        app = StreamWorker(redis_url=server.url)
        ids: list[str] = []
        over = asyncio.Event()

        async def write() -> None:
            while not over.is_set():
                try:
                    ids.append(await app.publish(STREAM, {"n": str(len(ids))}))
                except (ConnectionLost, ServerError):
                    await asyncio.sleep(0.01)

        writers = [asyncio.create_task(write()) for _ in range(WRITERS)]
        await asyncio.sleep(self._seconds)
        await until()
        over.set()
        await asyncio.gather(*writers)
        await app.close()
        return ids


def _wait_in_sync(primary: EmbeddedServer, replica: EmbeddedServer) -> None:
    """Wait until the replica is being sent what is written.

    Its own `master_link_status:up` does not say so: for up to a second after its first copy the primary may keep the stream back, and
    whatever it takes meanwhile dies with it. So a write has to arrive, and be acknowledged at the primary's own offset.
    """
    with redis.Redis.from_url(primary.url) as writer, redis.Redis.from_url(replica.url) as reader:
        deadline = time.monotonic() + SYNC_WITHIN_SECONDS
        while reader.info("replication")["master_link_status"] != "up":
            _not_after(deadline)
        writer.set(MARKER, 1)
        while not reader.exists(MARKER) or writer.wait(1, 1000) < 1:
            _not_after(deadline)
        while writer.info("replication")["master_repl_offset"] != reader.info("replication")["slave_repl_offset"]:
            _not_after(deadline)


def _not_after(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise AssertionError("the replica does not get in sync")
    time.sleep(0.005)


def _command(server: EmbeddedServer, *words: str) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.execute_command(*words)


def _count(accident: str, ids: list[str], server: EmbeddedServer) -> Loss:
    with redis.Redis.from_url(server.url) as client:
        there = {entry_id.decode() for entry_id, _ in client.xrange(STREAM)}
    return Loss(accident, len(ids), len(set(ids) - there))


async def _measure(kind: str, seconds: float) -> None:
    measure = Measure(kind, seconds)
    print("| Accident | Publishes answered | Lost |\n|---|---|---|", flush=True)
    for name, accident in measure.accidents.items():
        with ExitStack() as stack:
            loss = await accident(stack)
        print(f"| {name} | {loss.answered:,} | {loss.lost:,} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="redis", help="a name of tests/servers.py")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load lasts")
    given = parser.parse_args()
    asyncio.run(_measure(given.server, given.seconds))


if __name__ == "__main__":
    main()
