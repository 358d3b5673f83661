"""How many bytes of entries a process may hold. Pure: nobody waits here; who wants to know that there is room again is called."""

from __future__ import annotations

from collections.abc import Callable

EXPECTED_AT_FIRST = 1_024
"""How large an entry is expected to be before one was seen."""

FORGETS = 0.98
"""How much of the largest entry seen lately is remembered with each further one."""


class ByteBudget:
    """One per process, shared by its consumers. It may be overdrawn by what one read brings, because sizes show only then."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._largest = float(EXPECTED_AT_FIRST)
        self._listeners: list[Callable[[], None]] = []

    @property
    def left(self) -> int:
        """How many more bytes may be read; 0 when it is used up."""
        return max(0, self._limit - self._held)

    @property
    def expected(self) -> int:
        """How large the next entry may be expected to be: about the largest of the last ones."""
        return max(1, int(self._largest))

    def listen(self, on_room: Callable[[], None]) -> None:
        """Call `on_room` whenever there is room again after there was none."""
        self._listeners.append(on_room)

    def expect(self, size: int) -> None:
        """An entry of this size has come, and is not held yet."""
        self._largest = max(float(size), self._largest)

    def take(self, size: int) -> None:
        """An entry of this size is held now."""
        self._held += size
        largest = self._largest * FORGETS
        self._largest = size if size > largest else largest

    def take_many(self, size: int, entries: int) -> None:
        """As `take`, for entries that have this size together; how large the largest is shows in that of the last, see `expect`."""
        self._held += size
        mean = size / entries
        largest = self._largest * FORGETS**entries
        self._largest = mean if mean > largest else largest

    def give_back(self, size: int) -> None:
        """It is held no longer."""
        held = self._held
        self._held = held - size
        if self._held < self._limit <= held:
            for on_room in self._listeners:
                on_room()
