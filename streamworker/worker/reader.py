"""Reads a group's new entries over its own connection: the retry streams first, and never more than there is room for.

A read is never cancelled and never sent twice by itself: either would leave entries pending that nobody has seen. It ends by CLIENT
UNBLOCK, or after its BLOCK where the server refuses that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from streamworker.errors import ConnectionLost, GroupLost, ServerError
from streamworker.observe.troubles import Trouble
from streamworker.streams import inspecting, reading
from streamworker.streams.faults import Remedy, concerns_all, remedy_for, sentence
from streamworker.streams.reading import Room
from streamworker.streams.wire import Link
from streamworker.worker.backoff import Pauses
from streamworker.worker.bindings import Binding
from streamworker.worker.intake import Intake, Plan
from streamworker.worker.pools import Pool
from streamworker.worker.sweep_guard import SweepGuard
from streamworker.worker.waiting import happens_within

BLOCK_MS = 2_000
UNBLOCK_AGAIN_SECONDS = (0.001, 0.05)
"""An UNBLOCK that overtakes the read it is meant for does nothing, so it is said again, after growing pauses, until the read has ended."""


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
        ready: Callable[[], None],
        log: Any,
    ) -> None:
        self._link = Link(plan.endpoint, commands.recovery)
        self._commands = commands
        self._client_id = 0
        self._group = plan.group
        self._consumer = plan.consumer
        self._pools = pools
        self._intake = intake
        self._guard = guard
        self._ready = ready
        self._trouble = Trouble(log, "reading")
        self._budget = plan.budget
        self._budget.listen(self._wake)
        self._isolation = plan.isolation
        self._give_up = plan.give_up
        self._in_doubt = False
        self._turns = 0
        self._stopping = False
        self._paused = False
        self._reads = False
        self._awake = asyncio.Event()
        self._parked_on: frozenset[Pool] | None = None
        self._nudged = asyncio.Event()
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

    async def nudge(self) -> None:
        """End a parked read whenever somebody asks for it, until cancelled."""
        while True:
            await self._nudged.wait()
            self._nudged.clear()
            pause, longest = UNBLOCK_AGAIN_SECONDS
            parked_on = self._parked_on
            # That very read, and not the ones that follow it, which nobody has asked to end.
            while parked_on is not None and self._parked_on is parked_on:
                try:
                    await reading.unblock(self._commands, self._client_id)
                except (ConnectionLost, ServerError):
                    break  # refused, or no connection: the read ends after its BLOCK by itself
                await asyncio.sleep(pause)
                pause = min(longest, 2 * pause)

    def stop(self) -> None:
        """Read nothing new; `run` returns when the read in flight has been taken in."""
        self._stopping = True
        self._wake()

    def pause(self) -> None:
        """Read nothing until `resume`."""
        self._paused = True
        self._wake()

    def resume(self) -> None:
        """Go on reading."""
        self._paused = False
        self._wake()

    @property
    def is_still(self) -> bool:
        """Whether no entry is on its way to us."""
        return not self._reads

    def step_aside(self) -> None:
        """End the read in hand: somebody is to be alone in this process."""
        if self._parked_on is not None:
            self._nudged.set()

    def go_on(self) -> None:
        """Read again."""
        self._awake.set()

    def room_opened(self, pool: Pool) -> None:
        """There is room in `pool` again; a read that is parked without its streams must not go on blocking."""
        self._awake.set()
        if self._parked_on is not None and pool not in self._parked_on:
            self._nudged.set()

    def doubt(self) -> None:
        """Entries may have been given to us whose reply was lost: compare before the next read."""
        self._in_doubt = True
        self._wake()

    def _wake(self) -> None:
        self._awake.set()
        if self._parked_on is not None:
            self._nudged.set()

    async def _establish(self) -> None:
        """After a start and after each error: groups first, then what was delivered to us without our knowledge."""
        await self._link.connect()
        self._client_id = await reading.client_id(self._link)
        for pool in self._pools:
            for binding in pool.bindings:
                await self._establish_one(binding)
        # What has silently cut our connection may have cut the other one, whose calls would wait for long answers.
        await inspecting.greet(self._commands, within=reading.READ_MARGIN_SECONDS)
        await self._settle_doubt()
        self.established.set()

    async def _turn(self) -> None:
        await self._look_after_troubled()
        await self._settle_doubt()
        pools = self._pools_with_room()
        if not pools:
            await self._sleep(BLOCK_MS / 1000)
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
            self._in_doubt = False
            if not await self._intake.reconcile():
                self._in_doubt = True  # what is left is looked for again when there is room

    def _pools_with_room(self) -> list[Pool]:
        return [pool for pool in self._pools if pool.room > 0 and pool.ready_keys()] if self._may_read else []

    @property
    def _must_reconcile(self) -> bool:
        return self._in_doubt and self._intake.can_keep and self._budget.left > 0

    @property
    def _may_read(self) -> bool:
        return not self._paused and not self._isolation.wanted and self._budget.left > 0

    async def _read(self, pools: Sequence[Pool]) -> None:
        rooms = [Room(pool.ready_keys(self._turns), pool.room) for pool in pools]
        sent_at = monotonic()
        taken, refused = await reading.fill(
            self._link, self._group, self._consumer, rooms, most_bytes=self._budget.left, expected_bytes=self._budget.expected
        )
        await self._intake.accept(taken, sent_at)
        if refused:
            self._note_refused(refused)
        elif not taken and not self._stopping and not self._must_reconcile and pools == self._pools_with_room():
            # Room and doubts that came up while we read belong to the next turn: a parked read would not see them.
            await self._park(pools)

    async def _park(self, pools: Sequence[Pool]) -> None:
        """Nothing is there: wait for the first entry of any stream that has room."""
        keys = [key for pool in pools for key in pool.ready_keys()]
        # A blocked read is answered with what the first stream gets, so a small count suffices; a surplus is given back.
        room = min(pool.room // len(pool.ready_keys()) for pool in pools)
        count = max(1, min(room, self._budget.left // self._budget.expected))
        self._parked_on = frozenset(pools)
        sent_at = monotonic()
        try:
            taken = await reading.read(self._link, self._group, self._consumer, keys, count=count, block_ms=BLOCK_MS)
        finally:
            self._parked_on = None
        await self._intake.accept(taken, sent_at)

    def _note_refused(self, refused: dict[str, ServerError]) -> None:
        """One stream's trouble must not stop the others: its group is made again, or it is left alone for a while.

        Raises the error that concerns them all.
        """
        for error in refused.values():
            if concerns_all(error):
                raise error
        for pool in self._pools:
            for binding in pool.bindings:
                for key in (binding.keys.retry, binding.keys.stream):
                    if key in refused:
                        self._note(binding, refused[key])

    def _note(self, binding: Binding, error: ServerError) -> None:
        if remedy_for(error) is Remedy.MAKE_GROUP:
            binding.is_missing()
        else:
            binding.is_out_of_order(error)

    async def _look_after_troubled(self) -> None:
        now = monotonic()
        for pool in self._pools:
            for binding in pool.bindings:
                if not binding.ready and now >= binding.next_try_at:
                    await self._establish_one(binding)

    async def _establish_one(self, binding: Binding) -> None:
        if await binding.establish(self._link, self._intake.held_of(binding)):
            self._in_doubt = True
            self._ready()

    async def _sleep(self, seconds: float) -> None:
        """Wait for something to happen, at most `seconds`."""
        self._awake.clear()
        if not self._stopping:
            await happens_within(self._awake, seconds)
