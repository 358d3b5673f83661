"""Keeps so many worker processes running: one in each place, followed by another when it leaves or dies, until all are to end."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from random import random
from typing import Any

from streamworker.settings import Settings
from streamworker.supervisor.child import KILL_AFTER_SECONDS, Child, in_words
from streamworker.supervisor.messages import Hello, Order
from streamworker.supervisor.restarts import (
    LIVED_SECONDS,
    MOST_EARLY_DEATHS,
    as_exit_code,
    ends_all,
    is_crash_loop,
    pause_seconds,
    worst,
)
from streamworker.supervisor.verdicts import Seen
from streamworker.version import VERSION
from streamworker.worker.exits import ExitCode
from streamworker.worker.waiting import happens_within

MARGIN_SECONDS = 10.0
"""What an end may take beyond the grace, for a child that has not told its own time yet."""

LAST_WORDS_SECONDS = 5.0
"""What it may take us to say so. A log that nobody reads would keep us for ever."""


@dataclass(eq=False)
class Place:
    """Where one child works, and its successors after it. `early_deaths` are those in a row."""

    closed: asyncio.Event = field(default_factory=asyncio.Event)
    child: Child | None = None
    early_deaths: int = 0

    @property
    def deaths_so_far(self) -> int:
        """The early deaths in a row as of now: who works here may have lived for long enough."""
        return 0 if self.child is not None and self.child.has_lived else self.early_deaths


class Supervisor:
    """Runs `command` in `settings.workers` processes. All but `run` may be called from signal handlers' callbacks of its loop."""

    def __init__(self, command: Sequence[str], settings: Settings, log: Any) -> None:
        self._command = command
        self._settings = settings
        self._log = log
        self._places: list[Place] = []
        self._children: list[Child] = []
        self._numbers: set[int] = set()
        self._bounds = Hello(settings.grace.total_seconds(), MARGIN_SECONDS)
        self._anybody_was_ready = False
        self._paused = False
        self._codes: list[ExitCode] = []
        self._is_rolling = self._roll_again = False
        self.stopping: bool = False
        self._traced = ""
        self._last_means: threading.Timer | None = None
        self.last_words: str = ""
        """Why it ended, where the children could not even begin."""

    async def run(self) -> ExitCode:
        """Work until told to stop, or until there is no sense in going on."""
        self._log.info("supervisor.started", workers=self._settings.workers, version=VERSION, pid=os.getpid())
        async with asyncio.TaskGroup() as self._tasks:
            for _ in range(self._settings.workers):
                self._open_place()
        code = worst(self._codes)
        self._log.info("supervisor.stopped", exit_code=int(code))
        if self._last_means is not None:
            self._last_means.cancel()
        return code

    def drain(self, why: str) -> None:
        """Let all children drain, and end with them."""
        if not self.stopping:
            self._stop(Order.DRAIN)  # before a word about it: where nobody reads the log, who writes to it may wait for ever
            self._log.info("supervisor.draining", why=why, children=len(self._children))

    def hurry(self) -> None:
        """Have all children interrupt their handlers, and end with them."""
        self._codes.append(ExitCode.INTERRUPTED)
        self._stop(Order.HURRY)
        self._log.warning("supervisor.interrupted", children=len(self._children))

    def toggle_pause(self) -> None:
        """Have no child read, or let all go on; those that are started later too."""
        self._paused = not self._paused
        self._log.info("supervisor.paused" if self._paused else "supervisor.resumed")
        for child in self._children:
            child.tell(Order.PAUSE if self._paused else Order.RESUME)

    def add(self) -> None:
        """One child more."""
        if not self.stopping:
            self._open_place()
            self._log.info("supervisor.scaled", workers=len(self._places))

    def remove(self) -> None:
        """One child fewer, the one added last; never the last one."""
        if self.stopping:
            return
        if len(self._places) == 1:
            self._log.warning("signal.ignored", why="one child is the least: to stop it too, send TERM")
            return
        place = self._places.pop()
        self._log.info("supervisor.scaled", workers=len(self._places))
        place.closed.set()
        if place.child is not None:
            place.child.tell(Order.DRAIN)

    def roll(self) -> None:
        """Replace the children one by one, each only when its successor is ready."""
        if self.stopping or self._is_rolling:
            self._roll_again = not self.stopping
        else:
            self._is_rolling = True
            self._tasks.create_task(self._roll())

    def seen(self) -> Seen:
        """The children, for the health endpoints. Called in their threads."""
        return Seen([child.watched for child in list(self._children)], self.stopping)

    # ---- one place ----------------------------------------------------------------------------------------------------------

    def _open_place(self) -> None:
        place = Place()
        self._places.append(place)
        self._tasks.create_task(self._keep(place))

    async def _keep(self, place: Place) -> None:
        """See to it that a child works in this place, until it is closed or its work is done."""
        while not place.closed.is_set():
            child = place.child = await self._start()
            if child is not None and place.closed.is_set():
                child.tell(Order.DRAIN)
            while child is not None:
                await child.leaving.wait()
                if place.child is child:
                    break
                child = place.child  # a rolling restart has put its successor here
            place.child = None
            if child is not None and child.has_lived:
                place.early_deaths = 0
            if self._settings.burst and child is not None and not child.has_crashed:
                place.closed.set()
            elif (child is None or child.has_crashed) and not place.closed.is_set():
                await self._pause_after_death(place, child)
        if place in self._places:
            self._places.remove(place)

    async def _pause_after_death(self, place: Place, child: Child | None) -> None:
        place.early_deaths += child is None or not child.has_lived
        if child is not None and child.code is not None and self._is_in_vain(child.code):
            self.last_words = child.last_words or f"a worker process ended with {in_words(child.code)} before it could begin"
            self._give_up(ExitCode(child.code))
        elif is_crash_loop([place.deaths_so_far for place in self._places]):
            self._say_crash_loop(place, child)
            self._give_up(ExitCode.FAILURE)
        else:
            pause = pause_seconds(place.early_deaths, random())  # noqa: S311  # jitter
            log = self._log if child is None else child.log
            log.warning("child.restarting", after_s=round(pause, 3), early_deaths=place.early_deaths)
            await happens_within(place.closed, pause)

    def _is_in_vain(self, code: int) -> bool:
        anybody = self._anybody_was_ready or any(child.is_ready for child in self._children)
        return ends_all(code, anybody_was_ready=anybody)

    def _say_crash_loop(self, place: Place, child: Child | None) -> None:
        how = "it could not be started" if child is None or child.code is None else in_words(child.code)
        said = {"said": child.last_words} if child is not None and child.last_words else {}
        self._log.error(
            "supervisor.crash_loop",
            why=f"every child has died {MOST_EARLY_DEATHS} times in a row within {LIVED_SECONDS:.0f} s of being ready, or before",
            early_deaths=place.early_deaths,
            how=how,
            **said,
        )

    def _give_up(self, code: ExitCode) -> None:
        self._codes.append(code)
        if not self.stopping:
            self._stop(Order.DRAIN)

    def _stop(self, order: Order) -> None:
        self.stopping = True
        if self._last_means is None:
            longest = max(b.grace_seconds + b.margin_seconds for b in (self._bounds, *(child.bounds for child in self._children)))
            within = longest + KILL_AFTER_SECONDS + LAST_WORDS_SECONDS
            self._last_means = threading.Timer(within, os._exit, (ExitCode.GRACE_EXCEEDED,))
            self._last_means.daemon = True
            self._last_means.start()
        for place in self._places:
            place.closed.set()
        for child in list(self._children):
            child.tell(order)

    async def _start(self) -> Child | None:
        """A new child; `None` when the system gives none."""
        number = next(number for number in count(1) if number not in self._numbers)
        self._numbers.add(number)
        try:
            child = await Child.start(self._command, number, self._bounds, self._log)
        except OSError as error:
            self._numbers.remove(number)
            self._log.error("child.not_started", error=str(error))
            return None
        self._children.append(child)
        self._tasks.create_task(self._attend(child))
        if self._paused:
            child.tell(Order.PAUSE)
        if self.stopping:
            child.tell(Order.DRAIN)
        return child

    async def _attend(self, child: Child) -> None:
        """See a child through to its end, and say how it ended."""
        code = await child.live()
        self._children.remove(child)
        self._numbers.remove(child.number)
        self._anybody_was_ready = self._anybody_was_ready or child.is_ready
        event = "child.exited"
        level = "error" if child.has_crashed else "info" if code == 0 else "warning"
        # What ends all is said once, at the end.
        said = {"said": child.last_words} if child.last_words and not self._is_in_vain(code) else {}
        if child.trace and child.last_words != self._traced:
            self._traced = child.last_words
            said["exception"] = child.trace  # of what kills one child after the other once
        getattr(child.log, level)(event, how=in_words(code), **said)
        if self.stopping or (self._settings.burst and not child.has_crashed):
            self._codes.append(as_exit_code(code, killed_by_us=child.killed))

    # ---- rolling ------------------------------------------------------------------------------------------------------------

    async def _roll(self) -> None:
        while self._is_rolling:
            self._roll_again = False
            self._log.info("supervisor.rolling", workers=len(self._places))
            for place in list(self._places):
                if not await self._replace(place):
                    break
            else:
                self._log.info("supervisor.rolled", workers=len(self._places))
            self._is_rolling = self._roll_again and not self.stopping

    async def _replace(self, place: Place) -> bool:
        """Put a successor in this place once it is ready; answers whether the roll may go on."""
        successor = await self._start()
        if successor is not None:
            await successor.settled.wait()
        if self.stopping:
            return False
        if successor is None or not successor.is_ready or successor.leaving.is_set():
            self._log.error("supervisor.roll_failed", why="the first successor did not become ready; those there go on")
            return False
        before = place.child
        if before is None or place.closed.is_set():
            successor.tell(Order.DRAIN)  # there is nobody to replace: a fresh one comes, or none
            return True
        place.child = successor
        before.tell(Order.DRAIN)
        await before.ended.wait()
        return not self.stopping
