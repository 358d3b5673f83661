"""The gates of one consumer's handlers: opened and shut by what the server, the results and the time say; and what is held back by them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from random import random
from typing import Any, Protocol

from streamworker.delivery import Delivery, Interrupted, Interruption, Verdict
from streamworker.errors import ConnectionLost, ServerError
from streamworker.handlers import Handler
from streamworker.streams import gating
from streamworker.streams.faults import sentence
from streamworker.streams.gating import Pause
from streamworker.streams.link import Link
from streamworker.worker.entrance import Entrance, Waiting
from streamworker.worker.kill_switch import Change, is_good
from streamworker.worker.order import CallLater
from streamworker.worker.permits import SOON_SECONDS
from streamworker.worker.plan import Plan
from streamworker.worker.pools import Pool, is_shut
from streamworker.worker.waiting import happens_within

TRY_AGAIN_SECONDS = 1.0


class PutAside(Protocol):
    """Someone who lets go what waits for a handler."""

    def __call__(self, handler: Handler, pool: Pool, outcome: Callable[[str], Interrupted]) -> None:
        """Take it out of its lines, and send it away with the outcome for its stream."""
        ...


class Gates:
    """All of one consumer. `active` has those that could hold up their handlers; mostly there is none."""

    def __init__(self, plan: Plan, link: Link, pools: Sequence[Pool], log: Any) -> None:
        self._link = link
        self._group = plan.group
        self._log = log
        self._handlers_on = {binding.keys.stream: binding for binding in plan.bindings}
        self._wanted = asyncio.Event()
        self.active: dict[str, Entrance] = {}
        """By handler; lanes and batches have the same mapping."""
        self._all: dict[str, Entrance] = {}
        for pool in pools:
            pool.lanes.gates = self.active
            pool.lanes.shared = plan.ceiling
            for handler in {handler.name: handler for binding in pool.bindings for handler in binding.handlers}.values():
                self._all[handler.name] = Entrance(
                    handler, pool, plan.limits[handler.name], self._wanted.set, self._moved, self._due, plan.ceiling, log
                )
        for name, entrance in self._all.items():
            if entrance.is_needed:
                self.active[name] = entrance

    def connect(
        self,
        waiting: Callable[[Handler, Pool], Waiting],
        put_aside: PutAside,
        start: Callable[[Pool], None],
        look_again: Callable[[], None],
    ) -> None:
        """Name those who go on: what waits for a handler, who sends it away, who starts what may of a pool and reads for it, and who is
        told that other streams are to be read than before."""
        self._put_aside = put_aside
        self._start = start
        self._look_again = look_again
        for entrance in self._all.values():
            entrance.waiting = waiting(entrance.handler, entrance.pool)

    def be_driven_by(self, clock: Callable[[], float], call_later: CallLater) -> None:
        """Take the time from these, in place of the event loop."""
        for entrance in self._all.values():
            entrance.clock, entrance.call_later = clock, call_later

    async def run(self) -> None:
        """Ask for permits whenever they are wanted, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            for entrance in list(self.active.values()):
                if entrance.wants:
                    await self._ask(entrance)

    def set_paused(self, paused: Mapping[str, Pause]) -> None:
        """These handlers are paused, and no others."""
        for name, entrance in self._all.items():
            if (name in paused) is entrance.gate.is_paused:
                continue
            if name in paused:
                self.active[name] = entrance
                entrance.gate.pause(entrance.clock())
                since = paused[name].since.isoformat(timespec="seconds")
                self._log.info("handler.paused", handler=name, since=since, reason=paused[name].reason)
            else:
                entrance.gate.resume()
                self._log.info("handler.resumed", handler=name)
            entrance.look()

    def refusal(self, stream: str, name: str) -> Interrupted | None:
        """The outcome of a delivery that was read though it cannot start soon; `None` where it may wait here."""
        entrance = self.active.get(name)
        if entrance is None or not entrance.is_crowded:
            return None
        entrance.look_soon()  # the permits that were there may have ended
        return self._held_back(entrance, stream)

    async def enter_alone(self, handler: Handler) -> Interrupted | None:
        """Have leave to start one that needs no place; waits for it a moment at most, and gives what happened where there was none."""
        entrance = self.active.get(handler.name)
        if entrance is None:
            return None
        until = asyncio.get_running_loop().time() + SOON_SECONDS
        entrance.beside += 1
        try:
            while not entrance.admit():
                left = until - asyncio.get_running_loop().time()
                if entrance.is_shut or left <= 0:
                    return Interrupted(Interruption.HELD_BACK, entrance.put_aside_for(random()))  # noqa: S311  # spreads a fleet
                entrance.changed.clear()
                await happens_within(entrance.changed, left)
        finally:
            entrance.beside -= 1
        return None

    def note(self, delivery: Delivery, handler: Handler, verdict: Verdict, began: float) -> None:
        """Take a verdict on a delivery of a handler with a kill switch."""
        self._note(handler, is_good(verdict, delivery), began, 1)

    def note_good(self, handler: Handler, began: float, entries: int) -> None:
        """So many have succeeded together."""
        self._note(handler, True, began, entries)

    @property
    def at_rest(self) -> int:
        """How many of the entries that are held wait for a gate that only time, or somebody else, will open."""
        return sum(one.waiting.total() + one.waiting.behind() for one in self.active.values() if one.is_at_rest)

    def holds_up(self, stream: str, group: str) -> bool:
        """Whether what is in this stream is not read for this group, because only time, or somebody else, will open a gate."""
        if group != self._group or stream not in self._handlers_on:
            return False
        entrances = [self.active.get(handler.name) for handler in self._handlers_on[stream].handlers]
        return all(one is not None and one.is_at_rest and (one.room == 0 or not one.pool.is_read) for one in entrances)

    @property
    def resting(self) -> list[str]:
        """The handlers whose kill switches have tripped."""
        return [
            name for name, one in self.active.items() if one.gate.switch is not None and one.gate.switch.rests_until is not None
        ]

    def close(self) -> None:
        """The drain has begun: nothing is opened any more."""
        for entrance in self._all.values():
            entrance.close()

    async def _ask(self, entrance: Entrance) -> None:
        """Ask the server for permits; where it does not answer, nothing starts without them."""
        entrance.wants = False
        limit, permits = entrance.handler.rate_limit, entrance.gate.permits
        count = entrance.demand()
        if limit is None or permits is None or not count:
            return
        handler, sent_at = entrance.handler, entrance.clock()
        place = (handler.streams[0], handler.group, handler.name)
        entrance.asking = True
        try:
            granted = await gating.ask_for_permits(self._link, place, limit.timing, count, together=handler.batch is not None)
        except (ConnectionLost, ServerError) as error:
            entrance.trouble.strikes(sentence(error))
            entrance.ask_later(TRY_AGAIN_SECONDS)
            return
        finally:
            entrance.asking = False
        entrance.trouble.is_over()
        permits.grant(*granted, sent_at, entrance.clock())
        entrance.asked(count, granted.granted)
        entrance.look()
        self._due(entrance)

    def _due(self, entrance: Entrance) -> None:
        self._start(entrance.pool)

    def _moved(self, entrance: Entrance) -> None:
        """A gate was opened or shut."""
        if entrance.was_shut:
            self._put_aside(entrance.handler, entrance.pool, lambda stream: self._held_back(entrance, stream))
        elif not entrance.is_needed:
            self.active.pop(entrance.handler.name, None)
        self._look_again()
        if not entrance.was_shut:
            self._due(entrance)

    def _held_back(self, entrance: Entrance, stream: str) -> Interrupted:
        """It waits in the retry stream where nobody reads that meanwhile, and for a time where another handler's entries are read."""
        if is_shut(self._handlers_on[stream], self.active):
            return Interrupted(Interruption.HELD_BACK)
        return Interrupted(Interruption.HELD_BACK, entrance.put_aside_for(random()))  # noqa: S311  # spreads a fleet

    def _note(self, handler: Handler, good: bool | None, began: float, entries: int) -> None:
        entrance = self._all[handler.name]
        switch = entrance.gate.switch
        if switch is None:
            return
        for _ in range(entries):
            change = switch.note(good, began, entrance.clock())
            if change is Change.TRIPPED:
                rest = timedelta() if handler.kill_switch is None else handler.kill_switch.rest
                self._log.warning("kill_switch.tripped", handler=handler.name, failed=switch.failed, rest_s=rest.total_seconds())
            elif change is Change.RESET:
                self._log.info("kill_switch.reset", handler=handler.name)
        entrance.look()
