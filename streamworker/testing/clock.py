"""The time of a test: it stands still until the test moves it, and then stops at everything that comes due on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from streamworker.streams import inspecting, rehearsing, scheduling, settling
from streamworker.streams.keys import GroupKeys, schedule_keys
from streamworker.streams.link import Link
from streamworker.testing.alarms import Alarms
from streamworker.testing.process import LEASE
from streamworker.worker.bindings import Binding
from streamworker.worker.ticker import Ticker
from streamworker.worker.trimmer import Trimmer

PAGE = 1_000
MILLISECOND = timedelta(milliseconds=1)


class Clock:
    """The time of one worker's test, which reads `bindings` as `consumer`. What is pending with others lapses after `lease`.

    `alarms` and `tickers` are moved along, and `trimmer` removes what has become too old. `is_held_up` says of a stream and a group whether
    nobody reads it at this time.
    """

    def __init__(
        self,
        link: Link,
        bindings: Sequence[Binding],
        consumer: str,
        lease: timedelta,
        alarms: Alarms,
        tickers: Sequence[Ticker],
        trimmer: Trimmer,
        is_held_up: Callable[[str, str], bool],
    ) -> None:
        self._link = link
        self._bindings = bindings
        self._groups: list[tuple[GroupKeys, str]] = [(binding.keys, binding.group) for binding in bindings]
        self._consumer = consumer
        self._lease_ms = lease // MILLISECOND
        self._lapses: dict[tuple[str, str, str, str], int] = {}
        self._scheduled: Sequence[str] = ()
        self._alarms = alarms
        self._tickers = tickers
        self._trimmer = trimmer
        self._is_held_up = is_held_up
        self._ticked_ms: int | None = None

    @property
    def now_ms(self) -> int:
        """What time it is, in ms since 1970."""
        return self._alarms.now_ms

    @property
    def now(self) -> datetime:
        """What time it is."""
        return datetime.fromtimestamp(self.now_ms / 1000, UTC)

    async def to_do(self) -> rehearsing.ToDo:
        """What there is to do now; what is due is put where the worker reads it. Raises what a schedule's function raises."""
        if self._ticked_ms != self.now_ms:
            for ticker in self._tickers:
                await ticker.turn()
            await self._trimmer.turn()
            self._ticked_ms = self.now_ms
        to_do = await rehearsing.look(self._link, self._groups, self._consumer, LEASE, self._is_held_up)
        self._scheduled = to_do.scheduled
        if to_do.due:
            for keys, _ in self._groups:
                await settling.promote(self._link, keys, limit=PAGE)
            await scheduling.publish_due(self._link, [self._stream_of(key) for key in self._scheduled], limit=PAGE)
        if to_do.lapsed:
            await rehearsing.may_sweep_again(self._link, [keys for keys, _ in self._groups])
        return to_do

    async def next_due_ms(self) -> int | None:
        """When the next thing comes due: a retry, a tick, or the lease of an entry whose worker has died."""
        sets = [*(keys.due for keys, _ in self._groups), *self._scheduled]
        firsts = [await rehearsing.next_due_ms(self._link, key) for key in sets]
        await self._note_lapses()
        ticks = [ticker.following_ms(self.now_ms) for ticker in self._tickers]
        known = (ms for ms in (*firsts, self._alarms.next_due_ms()) if ms is not None)
        return min([*known, *ticks, *self._lapses.values()], default=None)

    async def move(self, to_ms: int) -> None:
        """Let it be that time; what lapses by then looks as if it had."""
        await rehearsing.move(self._link, to_ms, to_ms - self.now_ms)
        self._alarms.ring(to_ms)
        for (key, group, entry_id, consumer), lapses_ms in list(self._lapses.items()):
            if lapses_ms <= to_ms:
                await rehearsing.hand_over(self._link, key, group, entry_id, consumer, idle=LEASE)
                del self._lapses[key, group, entry_id, consumer]

    def _stream_of(self, scheduled: str) -> str:
        """The stream whose schedule this is; one that nobody here reads has no tag of its own but its name."""
        known = {schedule_keys(keys.stream)[0]: keys.stream for keys, _ in self._groups}
        tagged = scheduled.removesuffix(":scheduled")
        untagged = tagged[1:-1] if tagged.startswith("{") and tagged.endswith("}") else tagged
        return known.get(scheduled, untagged)

    async def _note_lapses(self) -> None:
        """The lease of what others have counts from when it was first seen, which is before the time was moved since."""
        there = {
            (key, binding.group, entry.id, entry.consumer)
            for binding in self._bindings
            for key in (binding.keys.retry, binding.keys.stream)
            for entry in await inspecting.pending(self._link, key, binding.group, count=PAGE)
            if entry.consumer != self._consumer
        }
        self._lapses = {one: self._lapses.get(one, self.now_ms + self._lease_ms) for one in there}
