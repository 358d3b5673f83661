"""Which handlers of this process are paused, as the server says: asked before anything begins, and then once a second, on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streamworker.errors import ConnectionLost, ServerError
from streamworker.handlers import Handler
from streamworker.observe.troubles import Trouble
from streamworker.streams.faults import answers_nobody, sentence
from streamworker.streams.gating import Pause, read_pauses
from streamworker.streams.keys import keys_of
from streamworker.streams.link import Link
from streamworker.streams.scheduling import publish_due
from streamworker.streams.wire import Reply
from streamworker.worker.backoff import Tries


class PauseWatch:
    """Those of one process. `told` gets all that are paused, by handler, whenever they are not the same as before."""

    def __init__(self, handlers: Sequence[Handler], told: Callable[[Mapping[str, Pause]], None], log: Any) -> None:
        self._names = {handler.name for handler in handlers}
        self._told = told
        self._trouble = Trouble(log, "pausing")
        self._known: dict[str, dict[str, Pause]] = {}
        self.paused: dict[str, Pause] = {}
        """By handler, as it was seen last."""
        self.keys: list[str] = sorted({keys_of(handler.streams[0], handler.group).paused for handler in handlers})
        """What is to be looked into."""

    async def learn(self, link: Link, stopping: asyncio.Event) -> None:
        """Ask until the server has answered, or the process is to stop: what is paused must not begin."""
        tries = Tries(link.recovery, stopping)
        while self.keys and not stopping.is_set():
            try:
                self.heed((await publish_due(link, [], limit=1, pauses=self.keys)).pauses)
                return
            except (ConnectionLost, ServerError) as error:
                self._trouble.strikes(sentence(error))
                if isinstance(error, ServerError) and not answers_nobody(error):
                    return  # it does not let us look: then nobody can pause anything here, and that must not hold up everything
                await tries.wait()

    def heed(self, replies: Sequence[Reply]) -> None:
        """Take what was found under each of the keys; what cannot be read stays as it was."""
        for key, reply in zip(self.keys, replies, strict=True):
            try:
                pauses = read_pauses(reply)
            except ServerError as error:
                self._trouble.strikes(sentence(error))
                continue
            self._trouble.is_over()
            self._known[key] = pauses
        paused = {name: pause for of_key in self._known.values() for name, pause in of_key.items() if name in self._names}
        if paused != self.paused:
            self.paused = paused
            self._told(paused)
