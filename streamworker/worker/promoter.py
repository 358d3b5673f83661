"""Moves retries that are due to the retry stream. The server says when the next one is due, so nobody polls blindly."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from streamworker.errors import ConnectionLost, ServerError
from streamworker.observe.troubles import Trouble
from streamworker.streams import inspecting, settling
from streamworker.streams.blaming import with_its_key
from streamworker.streams.faults import sentence
from streamworker.streams.link import Link
from streamworker.worker.bindings import Binding
from streamworker.worker.waiting import happens_within

PAGE = 100
LOOK_AGAIN = timedelta(seconds=5)
"""At the latest then: another worker may have parked something since, and died."""


class Promoter:
    """One group's promotions, over all its streams."""

    def __init__(self, link: Link, bindings: Sequence[Binding], log: Any) -> None:
        self._link = link
        self._bindings = bindings
        self._log = log
        self._troubles: dict[str, Trouble] = {}
        self._without: set[str] = set()
        """Streams that had no retry: there a look first costs the server less than the script."""
        self._cursors: dict[str, int] = {}
        self._stopping = False
        self._woken = asyncio.Event()
        self._next_due = 0.0

    async def run(self) -> None:
        """Promote until stopped."""
        loop = asyncio.get_running_loop()
        while not self._stopping:
            self._next_due = loop.time() + LOOK_AGAIN.total_seconds()
            for binding in self._bindings:
                if binding.ready:
                    await self._guarded(binding)
            await self._sleep_until_due()

    def expect(self, due_in_ms: int | None) -> None:
        """A retry is due in so many milliseconds: be awake then."""
        if due_in_ms is None:
            return
        due = asyncio.get_running_loop().time() + due_in_ms / 1000
        if due < self._next_due:
            self._next_due = due
            self._woken.set()

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping = True
        self._woken.set()

    async def _guarded(self, binding: Binding) -> None:
        """Promote on one stream; its trouble must not stop the others."""
        stream = binding.keys.stream
        trouble = self._troubles.setdefault(stream, Trouble(self._log, "promoting", stream=stream))
        try:
            self.expect(await self._promote(binding))
        except ConnectionLost:
            self.expect(1_000)  # the reader says it, and waits for the server
        except ServerError as error:
            blamed = await with_its_key(self._link, binding.keys, error)
            if blamed is not None or not trouble.lasts:
                trouble.strikes(sentence(blamed or error))
            self.expect(1_000)
        else:
            trouble.is_over()

    async def _promote(self, binding: Binding) -> int | None:
        stream = binding.keys.stream
        if stream in self._without and await inspecting.existing(self._link, [binding.keys.due, binding.keys.parked]) == 0:
            return None
        promotion = await settling.promote(self._link, binding.keys, limit=PAGE, cursor=self._cursors.get(stream, 0))
        self._cursors[stream] = promotion.cursor
        if promotion.next_due_ms is None:
            self._without.add(stream)
        else:
            self._without.discard(stream)
        if promotion.hollow:
            self._log.error(
                "retry.envelope_missing",
                stream=binding.keys.stream,
                group=binding.group,
                entries=promotion.hollow,
                why=f"something removed fields of {binding.keys.parked}",
            )
        return promotion.next_due_ms

    async def _sleep_until_due(self) -> None:
        while not self._stopping:
            remaining = self._next_due - asyncio.get_running_loop().time()
            if remaining <= 0:
                return
            self._woken.clear()
            if not await happens_within(self._woken, remaining):
                return
