"""A server, real or fake, as the settlement machine sees it: one loop and one link for all examples, and a look at everything at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fakeredis import FakeServer
from fakeredis.aioredis import FakeAsyncRedisConnection
from redis.asyncio.connection import AbstractConnection
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamworker.codecs.dead_letters import read_dead_letter
from streamworker.codecs.envelope import Envelope, unpack
from streamworker.delivery import Fields
from streamworker.streams import groups, inspecting
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link
from tests.conformance.settlement_model import STREAM, Group, Trimmed

LEASE_MS = 30 * 60_000
"""No lease runs out by itself while a machine runs; `IDLE` makes it."""

SOME_WAY_OFF_MS = 10**10


class FakeEndpoint(Endpoint):
    """A fakeredis inside this process. Not its TCP server: that ends the connection with every error reply, NOSCRIPT included."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.fake = FakeServer(version=(7, 0), server_type="redis")

    def connection(self) -> AbstractConnection:
        retry = Retry(NoBackoff(), 0)
        return FakeAsyncRedisConnection(server=self.fake, version=(7, 0), server_type="redis", protocol=2, retry=retry)


@dataclass
class Seen:
    """What is on the server for one group: positions and places of everything, with the ids that the server has given."""

    undelivered: list[str]
    pending: dict[tuple[str, str], tuple[str, int, bool]]
    parked: dict[str, Envelope]
    due: dict[str, float]
    retry: list[tuple[str, Envelope, bool]]
    dead: list[tuple[str, str]]
    finished: bool | None


@dataclass
class Sight:
    """Everything on the server at once: each group, and the fields of what was published elsewhere."""

    groups: list[Seen]
    targets: dict[str, list[Fields]]


class World:
    """One server for a whole test."""

    def __init__(self, endpoint: Endpoint, runner: asyncio.Runner) -> None:
        self.link = Link(endpoint)
        self.is_fake = isinstance(endpoint, FakeEndpoint)
        self._runner = runner
        self.trimmed = self._how_trimmed()

    def do(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(step)

    def call(self, *command: str | bytes | int) -> Any:
        return self.do(self.link.call(*command))

    def _how_trimmed(self) -> Trimmed:
        if self.is_fake:
            return Trimmed.DROPPED_WHEN_IDLE
        info: bytes = self.call("INFO", "server")
        return Trimmed.KEPT if b"redis_version:6." in info else Trimmed.DROPPED

    async def look_at_all(self, of: Sequence[Group], targets: Sequence[str], spoiled: set[str]) -> Sight:
        """Everything, in two round trips. What a spoiled key held before is looked for where it was put aside."""
        lists = [inspecting.entries(self.link, aside(key) if key in spoiled else key) for key in targets]
        *seen, published = await asyncio.gather(*(self._look(group, spoiled) for group in of), asyncio.gather(*lists))
        return Sight(seen, {name: [entry.fields for entry in there] for name, there in zip(targets, published, strict=True)})

    async def _look(self, group: Group, spoiled: set[str]) -> Seen:
        keys, link = group.keys, self.link

        def at(key: str) -> str:
            return aside(key) if key in spoiled else key

        infos, retry_infos, entries, retry, dead, parked, due, finished = await asyncio.gather(
            groups.describe(link, STREAM),
            groups.describe(link, at(keys.retry)),
            inspecting.entries(link, STREAM),
            inspecting.entries(link, at(keys.retry)),
            inspecting.entries(link, at(keys.dead_letters)),
            link.call("HGETALL", at(keys.parked)),
            link.call("ZRANGE", at(keys.due), 0, -1, "WITHSCORES"),
            _none() if spoiled else groups.are_finished(link, [(keys, group.name)]),
        )
        position = next(info.last_delivered_id for info in infos if info.name == group.name)
        retry_position = next((info.last_delivered_id for info in retry_infos if info.name == group.name), None)
        pending = {}
        for key, there in ((STREAM, True), (keys.retry, retry_position is not None)):
            for row in await inspecting.pending(link, at(key), group.name, count=10_000) if there else ():
                pending[key, row.id] = (row.consumer, row.count, row.idle_ms >= LEASE_MS)
        return Seen(
            undelivered=[entry.id for entry in entries if _order(entry.id) > _order(position)],
            pending=pending,
            parked={name.decode(): unpack(value) for name, value in zip(parked[::2], parked[1::2], strict=True)},
            due={name.decode(): float(score) for name, score in zip(due[::2], due[1::2], strict=True)},
            retry=[(one.id, unpack(one.fields[1]), _is_before(one.id, retry_position)) for one in retry],
            dead=[(one.id, _original_of(one.fields)) for one in dead],
            finished=finished,
        )


def aside(key: str) -> str:
    """Where a key is put while something else has its name."""
    return f"{key}:aside"


@contextmanager
def world_of(endpoint: Endpoint) -> Iterator[World]:
    """A world, and its end."""
    with asyncio.Runner() as runner:
        world = World(endpoint, runner)
        try:
            yield world
        finally:
            world.do(world.link.close())


async def _none() -> None:
    return None


def _original_of(fields: Fields) -> str:
    return str(read_dead_letter(fields).notes["id"])


def _is_before(entry_id: str, position: str | None) -> bool:
    return position is not None and _order(entry_id) <= _order(position)


def _order(entry_id: str) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split("-")))
