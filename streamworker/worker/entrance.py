"""The gate of one handler where it is used: with a clock, a timer, and what waits in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

from streamworker.handlers import Handler
from streamworker.observe.troubles import Trouble
from streamworker.worker.ceiling import Ceiling
from streamworker.worker.gate import Gate
from streamworker.worker.order import CallLater, Timer
from streamworker.worker.permits import SHORTEST_PAUSE
from streamworker.worker.pools import Pool

Heard: TypeAlias = "Callable[[Entrance], None]"


class Waiting(NamedTuple):
    """What waits for a handler: how many deliveries, and how many of them would start now if the gate let them; how many run; and how many
    wait behind those that wait, because of their order."""

    total: Callable[[], int]
    next: Callable[[], int]
    running: Callable[[], int] = lambda: 0
    behind: Callable[[], int] = lambda: 0


class Entrance:
    """One handler's, in the lanes of `pool`.

    `want` has permits asked for; `moved` is called when it was opened or shut, `due` when what was waited for may be there.

    `beside` is how many wait that need no place. `wants` is set while permits are to be asked for, and `asking` while that is under way.
    """

    def __init__(
        self,
        handler: Handler,
        pool: Pool,
        places: int,
        want: Callable[[], None],
        moved: Heard,
        due: Heard,
        ceiling: Ceiling | None,
        log: Any,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.handler: Handler = handler
        self.pool: Pool = pool
        self.gate: Gate = Gate(handler)
        self.trouble: Trouble = Trouble(log, "rate_limit", handler=handler.name)
        self.waiting: Waiting = Waiting(lambda: 0, lambda: 0)
        self.clock: Callable[[], float] = loop.time
        self.call_later: CallLater = loop.call_later
        self.changed: asyncio.Event = asyncio.Event()
        self.beside: int = 0
        self.wants: bool = False
        self.asking: bool = False
        self.was_shut: bool = False
        self._ceiling = ceiling
        if ceiling is not None:
            ceiling.join(self)
        self._together = 1 if handler.batch is None else handler.batch.max_size
        self._places = places * self._together
        self._call_soon = loop.call_soon
        self._want = want
        self._moved, self._due = moved, due
        self._timer: Timer | None = None
        self._ask_not_before = 0.0
        self._is_closed = False

    # ---- what the lanes ask -------------------------------------------------------------------------------------------------

    def admit(self) -> bool:
        """Whether one may start now; then it counts as started."""
        if self.most() < 1:
            return False
        self.start(1)
        return True

    def most(self) -> int:
        """How many may start now; where permits are missing, they are asked for."""
        now = self.clock()
        most = self.gate.may_start(now)
        if most and self._ceiling is not None and not self._ceiling.admits(self, in_turn=not self.beside):
            return 0
        if most < 1 and not self._is_closed and self.gate.lacks_permits(now):
            self._want_permits(now)
        return most

    def start(self, count: int) -> None:
        """So many start, of those that may."""
        now = self.clock()
        self.gate.start(count, now, perf_counter())
        if self._ceiling is not None:
            self._ceiling.began(self)
        if self.gate.permits is not None and not self.wants and not self.asking and self.gate.permits.to_have_ready(now):
            self._want_permits(now)
        self.look_soon()

    @property
    def room(self) -> int:
        """How many more could start soon than those that wait."""
        room = max(0, self.gate.soon(self.clock()) - self.waiting.total())
        return room if self._ceiling is None else min(room, self._room_below(self._ceiling))

    @property
    def is_shut(self) -> bool:
        """Whether nothing can start soon."""
        return self.gate.soon(self.clock()) == 0

    # ---- what the ceiling asks ----------------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """How many deliveries or batches of it run."""
        return self.waiting.running()

    @property
    def could_start(self) -> bool:
        """Whether something of it waits for nothing but a place of the process."""
        return self.waiting.next() > 0 and self.gate.may_start(self.clock()) > 0

    @property
    def here(self) -> int:
        """How many deliveries or batches of it are here and do not run yet."""
        return -(-self.waiting.total() // self._together)

    def _room_below(self, ceiling: Ceiling) -> int:
        """What fills up the last batch, what its part of the places that are left takes, or one where nothing waits, so that there is
        something when its turn comes; and what may be read ahead, because it is worked off in a moment."""
        waiting = self.waiting.total()
        places = max(ceiling.part, 0 if waiting else 1)
        return -waiting % self._together + places * self._together + max(0, self.pool.lanes.ahead - waiting)

    # ---- what the gates ask -------------------------------------------------------------------------------------------------

    @property
    def is_needed(self) -> bool:
        """Whether there is anything that could keep the handler from starting."""
        return self._ceiling is not None or self.gate.is_needed

    @property
    def is_crowded(self) -> bool:
        """Whether one more has no business here: nothing can start soon, or enough wait that can."""
        soon = self.gate.soon(self.clock())
        return soon == 0 or self.waiting.total() >= max(soon, self._places)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing will change by itself before its time has come."""
        return not self.wants and not self.asking and not self.beside and (self._timer is not None or self.gate.is_paused)

    def demand(self) -> int:
        """How many permits to ask for."""
        if self.gate.permits is None:
            return 0
        if self.handler.batch is not None and self.handler.rate_limit is not None:
            return min(max(self.waiting.next(), self.beside), self.handler.rate_limit.timing.most_at_once)
        return self.gate.permits.wanted(self.waiting.total() + self.beside, self.waiting.next() + self.beside, self.clock())

    def put_aside_for(self, random: float) -> timedelta:
        """How long a delivery that was read too early waits elsewhere."""
        return timedelta(seconds=self.gate.put_aside_for(self.clock(), random))

    def asked(self, wanted: int, got: int) -> None:
        """The server has answered; where it had less than was wanted, more is worth a question a little later only."""
        self._ask_not_before = self.clock() + (SHORTEST_PAUSE if got < wanted else 0.0)

    def ask_later(self, seconds: float) -> None:
        """The server did not answer: ask no sooner than that."""
        self._ask_not_before = self.clock() + seconds
        self._set_timer(self._ask_not_before)

    def look(self) -> None:
        """See whether it was opened or shut since the last look, and be called when it will be."""
        if self._is_closed:
            return
        self.changed.set()
        now, shut = self.clock(), self.is_shut
        opens_at = self.gate.opens_at(now) if shut else None
        if opens_at is not None:
            self._set_timer(opens_at)
        if shut is not self.was_shut:
            self.was_shut = shut
            self._moved(self)

    def look_soon(self) -> None:
        """Look once those are done that are at work now, if it was opened or shut."""
        if self.is_shut is not self.was_shut:
            self._call_soon(self.look)

    def close(self) -> None:
        """Open nothing any more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _want_permits(self, now: float) -> None:
        if self.wants or self.asking or self.gate.permits is None:
            return
        at = max(self.gate.permits.ask_at(now), self._ask_not_before)
        if at > now:
            self._set_timer(at)
        else:
            self.wants = True
            self._want()

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.call_later(max(0.0, at - self.clock()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        was_shut = self.was_shut
        self.look()
        if not self.was_shut and not was_shut:
            self._due(self)
