"""Gathers plain acknowledgements, and sends many in one command: under load in front of the next read, in the same write."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from streamworker.delivery import Lease
from streamworker.errors import ConnectionLost, ServerError
from streamworker.observe.troubles import Trouble
from streamworker.streams import settling
from streamworker.streams.faults import sentence
from streamworker.streams.keys import GroupKeys, Removal
from streamworker.streams.link import Link
from streamworker.worker.backoff import Tries
from streamworker.worker.leases import LeaseKeeper
from streamworker.worker.lots import Done

MOST_IN_A_COMMAND = 1_000
MOST_WAITING = 2_000
"""Above this, a handler that succeeded waits for the acknowledgements to catch up, so that memory stays bounded."""

RIDE_SECONDS = 0.002
"""How long acknowledgements wait for a read to leave with, while reads follow one another."""


class Acks:
    """The acknowledgements of one consumer group, over `link` where no read takes them along. `trouble` gives a step's on a stream."""

    def __init__(
        self,
        link: Link,
        group: str,
        keys: Mapping[str, GroupKeys],
        leases: LeaseKeeper,
        trouble: Callable[[str, str], Trouble],
        log: Any,
    ) -> None:
        self._link = link
        self._group = group
        self._stream_of = {key: of.stream for of in keys.values() for key in (of.stream, of.retry)}
        self._deleted_when_acked = {stream for stream, of in keys.items() if of.removal is Removal.WHEN_ACKED}
        self._xackdel = True
        self._leases = leases
        self._trouble = trouble
        self._log = log
        self._waiting: list[Lease] = []
        self._done_of_lots: list[Done] = []
        self._in_lots = 0
        self._wanted = asyncio.Event()
        self._done = asyncio.Condition()
        self._tries = Tries(link.recovery)
        self._riding: set[asyncio.Task[bool]] = set()
        self._ride_comes = False

    def gather(self, lease: Lease) -> None:
        """Acknowledge this entry soon. Its lease is all that is kept: its fields may be large, and their bytes are given back by now."""
        self._waiting.append(lease)
        if len(self._waiting) == 1:
            self._wanted.set()

    def gather_done(self, done: Done) -> None:
        """As `gather`, for a part of a lot."""
        self._done_of_lots.append(done)
        self._in_lots += done.stop - done.first
        self._wanted.set()

    def gather_all(self, leases: list[Lease]) -> None:
        """As `gather`, for the entries of a batch."""
        self._waiting += leases
        self._wanted.set()

    async def ride(self, link: Link) -> None:
        """Send what waits over `link`, whose owner sends something else right after this; another ride comes soon."""
        self._ride_comes = True
        if self._waiting or self._done_of_lots:
            task = asyncio.ensure_future(self._send(link, *self._take()))
            self._riding.add(task)
            task.add_done_callback(self._riding.discard)
            # The first command is packed in one turn of the loop, the others in the next one: all before what would hold them up.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    @property
    def is_behind(self) -> bool:
        """Whether so many acknowledgements wait that `catch_up` is the next thing to do."""
        return len(self._waiting) + self._in_lots > MOST_WAITING

    async def catch_up(self) -> None:
        """Wait until not too many wait."""
        if self.is_behind:
            async with self._done:
                await self._done.wait_for(lambda: not self.is_behind)

    async def run(self) -> None:
        """Send what is gathered until cancelled: at once when idle, in one command for all that came meanwhile."""
        while True:
            await self._wanted.wait()
            if self._ride_comes:
                self._ride_comes = False
                await asyncio.sleep(RIDE_SECONDS)
            self._wanted.clear()
            if not await self._send(self._link, *self._take()):
                await self._tries.wait()

    async def flush(self) -> None:
        """Wait until every gathered acknowledgement is on the server."""
        async with self._done:
            await self._done.wait_for(lambda: not self._leases.count)

    def _take(self) -> tuple[list[Lease], list[Done]]:
        leases, self._waiting = self._waiting, []
        done, self._done_of_lots = self._done_of_lots, []
        self._in_lots = 0
        return leases, done

    async def _send(self, link: Link, leases: list[Lease], done: list[Done]) -> bool:
        """Acknowledge; what the server did not take is gathered again, and that is answered with false."""
        chunks = [
            *(self._send_chunk(link, chunk) for chunk in _chunks(leases)),
            *(self._send_done(link, chunk) for chunk in _chunks_of_lots(done)),
        ]
        # The first one in this very task: a ride is packed within two turns of the loop.
        others = [asyncio.ensure_future(chunk) for chunk in chunks[1:]]
        went_well = await chunks[0] if chunks else True
        for other in others:
            went_well &= await other
        if went_well:
            self._tries.reset()
        async with self._done:
            self._done.notify_all()
        return went_well

    async def _send_chunk(self, link: Link, chunk: list[Lease]) -> bool:
        """Acknowledge entries of one stream; what the server did not take is gathered again, and that is answered with false."""
        acked = await self._acked(chunk[0].key, self._ack(link, chunk), len(chunk))
        if acked:
            self._leases.drop(*chunk)
        else:
            # Kept even where the lease is lost by now: the entry was handled, and its ack prevents a further run.
            self.gather_all(chunk)
        return acked

    async def _ack(self, link: Link, chunk: list[Lease]) -> int:
        if chunk[0].key not in self._deleted_when_acked:
            return await settling.ack(link, self._group, chunk)
        acked, self._xackdel = await settling.ack_and_delete(link, self._group, chunk, xackdel=self._xackdel)
        return acked

    async def _send_done(self, link: Link, chunk: list[Done]) -> bool:
        """The same for parts of lots."""
        key, ids = chunk[0].lot.key, list(chain.from_iterable([done.ids for done in chunk]))
        acked = await self._acked(key, settling.ack_ids(link, self._group, key, ids), len(ids))
        if acked:
            self._leases.drop_done(chunk)
        else:
            for done in chunk:
                self.gather_done(done)
        return acked

    async def _acked(self, key: str, step: Awaitable[int], entries: int) -> bool:
        stream = self._stream_of[key]
        trouble = self._trouble("ack", stream)
        try:
            acked = await step
        except (ConnectionLost, ServerError) as error:
            trouble.strikes(sentence(error))
            return False
        trouble.is_over()
        if acked < entries:
            # Acked before with its reply lost, finished by another worker after our lease was lost, or trimmed away meanwhile.
            self._log.warning("ack.not_pending", stream=stream, entries=entries - acked)
        return True


def _chunks(leases: Sequence[Lease]) -> Iterator[list[Lease]]:
    """What goes into one command each."""
    by_key: dict[str, list[Lease]] = defaultdict(list)
    for lease in leases:
        by_key[lease.key].append(lease)
    for of_key in by_key.values():
        for start in range(0, len(of_key), MOST_IN_A_COMMAND):
            yield of_key[start : start + MOST_IN_A_COMMAND]


def _chunks_of_lots(parts: Sequence[Done]) -> Iterator[list[Done]]:
    """The same for parts of lots, of which each is smaller than that."""
    open_ones: dict[str, tuple[int, list[Done]]] = {}
    for done in parts:
        entries, chunk = open_ones.get(done.lot.key, (0, []))
        if entries > MOST_IN_A_COMMAND:
            yield chunk
            entries, chunk = 0, []
        chunk.append(done)
        open_ones[done.lot.key] = entries + done.stop - done.first, chunk
    yield from (chunk for _, chunk in open_ones.values())
