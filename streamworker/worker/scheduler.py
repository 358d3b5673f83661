"""Adds what was published with a delay to its streams when it is due, whatever group reads them: each entry once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from streamworker.errors import ConnectionLost, ServerError
from streamworker.observe.troubles import Trouble
from streamworker.streams.faults import sentence
from streamworker.streams.link import Link
from streamworker.streams.scheduling import Added, look
from streamworker.worker.bindings import Binding
from streamworker.worker.pausing import PauseWatch

PAGE = 100
STREAMS = 50
"""Of one command, so that none holds the server for long."""

LOOK_AGAIN = timedelta(seconds=1)
"""At the latest then: somebody may have scheduled something since."""


class Scheduler:
    """What is due on the streams of one process. `pauses` is told what else each look has shown."""

    def __init__(self, link: Link, bindings: Iterable[Sequence[Binding]], pauses: PauseWatch, log: Any) -> None:
        self._link = link
        self._streams = sorted({binding.keys.stream for of_group in bindings for binding in of_group})
        self._pauses = pauses
        self._log = log
        self._troubles: dict[str, Trouble] = {}

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            waits = [await self._look(self._streams[at : at + STREAMS], at) for at in range(0, len(self._streams), STREAMS)]
            await asyncio.sleep(min([LOOK_AGAIN.total_seconds(), *waits]))

    async def _look(self, streams: Sequence[str], at: int) -> float:
        """Add what is due; answers in how many seconds the next one is, as far as is known. The first look tells the pauses, too."""
        pauses = self._pauses if at == 0 else None
        troubles = {stream: self._trouble(stream) for stream in streams}
        try:
            looked = await look(self._link, streams, limit=PAGE, pauses=() if pauses is None else pauses.keys)
        except ConnectionLost:
            return LOOK_AGAIN.total_seconds()  # the reader says it, and waits for the server
        except ServerError as error:
            troubles[streams[0]].strikes(sentence(error))
            return LOOK_AGAIN.total_seconds()
        if pauses is not None:
            pauses.heed(looked.pauses)
        refused = {added.stream for added in looked.happened if added.refused is not None}
        for stream in streams:
            if stream not in refused:
                troubles[stream].is_over()
        for added in looked.happened:
            self._tell(added)
        if refused or looked.next_due_ms is None:
            return LOOK_AGAIN.total_seconds()
        return looked.next_due_ms / 1000

    def _tell(self, added: Added) -> None:
        if added.refused is not None:
            self._trouble(added.stream).strikes(sentence(added.refused))
        if added.damaged:
            self._log.error(
                "scheduled.damaged",
                stream=added.stream,
                entries=added.damaged,
                why="something has changed or removed what was scheduled: what is there is looked at again in an hour",
            )

    def _trouble(self, stream: str) -> Trouble:
        return self._troubles.setdefault(stream, Trouble(self._log, "scheduled", stream=stream))
