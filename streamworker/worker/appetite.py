"""How many entries one command asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from time import monotonic

from streamworker.streams.reading import Fresh, count_of
from streamworker.worker.bindings import size_of
from streamworker.worker.budget import ByteBudget
from streamworker.worker.pools import Pool
from streamworker.worker.rounds import Rounds

FIRST_STEP, LONGEST_STEP, LONGEST_OF_LOTS = 8, 128, 512
"""How many entries of a stream a command asks for at first, and at most: how large they are shows only when they are here."""

MOST_IN_A_SCRIPT = 250
"""Entries that one script takes: it costs several times what a command does, and the server serves nobody else meanwhile."""


class Appetite:
    """One reader's. It grows as long as there is memory for all that comes."""

    def __init__(self, budget: ByteBudget, pools: Sequence[Pool]) -> None:
        self._budget = budget
        self._step = FIRST_STEP
        self._rounds = Rounds()
        self._pool_of = {key: pool for pool in pools for b in pool.bindings for key in (b.keys.stream, b.keys.retry)}

    def count(self, rooms: Sequence[tuple[Pool, int]], coming: int = 0) -> int:
        """How many entries of each stream to ask for, so that there is room for all together; `coming` have come and are not yet held.

        0 where there is no such number: more streams than places, pools that differ so much that one would hold up the other, or streams
        of different weights.
        """
        if any(pool.shares is not None for pool, _ in rooms):
            return 0
        counts = [room // pool.width for pool, room in rooms]
        fewest, left = min(counts), self._budget.left - coming * self._budget.expected
        if 4 * fewest < max(counts) or left <= 0:
            return 0
        streams = sum(pool.width for pool, _ in rooms) // 2
        longest = LONGEST_OF_LOTS if all(pool.in_lots for pool, _ in rooms) else LONGEST_STEP
        return min(fewest, self._step, longest, left // (self._budget.expected * streams))

    def count_beside(self, pools: Sequence[Pool], fresh: Sequence[Fresh]) -> int:
        """As `count`, for pools that must have room for these entries, too, which have just come."""
        coming = Counter[Pool]()
        for key, entries in fresh:
            coming[self._pool_of[key]] += len(entries)
        now = monotonic()
        rooms = []
        for pool in pools:
            pool.look(now)
            room = pool.room - coming[pool]
            if room < max(1, pool.width):
                return 0
            rooms.append((pool, room))
        return self.count(rooms, coming.total())

    def part(self, pools: Sequence[Pool]) -> Pool | None:
        """Those streams of the only pool that are to be asked for much, where it has too many to ask all of them; see `Rounds`."""
        return self._rounds.part(pools)

    def saw(self, fresh: Sequence[Fresh], asked: int) -> None:
        """Take note of what has come where so many could have come."""
        self._step = min(LONGEST_OF_LOTS, 2 * self._step)
        for _, entries in fresh:
            self._budget.expect(size_of(entries[-1][1]))
        self._rounds.saw(asked, count_of(fresh))
