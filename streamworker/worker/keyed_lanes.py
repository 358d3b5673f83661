"""Which of the deliveries of one handler may start now, where those of one key come one after the other. Pure.

A key's line is in the order of its entries in the stream, whatever the order in which they came. Its first one holds up the others
until it has ended, also while it waits for its next attempt; an earlier one that comes late goes before all that wait.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Place = tuple[int, int]
"""An entry's id as a pair of numbers."""


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Item]):
    place: Place
    item: Item
    beside: bool
    resting: bool


class KeyedLanes(Generic[Item]):
    """One handler's lines by key. What was offered is given out in order within its key, once, and never lost.

    An item `beside` needs no place among those that run. One that is `resting` waits for its time: `wake` ends that. While the lanes are
    `closed`, nothing is given out: an earlier item than those that are here may be on its way.
    """

    def __init__(self) -> None:
        self._lines: dict[Hashable, list[_Waiting[Item]]] = {}
        self._running: set[Hashable] = set()
        self._open: dict[Hashable, None] = {}
        self._open_beside: dict[Hashable, None] = {}
        self.closed: bool = False
        self.waiting: int = 0
        """How many items wait, for whatever."""

    @property
    def ready(self) -> int:
        """How many items wait for nothing but a place."""
        return len(self._open)

    @property
    def held_up(self) -> int:
        """How many items wait for an earlier one of their key, or for their time."""
        return self.waiting - len(self._open) - len(self._open_beside)

    @property
    def at_rest(self) -> int:
        """How many items wait for the time of the first of their line, itself included; none while the lanes are closed."""
        if self.closed:
            return 0
        return sum(len(line) for key, line in self._lines.items() if line[0].resting and key not in self._running)

    @property
    def behind_ready(self) -> int:
        """How many items wait behind those that wait for nothing but a place; none while the lanes are closed."""
        return 0 if self.closed else sum(len(self._lines[key]) - 1 for key in self._open)

    def has_earlier(self, key: Hashable, place: Place) -> bool:
        """Whether one of this key runs, or an earlier one than this waits."""
        return key in self._running or (key in self._lines and self._lines[key][0].place < place)

    def offer(self, key: Hashable, place: Place, item: Item, *, beside: bool = False, resting: bool = False) -> None:
        """Put an item in its place in its key's line."""
        self.waiting += 1
        insort(self._lines.setdefault(key, []), _Waiting(place, item, beside, resting), key=lambda waiting: waiting.place)
        self._look(key)

    def take(self) -> Item | None:
        """The next item that wants a place, from the key that has been ready for longest; its key is closed until `end`."""
        return self._take_from(self._open)

    def take_beside(self) -> Item | None:
        """As `take`, for the items that need no place."""
        return self._take_from(self._open_beside)

    def end(self, key: Hashable) -> None:
        """The item of this key that was taken has ended, or is offered anew."""
        if key not in self._running:
            raise ValueError(f"nothing of key {key!r} runs")
        self._running.discard(key)
        self._look(key)

    def wake(self, key: Hashable, item: Item) -> None:
        """The time of a resting item has come."""
        for waiting in self._lines.get(key, ()):
            if waiting.item is item:
                waiting.resting = False
        self._look(key)

    def let_all_go(self) -> list[Item]:
        """Nothing is to run any more: no item rests or needs a place from now on, and each is given out in its turn; all that wait."""
        self.closed = False
        items: list[Item] = []
        for key, line in list(self._lines.items()):
            for waiting in line:
                waiting.beside, waiting.resting = True, False
                items.append(waiting.item)
            self._look(key)
        return items

    def _look(self, key: Hashable) -> None:
        """See whether the first of this line may start."""
        line = self._lines.get(key)
        first = None if not line or key in self._running or line[0].resting else line[0]
        for of, wanted in ((self._open, False), (self._open_beside, True)):
            if first is not None and first.beside is wanted:
                of.setdefault(key)
            else:
                of.pop(key, None)

    def _take_from(self, keys: dict[Hashable, None]) -> Item | None:
        if self.closed or not keys:
            return None
        key = next(iter(keys))
        del keys[key]
        line = self._lines[key]
        item = line.pop(0).item
        if not line:
            del self._lines[key]
        self._running.add(key)
        self.waiting -= 1
        return item
