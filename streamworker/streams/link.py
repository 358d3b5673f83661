"""A connection that is opened when it is needed, and anew when it broke."""

from __future__ import annotations

import asyncio

from streamworker.errors import ConnectionLost, ServerError, StreamWorkerError
from streamworker.streams.connections import Endpoint
from streamworker.streams.faults import answers_nobody
from streamworker.streams.recovery import Recovery
from streamworker.streams.wire import Argument, Reply, Wire


class Link:
    """A wire that is opened when first needed and opened anew after it broke. It never repeats a command.

    `recovery` is told when the server answers again after it did not. Where it does not open `by_itself`, only `connect` does, for one who
    must know of each new connection.
    """

    def __init__(self, endpoint: Endpoint, recovery: Recovery | None = None, *, by_itself: bool = True) -> None:
        self.endpoint = endpoint
        self._by_itself = by_itself
        self.recovery: Recovery = Recovery() if recovery is None else recovery
        self._is_down, self._tries = False, 0
        self._wire: Wire | None = None
        self._opening = asyncio.Lock()
        self._failure: StreamWorkerError | None = None

    async def call(self, *command: Argument, within: float = 5.0) -> Reply:
        """Send a command and wait for its reply. Raises `ConnectionLost` or `ServerError`."""
        if self._by_itself and self.wire is None:
            await self.connect()
        return await self.reply_to(self.send(*command, within=within), tells=command[0] != "CLIENT")

    def send(self, *command: Argument, within: float) -> asyncio.Future[Reply]:
        """Send a command at once; what this gives is for `reply_to`. Raises `ConnectionLost` where no wire is open."""
        if self._wire is None:
            raise ConnectionLost("the connection to Redis was lost", may_have_run=False)
        return self._wire.call(*command, within=within)

    async def reply_to(self, sent: asyncio.Future[Reply], *, tells: bool = True) -> Reply:
        """Wait for the reply to what was sent; `tells`: it says that the server works, as one to CLIENT does not. Raises as `call` does."""
        try:
            reply = await sent
        except (ConnectionLost, ServerError) as error:
            self._is_down |= isinstance(error, ConnectionLost) or answers_nobody(error)
            raise
        if self._is_down and tells:
            self._is_down = False
            self.recovery.noticed()
        return reply

    def was_heard(self, within: float) -> bool:
        """Whether the server has answered in the last so many seconds."""
        return self._wire is not None and self._wire.broken is None and not self._is_down and self._wire.was_heard(within)

    @property
    def wire(self) -> Wire | None:
        """The wire, while it is open."""
        return None if self._wire is None or self._wire.broken is not None else self._wire

    async def connect(self) -> Wire:
        """The open wire, opened now if need be. Those who ask while somebody tries share that try, so that none waits for many."""
        tries = self._tries
        async with self._opening:
            if self._wire is not None and self._wire.broken is None:
                return self._wire
            if self._tries != tries and self._failure is not None:
                raise ConnectionLost(str(self._failure))
            await self._discard()
            self._tries += 1
            try:
                self._wire = await Wire.open(self.endpoint)
            except StreamWorkerError as error:
                self._failure = error
                self._is_down = True
                raise
            self._failure = None
            return self._wire

    async def close(self) -> None:
        """End the connection; a later call opens a new one."""
        async with self._opening:
            await self._discard()

    async def _discard(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            await wire.close()
