"""What happens in the demo, step by step, on a real server."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

from streamworker.codecs.dead_letters import read_dead_letter
from streamworker.delivery import Fields, Outgoing
from streamworker.demo.app import GROUP
from streamworker.demo.ledger import Ledger
from streamworker.demo.workers import Worker
from streamworker.errors import StreamWorkerError
from streamworker.streams import groups, inspecting, publishing
from streamworker.streams.keys import GroupKeys, keys_of, name_claim
from streamworker.streams.link import Link

LOOK_AGAIN = timedelta(milliseconds=50)
START_WITHIN = timedelta(seconds=15)
FINISH_WITHIN = timedelta(seconds=15)


class Stuck(StreamWorkerError):
    """The demo did not come to its end in time; the text says where."""


@dataclass(frozen=True, slots=True)
class Count:
    """What became of the entries, as Redis and the handlers' ledger have it."""

    published: int
    handled: int
    handled_twice: int
    retried: int
    reclaimed: int
    dead_letters: int
    pending: int
    lost: int
    p95: timedelta | None

    @property
    def closes(self) -> bool:
        """Whether every entry is accounted for, and everything that was to be shown has happened."""
        whole = self.lost == 0 and self.pending == 0 and self.handled + self.dead_letters == self.published
        return whole and min(self.retried, self.reclaimed, self.dead_letters) > 0


class Story:
    """One run: `entries` are published at `rate` a second while two workers handle them and one of these is killed."""

    def __init__(self, link: Link, stream: str, ledger: Ledger, entries: int, rate: float) -> None:
        self._link = link
        self.keys: GroupKeys = keys_of(stream, GROUP)
        self._ledger = ledger
        self._entries = entries
        self._rate = rate
        self.published: int = 0

    async def workers_are_ready(self, workers: Sequence[Worker]) -> None:
        """Wait until both read."""
        trouble = "the workers did not start"
        await _until(lambda: all(w.is_ready or w.is_over for w in workers), START_WITHIN, trouble)
        if any(worker.is_over for worker in workers):
            raise Stuck(trouble)

    async def publish(self) -> None:
        """Add the entries with plain XADD, as a program without streamworker would."""
        began = monotonic()
        for number in range(self._entries):
            await asyncio.sleep(max(0.0, began + number / self._rate - monotonic()))
            await publishing.add(self._link, Outgoing(self.keys.stream, _fields(number)))
            self.published += 1

    async def kill_while_it_works(self, victim: Worker) -> None:
        """SIGKILL a worker that holds entries: it is frozen first, to be sure that it does."""
        await _until(lambda: self.published >= self._entries * 0.4, FINISH_WITHIN, "the producer did not get on")
        deadline = monotonic() + FINISH_WITHIN.total_seconds()
        while monotonic() < deadline:
            victim.freeze()
            if await inspecting.pending(self._link, self.keys.stream, GROUP, count=1, consumer=victim.name):
                victim.kill()
                return
            victim.thaw()
            await asyncio.sleep(0.01)
        raise Stuck("the worker that was to be killed never held an entry")

    async def is_finished(self) -> None:
        """Wait until nothing is undelivered, pending or waiting for a retry."""
        deadline = monotonic() + FINISH_WITHIN.total_seconds()
        while not await groups.are_finished(self._link, [(self.keys, GROUP)]):
            if monotonic() > deadline:
                raise Stuck("entries are still undelivered, pending or waiting for a retry")
            await asyncio.sleep(LOOK_AGAIN.total_seconds())

    async def count(self) -> Count:
        """Count, from the server and from the ledger."""
        tally = self._ledger.tally()
        ids = {entry.id for entry in await inspecting.entries(self._link, self.keys.stream)}
        letters = await inspecting.entries(self._link, self.keys.dead_letters)
        dead = {read_dead_letter(letter.fields).notes["id"] for letter in letters}
        info = await groups.find(self._link, self.keys.stream, GROUP)
        return Count(
            published=len(ids),
            handled=len(tally.runs.keys() & ids),
            handled_twice=sum(1 for runs in tally.runs.values() if runs > 1),
            retried=len(tally.retried),
            reclaimed=len(tally.reclaimed),
            dead_letters=len(letters),
            pending=0 if info is None else info.pending,
            lost=len(ids - tally.runs.keys() - dead),
            p95=_p95(tally.delays),
        )

    async def clean_up(self, consumers: Sequence[str]) -> None:
        """Remove every key of the demo; its consumers have ended."""
        keys = self.keys
        names = [name_claim(keys.stream, GROUP, consumer) for consumer in consumers]
        await inspecting.delete_keys(self._link, [*keys.all, *names])


def _fields(number: int) -> Fields:
    """Most orders are fine, every tenth fails once, two never succeed, and one is not an order at all."""
    if number == 77:
        return [b"number", b"seventy-seven"]
    if number in (50, 120):
        return [b"number", b"%d" % number, b"mood", b"hopeless"]
    return [b"number", b"%d" % number, b"mood", b"shy" if number % 10 == 3 else b"fine"]


def _p95(delays: Sequence[timedelta]) -> timedelta | None:
    return None if len(delays) < 20 else timedelta(seconds=statistics.quantiles([d.total_seconds() for d in delays], n=20)[-1])


async def _until(is_so: Callable[[], bool], within: timedelta, otherwise: str) -> None:
    deadline = monotonic() + within.total_seconds()
    while not is_so():
        if monotonic() > deadline:
            raise Stuck(otherwise)
        await asyncio.sleep(LOOK_AGAIN.total_seconds())
