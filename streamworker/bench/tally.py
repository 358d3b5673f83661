"""The handler that does nothing, and what it counts while it does."""

from __future__ import annotations

import asyncio
from time import monotonic, process_time

from pydantic import BaseModel


class Parcel(BaseModel):
    """The body of the entries: a number, when it was sent, where that matters, and something to carry."""

    number: int
    sent: float = 0.0
    load: str = ""


class Tally:
    """Counts a backlog, then says of single entries how long they were on their way."""

    def __init__(self, backlog: int, singles: int) -> None:
        self._backlog = backlog
        self._singles = singles
        self.handled: int = 0
        self.latencies: list[float] = []
        self.backlog_is_done: asyncio.Event = asyncio.Event()
        self.all_is_done: asyncio.Event = asyncio.Event()
        self._began = self._ended = (0.0, 0.0)

    async def handle(self, parcel: Parcel) -> None:
        """Count it."""
        if parcel.sent:
            self.latencies.append(monotonic() - parcel.sent)
            if len(self.latencies) == self._singles:
                self.all_is_done.set()
            return
        self.handled += 1
        if self.handled == 1:
            self._began = (monotonic(), process_time())
        if self.handled == self._backlog:
            self._ended = (monotonic(), process_time())
            self.backlog_is_done.set()

    @property
    def seconds(self) -> float:
        """From the first entry of the backlog to the last."""
        return self._ended[0] - self._began[0]

    @property
    def cpu_seconds(self) -> float:
        """What this process has used in that time."""
        return self._ended[1] - self._began[1]
