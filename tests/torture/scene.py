"""One run's stage: a server of its own, workers, a publisher, perhaps a proxy between, and the record of what is done to them."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from streamworker.embedded import EmbeddedServer
from tests.torture import features
from tests.torture.fleet import Fleet, Recipe, Worker, until
from tests.torture.history import Disturbance, Footprint
from tests.torture.load import GROUP, STREAM, Loader
from tests.torture.proxy import Proxy

USER, SECRET = "torture", "a-password-that-no-log-may-show"
RETRY, DUE, PARKED, DEAD = (f"{{{STREAM}}}:{part}:{GROUP}" for part in ("retry", "due", "parked", "dlq"))
SERVER_OPTIONS = ("--user", USER, "on", f">{SECRET}", "~*", "&*", "+@all", "--appendfsync", "always")


@dataclass
class Scene:
    """What a fault gets to work with. It calls `hit` around all that it does, so that the checker knows the causes."""

    server: EmbeddedServer
    fleet: Fleet
    loader: Loader
    lease: float
    random: Random
    recipe: Recipe
    proxy: Proxy | None = None
    fired: int = 0
    disturbances: list[Disturbance] = field(default_factory=list)
    healed: list[float] = field(default_factory=list)
    forgotten: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admin = a_client(self.server.url)

    # ---- when ---------------------------------------------------------------------------------------------------------------

    def while_loaded(self, apart: float, least: int = 2) -> Iterator[int]:
        """Again and again while entries come in, at least so many times, about so many seconds apart."""
        number = 0
        while number < least or not self.loader.finished.is_set():
            self.pause(apart * self.random.uniform(0.7, 1.3))
            yield number
            number += 1

    def pause(self, seconds: float) -> None:
        """Let the load go on for so long: what is tested is what happens in this time."""
        time.sleep(seconds)

    def until_busy(self, within: float = 10.0) -> None:
        """Wait until something is pending, so that there is something to lose, or nothing more comes."""
        with suppress(AssertionError):
            until(lambda: self.pending() > 0 or self.loader.finished.is_set(), within, "something is pending")

    # ---- what is recorded ---------------------------------------------------------------------------------------------------

    @contextmanager
    def hit(
        self,
        kind: str,
        *,
        workers: Sequence[Worker] | None = None,
        child: int | None = None,
        fires: int = 1,
        heals: bool = True,
        **facts: Any,
    ) -> Iterator[None]:
        """What is done inside the block is a disturbance, of these workers, of one child, or of all."""
        begin = time.monotonic()
        self.fired += fires
        try:
            yield
        finally:
            end = time.monotonic()
            pids = None if workers is None else frozenset(pid for worker in workers for pid in worker.pids())
            pids = pids if child is None else frozenset({child})
            self.disturbances.append(Disturbance(kind, begin, end, pids, **facts))
            if heals:
                self.healed.append(end)

    @property
    def the_proxy(self) -> Proxy:
        """The proxy of a run that has one."""
        if self.proxy is None:
            raise AssertionError("this fault needs a proxy: say so where it is registered")
        return self.proxy

    # ---- what there is ------------------------------------------------------------------------------------------------------

    def pending(self) -> int:
        """How many entries are pending with the group; 0 where it is not there."""
        try:
            return int(self.admin.xpending(STREAM, GROUP)["pending"])
        except RedisError:
            return 0

    def what_is_left(self) -> str:
        """What is not done yet, in words; empty when nothing is left."""
        try:
            left = {
                "pending": int(self.admin.xpending(STREAM, GROUP)["pending"]),
                "in the retry stream": self.admin.xlen(RETRY),
                "due": self.admin.zcard(DUE),
                "parked": self.admin.hlen(PARKED),
                "undelivered": self._undelivered(),
            }
        except RedisError as error:
            return f"the server says {error}"
        return ", ".join(f"{count} {what}" for what, count in left.items() if count)

    def footprints(self) -> tuple[Footprint, ...]:
        """What workers and group have open now."""
        names = Counter(str(client.get("name", "")) for client in self.admin.client_list())
        found = [one for worker in self.fleet.ready_ones() for one in worker.footprints().items()]
        workers = [Footprint(**{**one.__dict__, "connections": names[f"streamworker:{name}"]}) for name, one in found]
        return (*workers, Footprint("the group", consumers=len(self.admin.xinfo_consumers(STREAM, GROUP))))

    def dead_letters(self) -> list[dict[str, str]]:
        """The dead letters, as they are."""
        return [_texts(fields) for _, fields in self.admin.xrange(DEAD)]

    def collected(self) -> dict[str, Sequence[Any]]:
        """What the features have left."""
        return {feature.name: feature.collect(self.admin) for feature in features.everything()}

    def _undelivered(self) -> int:
        for info in self.admin.xinfo_groups(STREAM):
            if info["name"] in {GROUP, GROUP.encode()}:
                return len(self.admin.xrange(STREAM, f"({info['last-delivered-id'].decode()}", "+", count=10))
        return 1


class Canary:
    """Measures by how much this machine is late: a short sleep or a write to disk takes too long, or the wall clock is set."""

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []
        for watch in (self._watch_clocks, self._watch_disk):
            threading.Thread(target=watch, name="torture-canary", daemon=True).start()

    def delays(self, since: float, longer_than: float) -> list[Disturbance]:
        """The times when this machine was so late that leases may have run out: a cause like any other, and put on record like it."""
        return [Disturbance("machine late", at, at + late + 0.02) for at, late in self._late if at >= since and late > longer_than]

    def latest(self, since: float) -> float:
        """The greatest delay since that moment."""
        return max((late for at, late in self._late if at >= since), default=0.0)

    def _watch_clocks(self) -> None:
        while True:
            began, said = time.monotonic(), time.time()
            time.sleep(0.02)
            passed = time.monotonic() - began
            self._note(began, max(passed - 0.02, abs(time.time() - said - passed)))

    def _watch_disk(self) -> None:
        """The servers wait for the disk after each write."""
        with tempfile.TemporaryFile() as file:
            while True:
                began = time.monotonic()
                file.write(b"tweet")
                os.fsync(file.fileno())
                self._note(began, time.monotonic() - began)
                time.sleep(0.1)

    def _note(self, began: float, late: float) -> None:
        if late > 0.02:
            self._late.append((began, late))


def a_client(url: str) -> redis.Redis:
    """A client for the one who does it, past every proxy. Nothing is tried again behind its back."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=10, socket_connect_timeout=2)


def worker_url(url: str) -> str:
    """The server's URL with the user and the password of the workers."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{USER}:{SECRET}@{parts.hostname}:{parts.port}").geturl()


def _texts(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
