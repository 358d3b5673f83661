"""Replaying or discarding many dead letters: at a rate, until told to stop, with a tally that is right however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

from streamworker.admin.dead_letters import DeadLetterEntry
from streamworker.errors import DecodeError

TOGETHER = 50
"""Steps that are sent in one write where no rate is wanted; to stop, those under way are waited for."""

MOST_EXAMPLES = 3

Step: TypeAlias = Callable[[DeadLetterEntry], Awaitable[bool]]


@dataclass(slots=True)
class Tally:
    """What became of the dead letters so far: done, gone before we came, and refused because they are damaged."""

    done: int = 0
    gone: int = 0
    refused: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    """Id and damage of the first few that were refused."""

    @property
    def seen(self) -> int:
        """How many were dealt with, in whatever way."""
        return self.done + self.gone + self.refused


async def carry_out(
    pages: AsyncIterator[Sequence[DeadLetterEntry]],
    step: Step,
    tally: Tally,
    *,
    interval: timedelta | None,
    stop: asyncio.Event,
    progressed: Callable[[], None],
) -> None:
    """Take `step` with each dead letter, one per `interval`, until `stop` is set. Raises what the server says; the tally stands.

    A step that ended by `ConnectionLost` is not in the tally, although it may have been done.
    """
    size = TOGETHER if interval is None else 1
    loop = asyncio.get_running_loop()
    due, waits = loop.time(), False
    async for page in pages:
        for start in range(0, len(page), size):
            if waits:
                await _wait(stop, due)
            if stop.is_set():
                return
            await _carry_out_together(page[start : start + size], step, tally)
            progressed()
            if interval is not None:
                # Late ones are not caught up with: a rate is asked for to spare somebody.
                due, waits = max(loop.time(), due + interval.total_seconds()), True


async def _carry_out_together(letters: Sequence[DeadLetterEntry], step: Step, tally: Tally) -> None:
    errors: list[BaseException] = []
    results = await asyncio.gather(*(step(letter) for letter in letters), return_exceptions=True)
    for letter, result in zip(letters, results, strict=True):
        if isinstance(result, DecodeError):
            tally.refused += 1
            if len(tally.examples) < MOST_EXAMPLES:
                tally.examples.append((letter.id, str(result)))
        elif isinstance(result, BaseException):
            errors.append(result)
        elif result:
            tally.done += 1
        else:
            tally.gone += 1
    if errors:
        raise errors[0]


async def _wait(stop: asyncio.Event, until: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            await stop.wait()
