"""Who may start now: a line of waiting items for each lane, and how many of each lane run. Pure: nothing waits and nothing is awaited."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Generic, Protocol, TypeVar

Item = TypeVar("Item")

BARRED = 1 << 40
"""More places than anybody has: without them there is no room."""


class LaneGate(Protocol):
    """What may hold up a lane though it has free places."""

    def admit(self) -> bool:
        """Whether one may start now; then it counts as started."""
        ...

    @property
    def room(self) -> int:
        """How many more could start soon than those that wait."""
        ...

    @property
    def is_shut(self) -> bool:
        """Whether nothing can start soon."""
        ...


class Shared(Protocol):
    """Places that lanes share with others."""

    @property
    def is_full(self) -> bool:
        """Whether none is free."""
        ...

    def freed(self) -> None:
        """One is free: whoever's turn it is may start."""
        ...


class Lanes(Generic[Item]):
    """Lanes by name, each with a limit of running items. What was offered is started in order within its lane, and never lost.

    `beside` is room for items that need no lane here, because they are handled in batches. `gates` has those lanes, by name, that
    something beside their limits can hold up; whoever opens one starts what is `ready`.
    """

    def __init__(self, limits: Mapping[str, int], beside: int = 0) -> None:
        self.gates: Mapping[str, LaneGate] = {}
        self.shared: Shared | None = None
        """Where it is there, nobody follows in a lane by himself."""
        self._limits = dict(limits)
        self.places: int = sum(limits.values()) + beside
        self._bars = 0
        self._lines: dict[str, deque[Item]] = {name: deque() for name in limits}
        self._running = dict.fromkeys(limits, 0)
        self._beside = 0
        self.held: int = 0
        """How many items run or wait, those beside the lanes included."""
        self.ended: int = 0
        """How many items have ended in their lanes so far."""
        self.ahead: int = 0
        """How many items may wait here beside those that run."""
        self.in_lots: int = 0
        """How many items are held outside of the lines, in lots: one of them runs at a time, and takes no place unless it has to wait."""

    @property
    def room(self) -> int:
        """How many more items could start soon: the limits together, and what may wait beside, less what runs or waits."""
        return max(0, self.places + self.ahead - self.held)

    @property
    def worthwhile_room(self) -> int:
        """The room, once it is worth reading for: while enough waits here, few at a time would only be dear."""
        room = self.places + self.ahead - self.held
        return room if room > self.ahead // 2 else 0

    def bar(self, by: int) -> None:
        """There is no room as long as more bars were put up than taken down, whatever ends."""
        was_barred = self._bars > 0
        self._bars += by
        if was_barred is not (self._bars > 0):
            self.places += BARRED if was_barred else -BARRED

    def offer(self, lane: str, item: Item) -> None:
        """Put an item at the end of its lane's line."""
        self.held += 1
        self._lines[lane].append(item)

    def begin(self, lane: str) -> bool:
        """Take a place for an item that need not wait, if there is one."""
        if self._running[lane] >= self._limits[lane] or self._lines[lane]:
            return False
        if self.gates and not self._admitted(lane):
            return False
        self.held += 1
        self._running[lane] += 1
        return True

    def enter_lot(self, lane: str, items: int) -> bool:
        """Hold a lot of so many items of this lane, if one of them may start."""
        if not self.has_place(lane) or self._lines[lane]:
            return False
        self.held += items
        self.in_lots += items
        return True

    def leave_lot(self, items: int) -> None:
        """So many items of lots have ended."""
        self.held -= items
        self.in_lots -= items
        self.ended += items

    def leave_lot_for_lane(self, lane: str) -> None:
        """An item of a lot runs in its lane from now on."""
        self.in_lots -= 1
        self._running[lane] += 1

    def leave_lot_for_line(self, lane: str, item: Item) -> None:
        """An item of a lot waits at the end of its lane's line from now on."""
        self.in_lots -= 1
        self._lines[lane].append(item)

    def has_place(self, lane: str) -> bool:
        """Whether one more item of this lane could run, and nothing but the lane's own limit has to be asked for it."""
        return self._running[lane] < self._limits[lane] and lane not in self.gates and self.shared is None

    def follow(self, lane: str) -> Item | None:
        """An item of this lane has ended; the next one of its line, which counts as running from here on."""
        line = self._lines[lane]
        is_full = not line or self.shared is not None or self._running[lane] > self._limits[lane]
        if is_full or (self.gates and not self._admitted(lane)):
            self.release(lane)
            return None
        self.held -= 1
        self.ended += 1
        return line.popleft()

    def ready(self) -> Iterator[tuple[str, Item]]:
        """Take out, lane by lane, what may start now; each counts as running from here on."""
        for lane, line in self._lines.items():
            while line and self._running[lane] < self._limits[lane] and (not self.gates or self._admitted(lane)):
                self._running[lane] += 1
                yield lane, line.popleft()

    def release(self, lane: str) -> None:
        """An item of this lane has ended."""
        if self._running[lane] == 0:
            raise ValueError(f"lane {lane!r} has nothing running")
        self._running[lane] -= 1
        self.held -= 1
        self.ended += 1
        if self.shared is not None:
            self.shared.freed()

    def enter_beside(self, items: int = 1) -> None:
        """Count an item that needs no lane, because no handler will see it by itself, but takes room all the same."""
        self.held += items
        self._beside += items

    def leave_beside(self, items: int = 1) -> None:
        """Such an item has ended."""
        if self._beside < items:
            raise ValueError("there are not so many beside the lanes")
        self.held -= items
        self._beside -= items

    def join(self, lane: str) -> None:
        """An item that was beside the lanes runs in this one from now on."""
        self.leave_beside()
        self.held += 1
        self._running[lane] += 1

    def free(self, lane: str) -> int:
        """How many more items of this lane could run at once; none, where there is no such lane because they are handled in batches."""
        if lane not in self._limits:
            return 0
        free = max(0, self._limits[lane] - self._running[lane] - len(self._lines[lane]))
        return min(free, self.gates[lane].room) if lane in self.gates else free

    def running(self, lane: str) -> int:
        """How many items of this lane run."""
        return self._running[lane]

    def idle(self, lane: str) -> int:
        """How many places of this lane nothing runs in; none, where there is no such lane."""
        return max(0, self._limits[lane] - self._running[lane]) if lane in self._limits else 0

    def waiting(self, lane: str) -> int:
        """How many items wait in this lane."""
        return len(self._lines[lane])

    @property
    def has_surplus(self) -> bool:
        """Whether more waits here than may: beyond the places, or because others have all of those that are shared."""
        is_full = self.held > self.places or (self.shared is not None and self.shared.is_full)
        return is_full and sum(map(len, self._lines.values())) + self.in_lots > self._may_wait

    def surplus(self) -> list[tuple[str, Item]]:
        """Take out, from the ends of the lines, what waits beyond what may; nothing of it counts as held."""
        waiting = sum(map(len, self._lines.values()))
        beyond: list[tuple[str, Item]] = []
        while waiting - len(beyond) > self._may_wait:
            lane = max(self._lines, key=lambda name: len(self._lines[name]))
            beyond.append((lane, self._lines[lane].pop()))
        self.held -= len(beyond)
        return beyond

    @property
    def _may_wait(self) -> int:
        return self.ahead if self.shared is None else max(self.ahead, len(self._lines))

    def clear(self) -> list[tuple[str, Item]]:
        """Take out everything that waits; nothing of it counts as running."""
        return [(lane, item) for lane in self._lines for item in self.clear_one(lane)]

    def clear_one(self, lane: str) -> list[Item]:
        """As `clear`, of one lane."""
        waiting = list(self._lines[lane])
        self._lines[lane].clear()
        self.held -= len(waiting)
        return waiting

    def _admitted(self, lane: str) -> bool:
        gate = self.gates.get(lane)
        return gate is None or gate.admit()
