"""A read that is parked on the server until an entry comes, and how it is ended before: never by cancelling it, which would leave entries
pending that nobody has seen, but by CLIENT UNBLOCK over another connection (https://redis.io/docs/latest/commands/client-unblock/).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from streamworker.errors import ConnectionLost, ServerError
from streamworker.streams import reading
from streamworker.streams.reading import Fresh
from streamworker.streams.wire import Link
from streamworker.worker.pools import PartOfPool, Pool

UNBLOCK_AGAIN_SECONDS = (0.001, 0.05)
"""An UNBLOCK that overtakes the read it is meant for does nothing, so it is said again, after growing pauses, until the read has ended."""


@dataclass(frozen=True, slots=True)
class Read:
    """A read on its way: of which pools, its reply, and when it was sent (monotonic seconds)."""

    pools: Sequence[Pool]
    reply: asyncio.Task[list[Fresh]]
    sent_at: float


class Parked:
    """The read of one connection, whose number on the server is `client_id`, while it is on its way."""

    def __init__(self, commands: Link) -> None:
        self._commands = commands
        self._pools: frozenset[Pool] | None = None
        self._nudged = asyncio.Event()
        self.client_id: int = 0

    def on(self, pools: Sequence[Pool]) -> None:
        """A read of these pools was sent."""
        self._pools = frozenset(pools)

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
