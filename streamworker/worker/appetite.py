"""How many entries one command asks for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from streamworker.streams.reading import Fresh
from streamworker.worker.bindings import size_of
from streamworker.worker.budget import ByteBudget
from streamworker.worker.pools import Pool

FIRST_STEP, LONGEST_STEP = 8, 128
"""How many entries of a stream a command asks for at first, and at most: how large they are shows only when they are here."""


class Appetite:
    """One reader's. It grows as long as there is memory for all that comes."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._step = FIRST_STEP

    def count(self, rooms: Sequence[tuple[Pool, int]], coming: int = 0) -> int:
        """How many entries of each stream to ask for, so that there is room for all together; `coming` have come and are not yet held.

        0 where there is no such number: more streams than places, or pools that differ so much that one would hold up the other.
        """
        counts = [room // pool.width for pool, room in rooms]
        fewest, left = min(counts), self._budget.left - coming * self._budget.expected
        if 4 * fewest < max(counts) or left <= 0:
            return 0
        return min(fewest, self._step, max(1, left // self._budget.expected))

    def saw(self, fresh: Sequence[Fresh]) -> None:
        """Take note of what has come."""
        self._step = min(LONGEST_STEP, 2 * self._step)
        for _, entries in fresh:
            self._budget.expect(size_of(entries[-1][1]))
