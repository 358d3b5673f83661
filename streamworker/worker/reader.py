"""Reads a group's new entries over its own connection: the retry streams first, and never more than there is room for.

A read is never cancelled and never sent twice by itself: either would leave entries pending that nobody has seen. It ends by CLIENT
UNBLOCK, or after its BLOCK where the server refuses that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from streamworker.delivery import Interruption
from streamworker.errors import ConnectionLost, GroupLost, ServerError
from streamworker.observe.troubles import Trouble
from streamworker.streams import inspecting, reading
from streamworker.streams.faults import Remedy, concerns_all, remedy_for, sentence
from streamworker.streams.link import Link
from streamworker.streams.reading import Fresh, Room, count_of
from streamworker.worker.acks import Acks
from streamworker.worker.appetite import MOST_IN_A_SCRIPT, Appetite
from streamworker.worker.backoff import Pauses
from streamworker.worker.doubt import Doubt
from streamworker.worker.intake import Intake
from streamworker.worker.parking import BLOCK_MS, Parked, Read
from streamworker.worker.plan import Plan
from streamworker.worker.pools import Pool, note_taken
from streamworker.worker.sweep_guard import SweepGuard
from streamworker.worker.upkeep import Upkeep
from streamworker.worker.waiting import happens_within

HERITAGE_SECONDS = 0.1
FEW = 8
"""Entries that are started before more is asked for: what they take is less than a round trip."""
READS_ON_SECONDS = 1.0
"""How long reads follow one another before streams in trouble are looked after."""


class Reader:
    """One group's reading loop; what it reads goes to `intake`. `commands` is the link over which its own blocked read is ended.

    `ready` is called whenever a stream can be read, for the first time or again.
    """

    def __init__(
        self,
        plan: Plan,
        commands: Link,
        pools: Sequence[Pool],
        intake: Intake,
        guard: SweepGuard,
        acks: Acks,
        ready: Callable[[], None],
        log: Any,
    ) -> None:
        self._link = Link(plan.endpoint, commands.recovery, by_itself=False)
        self._commands = commands
        self._group, self._consumer = plan.group, plan.consumer
        self.parked: Parked = Parked(self._link, commands, plan.group, plan.consumer)
        self._pools = pools
        self._intake = intake
        self._guard = guard
        self._acks = acks
        self._upkeep = Upkeep(self._link, pools, intake, self._can_be_read)
        self._ready = ready
        self._trouble = Trouble(log, "reading")
        self._budget = plan.budget
        plan.budget.listen(self.look_again)
        self._isolation = plan.isolation
        self._give_up = plan.give_up
        self._doubt = Doubt(plan, self._link, intake, log)
        self._turns, self._read_each = 0, True
        self._appetite = Appetite(plan.budget, pools)
        self._refused: ServerError | None = None
        self._stopping = self._paused = self._reads = False
        self._awake = asyncio.Event()
        self.wants_room: bool = True
        """Whether it waits for room in a pool, and `room_opened` must be called."""
        self.established: asyncio.Event = asyncio.Event()
        """Set once every group is there, or is known to be in trouble: the worker reads from now on."""

    async def run(self) -> None:
        """Read until stopped; whatever goes wrong is said once, and tried again with growing pauses."""
        pauses = Pauses()
        while not self._stopping:
            try:
                await self._establish()
                self._trouble.is_over()
                while not self._stopping:
                    await self._turn()
                    pauses.reset()
            except GroupLost as lost:
                self._give_up(str(lost))
                await self._sleep(pauses.next())
            except (ConnectionLost, ServerError) as error:
                # A group that vanished is made again at once, and that is said where it is done.
                if isinstance(error, ConnectionLost) or remedy_for(error) is not Remedy.MAKE_GROUP:
                    self._trouble.strikes(sentence(error))
                    self._guard.hold(monotonic())
                if isinstance(error, ServerError) and remedy_for(error) is Remedy.RECONNECT:
                    await self._link.close()
                await self._sleep(pauses.next())
        await self._link.close()

    def stop(self) -> None:
        """Read nothing new; `run` returns when the read in flight has been taken in."""
        self._stopping = True
        self.look_again()

    def pause(self) -> None:
        """Read nothing until `resume`."""
        self._paused = True
        self.look_again()

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        self.look_again()

    @property
    def is_still(self) -> bool:
        """Whether no entry is on its way to us."""
        return not self._reads

    def room_opened(self, pool: Pool) -> None:
        """There may be room in `pool` again; a read that is parked without its streams must not go on blocking."""
        if pool.is_worth_reading:
            self._awake.set()
            if not self.parked.covers(pool):
                self.parked.nudge()
        elif not self.parked.covers_part_of(pool) and pool.part_with_room() is not None:
            self.look_again()

    def doubt(self) -> None:
        """Entries may have been given to us whose reply was lost: compare before the next read."""
        self._doubt.arises()
        self.look_again()

    def _can_be_read(self) -> None:
        self._doubt.arises()
        self._ready()

    def look_again(self) -> None:
        """Something else may have to be read than what is parked for."""
        self._awake.set()
        self.parked.nudge()

    async def _establish(self) -> None:
        """After a start and after each error: groups first, then what was delivered to us without our knowledge."""
        await self._link.connect()
        self.parked.client_id = await reading.client_id(self._link)
        await self._upkeep.establish_all()
        self._read_each, self._refused = True, None  # first what each of them gives by itself; an old refusal says nothing of now
        # What has silently cut our connection may have cut the other one, whose calls would wait for long answers.
        await inspecting.greet(self._commands, within=reading.READ_MARGIN_SECONDS)
        await self._settle_doubt()
        self.established.set()

    async def _turn(self) -> None:
        await self._upkeep.look_after_troubled()
        await self._settle_doubt()
        await self._doubt.look_for_heritage(self._pools)
        now = monotonic()
        for pool in self._pools:
            pool.look(now)
            self._intake.send_back(pool, pool.surplus(now), Interruption.NO_ROOM)
        pools = self._pools_with_room()
        self.wants_room = len(pools) < len(self._pools)
        pools = pools or self._parts()
        if not pools:
            await self._sleep(HERITAGE_SECONDS if self._doubt.waits_for_heritage else BLOCK_MS / 1000)
            return
        self._turns += 1
        self._reads = True
        try:
            await self._read(pools)
        finally:
            self._reads = False
            self._isolation.changed()

    async def _settle_doubt(self) -> None:
        if self._must_reconcile:
            await self._doubt.settle()

    def _pools_with_room(self) -> list[Pool]:
        return [pool for pool in self._pools if pool.is_worth_reading] if self._may_read else []

    def _parts(self) -> list[Pool]:
        return [part for pool in self._pools if (part := pool.part_with_room()) is not None] if self._may_read else []

    @property
    def _must_reconcile(self) -> bool:
        return not self._paused and self._doubt.can_be_settled

    @property
    def _may_read_on(self) -> bool:
        return self._may_read and not self._upkeep.is_called_for and not self._stopping and not self._must_reconcile

    @property
    def _may_read(self) -> bool:
        return not self._paused and not self._isolation.wanted and self._budget.left > 0 and not self._doubt.holds_up

    async def _read(self, pools: Sequence[Pool]) -> None:
        part = None if self._read_each else self._appetite.part(pools)
        pools = pools if part is None else [part]
        count = self._appetite.count([(pool, pool.room) for pool in pools])
        if count == 0 or self._read_each:
            await self._fill(pools)
            return
        try:
            # A part of the streams is not waited for: the others may have something.
            await self._follow(self.parked.send(pools, count, self._turns, waits=part is None))
        except ServerError as error:
            if concerns_all(error):
                raise
            self._read_each, self._refused = True, error  # which of the streams it is about shows when each is read for itself

    async def _follow(self, read: Read) -> None:
        """Take in what a read gives, and read on as long as something comes: the next one is on its way while this one's are run."""
        until = monotonic() + READS_ON_SECONDS
        following: Read | None = read
        while following is not None:
            read, following = following, None
            try:
                fresh = await reading.given(self._link, read.reply)
            finally:
                self.parked.ended()
            self._appetite.saw(fresh, read.asked)
            goes_on, are_few = bool(fresh) and monotonic() < until, count_of(fresh) <= FEW
            if goes_on and not are_few:
                following = await self._send_next(read, fresh)
                await asyncio.sleep(0)  # it is written in this turn of the loop, so that the server works while we do
            try:
                await self._intake.accept_fresh(fresh, read.sent_at)
            except (ConnectionLost, ServerError):
                self._doubt.arises()  # what was given to us is pending under our name
            if goes_on and are_few:
                await asyncio.sleep(0)  # they start at once; what takes no time is acknowledged with the next read
                following = await self._send_next(read, ())

    async def _send_next(self, read: Read, fresh: Sequence[Fresh]) -> Read | None:
        """Ask for more entries than those that have just come, where there is room for both."""
        others = read.pools != self._pools and any(pool.is_worth_reading for pool in self._pools if pool not in read.pools)
        others |= any(pool not in self._pools for pool in read.pools)  # a part of one was for one read
        count = 0 if others else self._appetite.count_beside(read.pools, fresh)
        if count == 0 or not self._may_read_on:
            return None
        await self._acks.ride(self._link)
        return self.parked.send(read.pools, count, self._turns) if self._may_read_on else None

    async def _fill(self, pools: Sequence[Pool]) -> None:
        """Have the server look from stream to stream until the room is full."""
        self._read_each = False
        most = max(1, MOST_IN_A_SCRIPT // len(pools))
        rooms = [Room(pool.ready_keys(self._turns), min(pool.room, most)) for pool in pools]
        sent_at = monotonic()
        fresh, refused = await reading.fill(
            self._link, self._group, self._consumer, rooms, most_bytes=self._budget.left, expected_bytes=self._budget.expected
        )
        note_taken(pools, fresh)
        self._appetite.saw(fresh, sum(room.size for room in rooms))
        await self._intake.accept_fresh(fresh, sent_at)
        if refused:
            self._refused = None
            self._upkeep.note_refused(refused)
        elif self._refused is not None and not fresh:
            raise self._refused  # it is about the command, not about a stream
        elif not fresh and not self._stopping and not self._must_reconcile and pools == (self._pools_with_room() or self._parts()):
            # Nothing is there: wait for the first entry. Room and doubts that came up while we read belong to the next turn, for a
            # parked read would not see them. It is answered with what the first stream gets, so one of each is little enough.
            await self._follow(self.parked.send(pools, 1, self._turns))

    async def _sleep(self, seconds: float) -> None:
        """Wait for something to happen, at most `seconds`."""
        self._awake.clear()
        if not self._stopping:
            await happens_within(self._awake, seconds)
