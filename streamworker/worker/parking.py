"""A read that is parked on the server until an entry comes, and how it is ended before: never by cancelling it, which would leave entries
pending that nobody has seen, but by CLIENT UNBLOCK over another connection (https://redis.io/docs/latest/commands/client-unblock/).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from streamworker.errors import ConnectionLost, ServerError
from streamworker.streams import reading
from streamworker.streams.link import Link
from streamworker.streams.wire import Reply
from streamworker.worker.pools import PartOfPool, Pool

BLOCK_MS = 2_000

UNBLOCK_AGAIN_SECONDS = (0.001, 0.05)
"""An UNBLOCK that overtakes the read it is meant for does nothing, so it is said again, after growing pauses, until the read has ended."""


@dataclass(frozen=True, slots=True)
class Read:
    """A read on its way: of which pools, how many entries of each stream, its reply, and when it was sent (monotonic seconds)."""

    pools: Sequence[Pool]
    count: int
    reply: asyncio.Future[Reply]
    sent_at: float

    @property
    def asked(self) -> int:
        """How many entries it could give, without those that are tried again."""
        return self.count * sum(len(pool.bindings) for pool in self.pools)


class Parked:
    """The read of one connection, whose number on the server is `client_id`, while it is on its way and may wait there. Over `commands`
    it is ended."""

    def __init__(self, link: Link, commands: Link, group: str, consumer: str) -> None:
        self._link, self._commands = link, commands
        self._group, self._consumer = group, consumer
        self._pools: frozenset[Pool] | None = None
        self._nudged = asyncio.Event()
        self.client_id: int = 0

    def send(self, pools: Sequence[Pool], count: int, turn: int, *, waits: bool = True) -> Read:
        """Ask for so many entries of each of these streams; where there are none, wait for the first one."""
        keys = [key for pool in pools for key in pool.ready_keys(turn)]
        if waits:
            self._pools = frozenset(pools)
        reply = reading.ask(self._link, self._group, self._consumer, keys, count=count, block_ms=BLOCK_MS if waits else None)
        return Read(pools, count, reply, monotonic())

    def ended(self) -> None:
        """It was answered."""
        self._pools = None

    def covers(self, pool: Pool) -> bool:
        """Whether no read is parked, or one that reads this pool too."""
        return self._pools is None or pool in self._pools

    def covers_part_of(self, pool: Pool) -> bool:
        """Whether one is parked that reads some of this pool's streams."""
        return any(one is pool or (isinstance(one, PartOfPool) and one.whole is pool) for one in self._pools or ())

    def nudge(self) -> None:
        """End the read that is parked, if one is."""
        if self._pools is not None:
            self._nudged.set()

    async def run(self) -> None:
        """End parked reads whenever that is asked for, until cancelled."""
        while True:
            await self._nudged.wait()
            self._nudged.clear()
            pause, longest = UNBLOCK_AGAIN_SECONDS
            pools = self._pools
            # That very read, and not the ones that follow it, which nobody has asked to end.
            while pools is not None and self._pools is pools:
                try:
                    await reading.unblock(self._commands, self.client_id)
                except (ConnectionLost, ServerError):
                    break  # refused, or no connection: the read ends after its BLOCK by itself
                await asyncio.sleep(pause)
                pause = min(longest, 2 * pause)
