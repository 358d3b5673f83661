"""Streams that are too many to ask each for much: while most of them have much, some at a time are asked, round and round. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from streamworker.worker.pools import PartOfPool, Pool

FIRST_EACH, MOST_EACH = 4, 32
"""How many entries of each stream a part is asked for. Those of one stream run together, so that few of each cost most."""


class Rounds:
    """One reader's. A stream waits for its turn no longer than the others need that come before it, which is what a flood allows."""

    def __init__(self) -> None:
        self._each = 0
        self._at = 0

    def part(self, pools: Sequence[Pool]) -> PartOfPool | None:
        """The streams whose turn it is, where there is not room for as many entries of all; `None` where all can be asked."""
        if self._each == 0 or len(pools) != 1 or pools[0].shares is not None:
            return None
        pool, bindings = pools[0], pools[0].readable
        each = min(self._each, pool.room // 2)  # of each stream its retries, too
        if each == 0 or (streams := pool.room // (2 * each)) >= len(bindings):
            return None
        first = self._at % len(bindings)
        self._at = first + streams
        return PartOfPool((bindings + bindings)[first : self._at], pool.lanes, whole=pool, free=2 * streams * each)

    def saw(self, asked: int, got: int) -> None:
        """A read that could have given so many entries gave so many."""
        self._each = min(MOST_EACH, max(FIRST_EACH, 2 * self._each)) if 2 * got >= asked else 0
