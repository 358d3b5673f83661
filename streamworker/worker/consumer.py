"""One consumer group in this process: its parts, its life and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from time import monotonic
from typing import Any

from streamworker.delivery import Interruption, Lease
from streamworker.errors import ConnectionLost, ServerError
from streamworker.streams import groups
from streamworker.streams.keys import name_claim
from streamworker.streams.link import Link
from streamworker.worker.batch_carrier import BatchCarrier
from streamworker.worker.carrier import Carrier, Witness
from streamworker.worker.crew import Crew
from streamworker.worker.executor import Executor
from streamworker.worker.gates import Gates
from streamworker.worker.gathering import Gathering
from streamworker.worker.ghosts import Ghosts
from streamworker.worker.intake import Intake
from streamworker.worker.leases import LeaseKeeper
from streamworker.worker.lot_carrier import LotCarrier, nothing_broken
from streamworker.worker.names import NameClaim
from streamworker.worker.once import Once
from streamworker.worker.order import CallLater, Order
from streamworker.worker.plan import Plan
from streamworker.worker.pools import Pool, pools_of
from streamworker.worker.promoter import Promoter
from streamworker.worker.reader import Reader
from streamworker.worker.reclaimer import Reclaimer
from streamworker.worker.settlement import Settlement
from streamworker.worker.suspects import Suspects
from streamworker.worker.sweep_guard import SweepGuard
from streamworker.worker.trips import Trip
from streamworker.worker.turns import Turns
from streamworker.worker.waiting import happens_within

LAST_WORDS = timedelta(seconds=1)
"""How long a drain, once its grace is over, may take to release what it interrupted."""


class Consumer:
    """Reads, runs and settles the deliveries of one group. `settled` is told how many deliveries that a handler has seen have ended."""

    def __init__(self, plan: Plan, link: Link, executor: Executor, settled: Callable[[int], None], log: Any) -> None:
        self._plan = plan
        self._link = link
        self._executor = executor
        self._log = log = log.bind(group=plan.group, consumer=plan.consumer)
        self._loop = asyncio.get_running_loop()
        self._drain_wanted = asyncio.Event()
        self._grace = timedelta(0)
        self.interrupted: int = 0
        """How many handlers the drain had to interrupt."""
        pools = pools_of(plan.bindings, plan.limits)
        keys = {binding.keys.stream: binding.keys for binding in plan.bindings}
        self._isolation = plan.isolation
        self.claim: NameClaim | None = self._name_claim() if plan.named else None
        self._ghosts = ghosts = Ghosts(log)
        witnesses = {stream: of.witnesses(stream) for stream, of in keys.items()}
        renewable, dropped = self._can_renew_again, plan.isolation.changed
        self._leases = LeaseKeeper(
            plan.endpoint, plan.group, plan.lease, self._lease_lost, renewable, dropped, ghosts, log, self.claim, witnesses
        )
        self._promoter = Promoter(link, plan.bindings, log)
        self._settlement = Settlement(link, plan.group, keys, self._leases, log, self._promoter.expect)
        self.gates: Gates = Gates(plan, link, pools, log)
        """What may hold up handlers beside their places."""
        self._carrier = Carrier(plan, executor, self._leases, self._settlement, self.gates, settled, log)
        self._crew = Crew(self._carrier.carry, self._carrier.was_cancelled, self._spawn)
        acks = self._settlement.acks
        self._batches = batches = BatchCarrier(executor, self._leases, acks, self._carrier, self.gates, settled, log)
        self._batch_crew = Crew(batches.carry, batches.was_cancelled, self._spawn)
        self._lots = lots = LotCarrier(plan, executor, self._leases, acks, self._carrier, pools, settled, self._room_opened, log)
        self._lot_crew = Crew(lots.carry, nothing_broken, self._spawn)
        self._gathering = gathering = Gathering(plan, pools, self.gates, self._batch_crew.start)
        self._order = order = Order(plan, link, self._leases, pools, self._crew.start, log)
        self._intake = intake = Intake(
            plan, link, self._leases, pools, order, gathering, lots, self.gates, self._crew.start, ghosts, log
        )
        self._turns = turns = Turns(plan, pools, order, gathering, self._crew.start)
        lots.connect(self._lot_crew.start, self._lot_crew.go_on_with, turns.start_what_may)
        suspects = Suspects(plan.isolation, link, self.gates, batches.run_alone, turns.join_lane, log)
        once = Once(link, keys, plan.isolation.ending, log)
        self._carrier.connect(suspects, once, order, self._crew.start, self._place_freed)
        batches.connect(self._crew.start, self._places_freed, gathering.ended, gathering.hold_room)
        guard = SweepGuard(plan.lease, monotonic())
        self._reader = Reader(plan, link, pools, intake, guard, self._settlement.acks, lambda: self._promoter.expect(0), log)
        self._reclaimer = Reclaimer(plan, link, intake, guard, self._reader.doubt, log)
        self.gates.connect(turns.waiting, turns.put_aside, self._gate_opened, self._reader.look_again)
        plan.isolation.join(self)
        if plan.ceiling is not None:
            plan.ceiling.start_by(lambda: self._gate_opened(*pools))

    def _gate_opened(self, *pools: Pool) -> None:
        self._turns.start_what_may()
        for pool in pools if self._reader.wants_room else ():
            self._reader.room_opened(pool)

    def _place_freed(self, trip: Trip) -> None:
        if trip.delivery.lease.lost:
            self._reader.doubt()  # where nobody took it over, it is still pending under our name, and what comes after it must wait
        self._room_opened(self._turns.leave(trip))

    def _places_freed(self, trips: Sequence[Trip], name: str) -> None:
        """As `_place_freed`, for entries of one batch."""
        if any(trip.delivery.lease.lost for trip in trips):
            self._reader.doubt()
        self._room_opened(self._gathering.leave_together(trips, name))

    def _room_opened(self, pool: Pool) -> None:
        if self._reader.wants_room:
            self._reader.room_opened(pool)

    # ---- life and end -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Consume until a drain has ended it."""
        self._leases.start()
        try:
            async with asyncio.TaskGroup() as self._tasks:
                beside = (self._settlement.acks.run(), self._reader.parked.run(), self.gates.run())
                helpers = [self._tasks.create_task(part) for part in beside]
                sources = [self._tasks.create_task(part.run()) for part in (self._reader, self._reclaimer, self._promoter)]
                await self._drain_wanted.wait()
                await self._drain(sources)
                for helper in helpers:
                    helper.cancel()
        finally:
            await asyncio.to_thread(self._leases.stop)

    def drain(self, grace: timedelta) -> None:
        """Stop reading, let handlers finish within `grace`, release the rest; `run` returns when that is done."""
        self._grace = grace
        self._drain_wanted.set()

    def hurry(self) -> None:
        """Do not wait for handlers any longer: interrupt them, and release their entries."""
        self.drain(timedelta(0))
        self._interrupt_all()

    def pause(self) -> None:
        """Take nothing new until `resume`: neither read nor reclaim."""
        self._reader.pause()
        self._reclaimer.pause()

    def resume(self) -> None:
        """Go on reading and reclaiming."""
        self._reader.resume()
        self._reclaimer.resume()

    def step_aside(self) -> None:
        """Begin nothing new and give back what waits, so that somebody can be alone in this process; what runs goes on."""
        self._reader.look_again()
        self._intake.give_back(Interruption.MAKES_ROOM)

    def go_on(self) -> None:
        """Begin again what there is to do."""
        self._turns.start_what_may()
        self._reader.look_again()

    def be_seen_by(self, witness: Witness) -> None:
        """Tell `witness` of every delivery what happened to it and what was decided."""
        self._carrier.be_seen_by(witness)

    def be_driven_by(self, clock: Callable[[], float], call_later: CallLater) -> None:
        """Take the time of gates, of batches and of what is retried in its place from these, and not from the event loop."""
        self._turns.be_driven_by(clock, call_later)
        self.gates.be_driven_by(clock, call_later)

    def lose(self, lease: Lease, why: str) -> None:
        """Give a lease up, and interrupt the handler that runs under it; the entry stays pending with whoever has it."""
        self._leases.lose(lease, why)

    def sweep(self) -> None:
        """Look now for entries whose lease ran out, and not only when it is time to."""
        self._reclaimer.sweep()

    @property
    def busy(self) -> int:
        """How many entries are held, but for those that wait in their order, and threads that outlast theirs."""
        return self._leases.count + self._executor.overdue - self._order.waiting

    @property
    def at_rest(self) -> int:
        """How many of the entries that are held wait for a time (of a retry, a batch, a gate), or for somebody to resume a handler."""
        return self._turns.at_rest + self.gates.at_rest

    @property
    def is_still(self) -> bool:
        """Whether no entry is on its way to us."""
        return self._reader.is_still and not self._intake.lock.locked()

    @property
    def reads(self) -> asyncio.Event:
        """Set once the groups are there and reading has begun."""
        return self._reader.established

    @property
    def troubled_streams(self) -> list[str]:
        """The streams that cannot be read at the moment; their own log lines say why."""
        return [binding.keys.stream for binding in self._plan.bindings if not binding.ready]

    @property
    def trimmed(self) -> int:
        """How many entries it has found that were trimmed away while they were pending."""
        return self._ghosts.found

    @property
    def in_flight(self) -> int:
        """How many entries are held, waiting, running or being settled."""
        return self._leases.count

    @property
    def left_pending(self) -> int:
        """After the drain: how many entries are still pending under this name, to come back when their lease has run out."""
        return self._leases.count + self._settlement.left_pending

    @property
    def was_late(self) -> bool:
        """After the drain: whether its time was over before its work was."""
        return bool(self.interrupted or self.left_pending or self._settlement.given_back)

    async def _drain(self, sources: list[asyncio.Task[None]]) -> None:
        """In this order: no new entries; the waiting ones back; the running ones home, or interrupted; the acks out; then our name."""
        for source in (self._reader, self._reclaimer, self._promoter):
            source.stop()
        self._isolation.close()
        self.gates.close()
        self._intake.close(start_batches=self._grace > timedelta(0))
        self._carrier.close()
        self._executor.wait_for_no_thread()
        await self._trips_end(self._grace)
        self._interrupt_all()
        await asyncio.wait(sources)
        await self._trips_end(LAST_WORDS)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._settlement.acks.flush(), LAST_WORDS.total_seconds())
        self._settlement.lose_patience()
        self._executor.shut_down()
        await self._trips_end(LAST_WORDS)
        await self._forget_myself()

    async def _trips_end(self, within: timedelta) -> None:
        """Of lots and batches first, because their entries may go on singly."""
        until = self._loop.time() + within.total_seconds()
        for crew in (self._lot_crew, self._batch_crew, self._crew):
            await happens_within(crew.empty, max(0.0, until - self._loop.time()))

    def _interrupt_all(self) -> None:
        self.interrupted += self._executor.interrupt_all(Interruption.DRAIN)

    async def _forget_myself(self) -> None:
        """Leave no name behind; refused by the script while anything is pending under it."""
        with suppress(ConnectionLost, ServerError):
            for binding in self._plan.bindings:
                for key in (binding.keys.retry, binding.keys.stream):
                    await groups.forget_consumer(self._link, key, binding.group, self._plan.consumer)
            if self.claim is not None:
                await self.claim.give_up(self._link)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._tasks.create_task(work)

    def _name_claim(self) -> NameClaim:
        plan = self._plan
        key = name_claim(min(binding.keys.stream for binding in plan.bindings), plan.group, plan.consumer)
        return NameClaim(key, plan.group, plan.consumer, plan.lease, self._name_lost, self._log)

    def _name_lost(self, why: str) -> None:
        """Called in the keeper's thread."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._plan.give_up, why)

    def _can_renew_again(self) -> None:
        """Called in the keeper's thread: what was given up, and nobody took, is still pending under our name."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._reader.doubt)

    def _interrupt(self, lease: Lease) -> None:
        if not self._executor.interrupt(lease, Interruption.LEASE_LOST):
            self._order.lost(lease)
            self._batches.let_go()

    def _lease_lost(self, lease: Lease) -> None:
        """Called in the keeper's thread."""
        with suppress(RuntimeError):  # the loop is closed: nothing runs any more
            self._loop.call_soon_threadsafe(self._interrupt, lease)
