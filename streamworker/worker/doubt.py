"""Whether earlier entries than those that are here may be out without our knowledge; what is ordered waits until that is known."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from time import monotonic
from typing import Any

from streamworker.streams import groups, inspecting, reading
from streamworker.streams.link import Link
from streamworker.streams.reading import Room
from streamworker.worker.bindings import Binding, order_of
from streamworker.worker.intake import Intake
from streamworker.worker.plan import Plan
from streamworker.worker.pools import Pool

LONGEST_IN_LEASES = 10
"""For so many leases what dead workers have left is waited for; it takes little more than one, unless somebody holds up the sweeps."""

AT_ONCE = 500
"""How many released entries one command asks for."""


class Doubt:
    """A reader's. It `arises` with each lost reply, lost lease and new connection, and ends with a look at what is pending."""

    def __init__(self, plan: Plan, link: Link, intake: Intake, log: Any) -> None:
        self._plan = plan
        self._link = link
        self._intake = intake
        self._log = log
        self._lasts = False
        self._began: float | None = None
        self._inherited = not intake.order
        self._said = False

    def arises(self) -> None:
        """Entries may have been given to us whose reply was lost."""
        self._lasts = True
        self._intake.order.doubt()

    @property
    def holds_up(self) -> bool:
        """Whether nothing new may be read because of it: where an order is kept, what is earlier must be here first."""
        return bool(self._intake.order) and (self._lasts or not self._inherited)

    @property
    def can_be_settled(self) -> bool:
        """Whether there is a doubt, and nothing that keeps us from taking up what may be found."""
        return self._lasts and self._intake.can_keep and (self._plan.budget.left > 0 or bool(self._intake.order))

    async def settle(self) -> None:
        """Take up what is pending under our name; what there is no room for is looked for again when there is some."""
        if self._began is None:
            self._began = monotonic()
        self._lasts = False
        if not await self._intake.reconcile():
            self._lasts = True
        if not self._lasts and self._inherited:
            self._intake.order.trust()

    async def look_for_heritage(self, pools: Sequence[Pool]) -> None:
        """See whether all that was pending when this worker began is settled by now, or with somebody who lives; and take up all that was
        released: only then anything begins that has an order.

        Who lives renews; what a dead worker held comes to somebody when its lease has run out, and before that nothing later may run.
        """
        bindings = [binding for pool in pools for binding in pool.bindings if binding.ready]
        if self._inherited or not bindings or not self._can_look:
            return
        if self._plan.budget.left == 0:
            self._intake.order.trust()  # what is here is the earliest; only its end makes room for the rest
            return
        waited = timedelta(seconds=0 if self._began is None else monotonic() - self._began)
        if waited < LONGEST_IN_LEASES * self._plan.lease and await self._somebody_may_be_dead(bindings, waited):
            return
        await self._take_what_was_released(bindings)
        self._inherited = True
        if not self._lasts:
            self._intake.order.trust()

    @property
    def waits_for_heritage(self) -> bool:
        """Whether that is still to be seen."""
        return not self._inherited

    @property
    def _can_look(self) -> bool:
        return not self._lasts and not self._plan.isolation.wanted and self._intake.can_keep

    async def _somebody_may_be_dead(self, bindings: Sequence[Binding], waited: timedelta) -> bool:
        """Whether anything is pending that nobody has touched since this worker began."""
        idle_ms = max(1, round(waited / timedelta(milliseconds=1)))
        for stream in [key for binding in bindings for key in (binding.keys.retry, binding.keys.stream)]:
            if await inspecting.pending(self._link, stream, self._plan.group, count=1, idle_ms=idle_ms):
                if not self._said:
                    self._said = True
                    why = "what was pending when this worker began comes first: it may be a dead worker's, and is taken over then"
                    self._log.info("order.waits", stream=stream, why=why)
                return True
        return False

    async def _take_what_was_released(self, bindings: Sequence[Binding]) -> None:
        """Read the retry streams whole: what a drained worker has given back may lie behind what it had not read."""
        budget = self._plan.budget
        for key in [binding.keys.retry for binding in bindings]:
            newest = await groups.last_id(self._link, key)
            more = newest is not None
            while more and budget.left > 0:
                sent_at = monotonic()
                fresh, _ = await reading.fill(
                    self._link,
                    self._plan.group,
                    self._plan.consumer,
                    [Room((key,), AT_ONCE)],
                    most_bytes=budget.left,
                    expected_bytes=budget.expected,
                )
                await self._intake.accept_fresh(fresh, sent_at)
                # What comes in meanwhile, also because we ourselves give it back, is read as ever.
                more = bool(fresh) and order_of(fresh[-1].entries[-1][0].decode()) < order_of(newest or "0-0")
