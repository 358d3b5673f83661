"""Keeps streams as short as their retention says. Every process does it, none leads: whoever comes first in a second does it for all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from random import uniform
from time import monotonic
from typing import Any, Self

from streamworker.app import StreamWorker
from streamworker.errors import ConnectionLost, ServerError
from streamworker.handlers import Handler
from streamworker.observe.troubles import Trouble
from streamworker.retention import Retention
from streamworker.streams import reading, trimming
from streamworker.streams.faults import sentence
from streamworker.streams.keys import trim_key
from streamworker.streams.link import Link
from streamworker.streams.trimming import Hold

EVERY = timedelta(seconds=1)
STEPS = 100
"""Of one turn at a stream at most, so that the others have theirs."""

SAID_AFTER_SECONDS = 5.0
"""For so long a group may hold a stream back before that is said: it may just be busy."""

_REASONS = {
    "pending": "the group has entries pending that are older than what may stay",
    "undelivered": "the group has still to be given entries that are older than what may stay",
    "missing": "the group is not there yet, and would be given all entries",
    "groupless": "the stream has no group yet, and the first one may be given all entries",
}
_NEEDED = {
    "pending": "pending in group {group}",
    "undelivered": "undelivered in group {group}",
    "missing": "group {group} is missing",
    "groupless": "no group",
}
_REPAIR = "see that its workers run and keep up, or remove it with XGROUP DESTROY if nobody needs it any more"


class Trimmer:
    """The streams of one program that have a `retentions`. `groups` are its own groups by stream: nothing goes while one is not there."""

    def __init__(
        self, link: Link, retentions: Mapping[str, Retention], groups: Mapping[str, Sequence[str]], consumer: str, log: Any
    ) -> None:
        self._link = link
        self._retentions = {stream: one for stream, one in retentions.items() if not one.keeps_all}
        self._groups = groups
        self._consumer = consumer
        self._log = log
        self._troubles: dict[str, Trouble] = {}
        self._held_since: dict[str, float] = {}
        self._said: dict[str, Hold] = {}

    @classmethod
    def of(cls, app: StreamWorker, link: Link, consumer: str, log: Any) -> Self:
        """That of an application, in the process that is called `consumer`."""
        return cls(link, app.retentions, groups_by_stream(app.handlers), consumer, log)

    async def run(self) -> None:
        """Go on until cancelled."""
        while self._retentions:
            await asyncio.sleep(EVERY.total_seconds() * uniform(0.8, 1.2))  # noqa: S311  # spreads a fleet, guards nothing
            for stream in self._retentions:
                await self._guarded(stream)

    async def turn(self) -> None:
        """Remove now what may go, whoever did it last."""
        for stream in self._retentions:
            await self._trim(stream)

    @property
    def held_back(self) -> tuple[str, ...]:
        """The streams that hold more than they should for so long that it was said, and what needs that."""
        return tuple(f"{stream}: {_NEEDED[hold.why].format(group=hold.group)}" for stream, hold in sorted(self._said.items()))

    async def _guarded(self, stream: str) -> None:
        """Trim one stream, if nobody has just done that; its trouble must not stop the others."""
        trouble = self._troubles.setdefault(stream, Trouble(self._log, "trimming", stream=stream))
        try:
            if await self._is_my_turn(stream):
                await self._trim(stream)
        except ConnectionLost:
            pass  # the reader says it, and waits for the server
        except ServerError as error:
            trouble.strikes(sentence(error))
        else:
            trouble.is_over()

    async def _is_my_turn(self, stream: str) -> bool:
        interval_ms = round(EVERY / timedelta(milliseconds=1) * 0.75)
        try:
            return await reading.may_sweep(self._link, trim_key(stream), self._consumer, interval_ms=interval_ms)
        except ServerError as error:
            if error.code == "OOM":  # pacing is a courtesy, and to trim makes room
                return True
            raise

    async def _trim(self, stream: str) -> None:
        removed = 0
        for _ in range(STEPS):
            trimmed = await trimming.trim(self._link, stream, self._retentions[stream], self._groups.get(stream, ()))
            removed += trimmed.removed
            if not trimmed.removed:
                self._judge(stream, trimmed.hold, trimmed.length)
                break
        if removed:
            self._log.debug("stream.trimmed", stream=stream, entries=removed)

    def _judge(self, stream: str, hold: Hold | None, length: int) -> None:
        """Say who holds the stream back when that has lasted for a while, and when it is over."""
        if hold is None:
            self._held_since.pop(stream, None)
            if self._said.pop(stream, None) is not None:
                self._log.info("stream.released", stream=stream, length=length)
            return
        since = self._held_since.setdefault(stream, monotonic())
        if self._said.get(stream) != hold and monotonic() - since >= SAID_AFTER_SECONDS:
            self._said[stream] = hold
            self._log.warning(
                "stream.held_back", stream=stream, group=hold.group, length=length, why=_REASONS[hold.why], repair=_REPAIR
            )


def groups_by_stream(handlers: Iterable[Handler]) -> dict[str, list[str]]:
    """The groups in which a program reads each stream."""
    found: dict[str, set[str]] = {}
    for handler in handlers:
        for stream in handler.streams:
            found.setdefault(stream, set()).add(handler.group)
    return {stream: sorted(groups) for stream, groups in found.items()}
