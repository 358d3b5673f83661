"""How long to wait before the server is asked again. Not to be confused with a handler's backoff, which is a policy of the user."""

from __future__ import annotations

import asyncio
from random import uniform

from streamworker.streams.recovery import Recovery
from streamworker.worker.waiting import one_happens_within

FIRST_SECONDS = 0.1
CAP_SECONDS = 5.0


class Pauses:
    """Growing pauses with full jitter, from a tenth of a second to five, until something goes well again."""

    def __init__(self) -> None:
        self._next = FIRST_SECONDS

    def next(self) -> float:
        """The next pause in seconds."""
        pause = uniform(0, 1) * self._next  # noqa: S311  # spreads a fleet's reconnects, guards nothing
        self._next = min(CAP_SECONDS, self._next * 2)
        return pause

    def reset(self) -> None:
        """Start again with short pauses."""
        self._next = FIRST_SECONDS


class Tries:
    """Waits between tries at one thing: growing pauses, cut short when the server answers again, or when `stopping` is set.

    What was tried again at once and failed may be what the connection dies of: it waits its whole pause the next time.
    """

    def __init__(self, recovery: Recovery, *stopping: asyncio.Event) -> None:
        self._recovery = recovery
        self._stopping = stopping
        self._pauses = Pauses()
        self._was_woken = False

    async def wait(self) -> None:
        """Wait until the next try."""
        answers = self._recovery.awaited
        events = self._stopping if self._was_woken else (*self._stopping, answers)
        await one_happens_within(self._pauses.next(), *events)
        self._was_woken = not self._was_woken and answers.is_set()

    def reset(self) -> None:
        """It went well."""
        self._pauses.reset()
        self._was_woken = False
