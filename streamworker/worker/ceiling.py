"""How many handlers run at once over all of a process, and whose turn it is while more could start than there are places.

Of those that could start, the handler is next of which fewest run; of several, the one that has waited longest since its last start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Contender(Protocol):
    """A handler that shares the places with all others of the process."""

    @property
    def running(self) -> int:
        """How many deliveries or batches of it run."""
        ...

    @property
    def here(self) -> int:
        """How many deliveries or batches of it are here and do not run yet."""
        ...

    @property
    def could_start(self) -> bool:
        """Whether something of it waits for nothing but a place of the process."""
        ...


class Ceiling:
    """One per process, shared by its consumers. Nothing is counted here, so nothing can be counted twice: who runs is asked."""

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self._contenders: dict[Contender, int] = {}
        self._starts: list[Callable[[], None]] = []
        self._begun = 0
        self._is_scheduled = self._is_starting = False
        self._goes_by_turns = True

    def join(self, contender: Contender) -> None:
        """Take a handler into account."""
        self._contenders[contender] = 0

    def start_by(self, start: Callable[[], None]) -> None:
        """Call `start`, which starts what is admitted, whenever there may be a place for it."""
        self._starts.append(start)

    def admits(self, contender: Contender, *, in_turn: bool = True) -> bool:
        """Whether one more of this handler may start now; where it is not `in_turn`, whoever else waits."""
        if not self._has_room:
            return False
        if in_turn and self._goes_by_turns and self._is_before(contender):
            self.freed()
            return False
        return True

    def began(self, contender: Contender) -> None:
        """Something of it has started."""
        self._begun += 1
        self._contenders[contender] = self._begun

    def freed(self) -> None:
        """There may be a place for somebody: have everybody start what may, once those are done that are at work now."""
        if not self._is_scheduled and not self._is_starting:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    @property
    def part(self) -> int:
        """A handler's equal part of the places that are left when all that is here has one; 0 where none is."""
        left = self.limit - sum([contender.running + contender.here for contender in self._contenders])
        return max(0, -(-left // len(self._contenders)))

    @property
    def is_full(self) -> bool:
        """Whether nothing more can start now."""
        return not self._has_room

    @property
    def _running(self) -> int:
        return sum([contender.running for contender in self._contenders])

    @property
    def _has_room(self) -> bool:
        return self._running < self.limit

    def _is_before(self, contender: Contender) -> bool:
        """Whether it is the turn of another one."""
        rank = contender.running, self._contenders[contender]
        return any(
            other is not contender and (other.running, last) < rank and other.could_start
            for other, last in self._contenders.items()
        )

    def _start(self) -> None:
        self._is_scheduled, self._is_starting = False, True
        try:
            running = -1
            while self._has_room and running != self._running:
                running = self._running
                self._start_all()
            # Whose turn it was could not start after all: nobody waits for that.
            self._goes_by_turns = False
            self._start_all()
        finally:
            self._goes_by_turns, self._is_starting = True, False

    def _start_all(self) -> None:
        for start in self._starts:
            start()


def places(own: int | None, default: int, ceiling: Ceiling | None) -> int:
    """How many of a handler run at once: as it says itself or as the setting says, and no more than all together."""
    most = default if own is None else own
    return most if ceiling is None else min(most, ceiling.limit)
