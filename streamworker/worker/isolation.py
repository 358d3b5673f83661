"""Lets one delivery of this process run with nothing else in flight beside it, so that a death of the process can be laid at its door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Protocol

from streamworker.worker.waiting import happens_within

LOOK_SECONDS = 0.1
"""How often to look whether we are alone, where nobody has said that something changed."""

FIRST_PATIENCE, LONGEST_PATIENCE = timedelta(minutes=1), timedelta(hours=1)
"""How long a process may wait for its handlers to end, starting nothing new, before it gives solitude up; and how long an entry may run
alone before others start beside it. Then the process works as ever for just as long, and is twice as patient the next time: one handler
that never ends costs at most half of the process."""

LONG_SECONDS = 10.0
"""After so long without anything new, a process does not count as reading."""


class Member(Protocol):
    """One who puts entries in flight: a consumer of this process."""

    @property
    def busy(self) -> int:
        """How many entries it holds, settled ones included until the server has said so, and threads that outlast theirs."""
        ...

    @property
    def is_still(self) -> bool:
        """Whether it is certain that no new entry is on its way to it."""
        ...

    def step_aside(self) -> None:
        """Start and read nothing new, give back what waits; what runs goes on."""
        ...

    def go_on(self) -> None:
        """Read and start again."""
        ...


class Isolation:
    """One per process, shared by its consumers. `wanted` says that somebody waits to run alone, or does: then nobody may begin anything."""

    def __init__(self, patience: timedelta = FIRST_PATIENCE) -> None:
        self._first_patience = self._patience = patience
        self._rests_until = 0.0
        self._members: list[Member] = []
        self._suspects = 0
        self._since = 0.0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._over.set()
        self.ending: asyncio.Event = asyncio.Event()
        """Set when nobody can be alone any more, because the process is ending."""

    @property
    def wanted(self) -> bool:
        """Whether a delivery waits to run alone, or runs alone."""
        return self._suspects > 0

    @property
    def lasts_long(self) -> bool:
        """Whether for some time nothing else may begin here."""
        return self.wanted and asyncio.get_running_loop().time() - self._since > LONG_SECONDS

    @property
    def rests(self) -> bool:
        """Whether solitude was given up not long ago, so that there is no use in asking for it."""
        return asyncio.get_running_loop().time() < self._rests_until

    def patience_with(self, outstayed: int) -> timedelta:
        """How long an entry that has outstayed its time so often may run alone now."""
        return min(LONGEST_PATIENCE, self._first_patience * (1 << min(outstayed, 10)))

    def rest(self, time: timedelta) -> None:
        """Somebody was alone for so long: nobody is to be for just as long."""
        self._rests_until = asyncio.get_running_loop().time() + time.total_seconds()

    def join(self, member: Member) -> None:
        """Take a consumer into account."""
        self._members.append(member)

    def changed(self) -> None:
        """Something has ended: look again whether we are alone."""
        self._changed.set()

    def close(self) -> None:
        """The process ends: nobody waits any longer."""
        self.ending.set()
        self._changed.set()
        self._over.set()

    async def is_over(self, *, within: float) -> bool:
        """Wait at most so many seconds until nobody wants to run alone; answers whether it is so."""
        return await happens_within(self._over, within)

    @asynccontextmanager
    async def solitude(self) -> AsyncIterator[bool]:
        """Wait until nothing is in flight beside those who wait here, one after another; gives false when that could not be had."""
        if self.ending.is_set() or self.rests:
            yield False
            return
        self._enter()
        try:
            async with self._turn:
                yield await self._found()
        finally:
            self._leave()

    def _enter(self) -> None:
        self._suspects += 1
        if self._suspects == 1:
            self._over.clear()
            self._since = asyncio.get_running_loop().time()
            for member in self._members:
                member.step_aside()
        self._changed.set()

    def _leave(self) -> None:
        self._suspects -= 1
        self._changed.set()
        if self._suspects == 0:
            self._over.set()
            for member in self._members:
                member.go_on()

    async def _found(self) -> bool:
        loop = asyncio.get_running_loop()
        began = loop.time()
        # Those who wait behind one who gave up would wait for the same handlers: `rests` answers them at once.
        while not self.ending.is_set() and not self.rests:
            if self._is_here():
                self._patience = self._first_patience
                return True
            if loop.time() - began > self._patience.total_seconds():
                self._give_up()
                return False
            self._changed.clear()
            await happens_within(self._changed, LOOK_SECONDS)
        return False

    def _give_up(self) -> None:
        self.rest(self._patience)
        self._patience = min(LONGEST_PATIENCE, 2 * self._patience)

    def _is_here(self) -> bool:
        held = sum(member.busy for member in self._members)
        return held <= self._suspects and all(member.is_still for member in self._members)
