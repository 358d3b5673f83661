"""Says when handlers have run too long: one timer looks at tables in the order of starting, so that no run needs a timer of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Run = TypeVar("Run")


class Timeouts(Generic[Run]):
    """The runs that may time out. `expired` is called, on the loop, with each run whose time is over; it is forgotten by then."""

    def __init__(self, expired: Callable[[Run], None]) -> None:
        self._expired = expired
        self._deadlines: dict[float, dict[Run, float]] = {}
        self._timer: asyncio.Handle | None = None
        self._looks_at = 0.0

    def watch(self, run: Run, seconds: float) -> None:
        """Begin to count: `run` may take so long from now on."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        # All of one table may take equally long, so they run out in the order in which they were put there.
        self._deadlines.setdefault(seconds, {})[run] = deadline
        if self._timer is None or deadline < self._looks_at:
            self._set(deadline)

    def forget(self, run: Run, seconds: float) -> None:
        """The run has ended. The timer stays: where its run is over by then, it looks for the next one."""
        self._deadlines.get(seconds, {}).pop(run, None)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for table in self._deadlines.values():
            over = []
            for run, deadline in table.items():
                if deadline > now:
                    break
                over.append(run)
            for run in over:
                del table[run]
                self._expired(run)
        heads = [next(iter(table.values())) for table in self._deadlines.values() if table]
        if heads:
            self._set(min(heads))

    def _set(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Kept here, for a handle that is due at once does not say when it is (uvloop).
        self._looks_at = deadline
        self._timer = asyncio.get_running_loop().call_at(deadline, self._look)
