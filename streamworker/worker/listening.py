"""Listens to one stream without a group: each entry in order, one at a time; errors are said, and nothing is tried again."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from streamworker.entries import Entry
from streamworker.errors import ConnectionLost, DecodeError, ServerError
from streamworker.listeners import Listener, ListenerContext
from streamworker.observe.descriptions import describe
from streamworker.observe.troubles import Trouble
from streamworker.streams.connections import Endpoint
from streamworker.streams.faults import sentence
from streamworker.streams.link import Link
from streamworker.streams.listening import Place, listen, until_more
from streamworker.worker.backoff import Pauses
from streamworker.worker.waiting import is_cancelled

PAGE = 100
BLOCK_MS = 2_000


class Listening:
    """One listener in this process, on a connection of its own, because its reads block."""

    def __init__(self, listener: Listener, endpoint: Endpoint, state: Mapping[str, Any], log: Any) -> None:
        self._listener = listener
        self._link = Link(endpoint)
        self._state = state
        self._log = log.bind(listener=listener.name, stream=listener.stream)
        self._trouble = Trouble(log, "listening", listener=listener.name, stream=listener.stream)
        self.place: Place = Place(listener.start if listener.start == "$" or "-" in listener.start else f"{listener.start}-0")
        """How far it has heard: what is up to there was given to the function, and that has ended."""
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="streamworker-listener")
        self.began: asyncio.Event = asyncio.Event()
        """Set when it is known where it begins: from then on nothing is missed. Or when that was tried in vain for the first time."""

    async def run(self) -> None:
        """Listen until cancelled."""
        pauses = Pauses()
        try:
            while True:
                try:
                    await self._turn()
                except (ConnectionLost, ServerError) as error:
                    self._trouble.strikes(sentence(error))
                    self.began.set()
                    await asyncio.sleep(pauses.next())
                else:
                    self._trouble.is_over()
                    pauses.reset()
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)
            await self._link.close()

    async def is_caught_up(self, link: Link) -> bool:
        """Whether there is nothing that it has not heard; asked over `link`, because its own blocks."""
        return not (await listen(link, self._listener.stream, self.place, count=1)).entries

    async def _turn(self) -> None:
        """Hear what there is; where there is nothing, wait until there is."""
        is_new = self.place.last_id == "$"
        heard = await listen(self._link, self._listener.stream, self.place, count=PAGE)
        self.began.set()
        if heard.lost != 0:
            self._log.warning(
                "listener.gap",
                entries=heard.lost,
                after=self.place.last_id,
                why="they were trimmed or deleted before this process could read them",
            )
        for entry in heard.entries:
            await self._hear(entry)
        self.place = heard.place
        if not heard.entries and not is_new:
            await until_more(self._link, self._listener.stream, self.place, block_ms=BLOCK_MS)

    async def _hear(self, entry: Entry) -> None:
        """Call the function; whatever it raises is said, and the next entry comes."""
        try:
            body = self._listener.decode(entry.fields)
        except DecodeError as error:
            self._log.error("listener.malformed", entry_id=entry.id, error=describe(error))
            return
        try:
            await self._call(body, entry)
        except BaseException as error:
            if is_cancelled(error):
                raise
            self._log.error("listener.failed", entry_id=entry.id, error=describe(error), exc_info=error)

    async def _call(self, body: Any, entry: Entry) -> None:
        listener = self._listener
        context: tuple[ListenerContext, ...] = ()
        if listener.wants_context:
            context = (ListenerContext(entry.id, listener.stream, entry.fields, self._state, listener.name),)
        if listener.executor == "async":
            await listener.function(body, *context)
            return
        loop = asyncio.get_running_loop()
        returned = await loop.run_in_executor(self._threads, listener.function, body, *context)
        if inspect.isawaitable(returned):
            await returned
