"""Tells those who wait for a server that it answers again: whoever in the process notices it first, notices it for all."""

from __future__ import annotations

import asyncio


class Recovery:
    """One per process, shared by its links; for use in their event loop."""

    def __init__(self) -> None:
        self._awaited = asyncio.Event()

    @property
    def awaited(self) -> asyncio.Event:
        """What is set when the server answers the next time after it did not; each time it is another one."""
        return self._awaited

    def noticed(self) -> None:
        """The server answers again."""
        happened, self._awaited = self._awaited, asyncio.Event()
        happened.set()
