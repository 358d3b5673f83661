"""Ends a worker once there is nothing left to do: for `--burst`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from streamworker.errors import ConnectionLost, ServerError
from streamworker.streams.groups import are_finished
from streamworker.streams.link import Link
from streamworker.worker.bindings import Binding

LOOK_FOR_THE_END = timedelta(milliseconds=200)


class Ends(Protocol):
    """A process that can be told to end."""

    ready: asyncio.Event

    @property
    def in_flight(self) -> int:
        """How many entries it holds."""
        ...

    def drain(self, why: str) -> None:
        """End in order."""
        ...


async def watch_for_the_end(link: Link, bindings: Sequence[Binding], process: Ends, log: Any) -> None:
    """Drain `process` when nothing is undelivered, pending or waiting for a retry in any of these groups, with any worker."""
    await process.ready.wait()
    groups = [(binding.keys, binding.group) for binding in bindings]
    while True:
        try:
            if process.in_flight == 0 and await are_finished(link, groups):
                process.drain("burst finished")
                return
        except (ConnectionLost, ServerError) as error:
            log.debug("burst.unknown", error=str(error))
        await asyncio.sleep(LOOK_FOR_THE_END.total_seconds())
