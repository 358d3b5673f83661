"""Which stream is read first, so that each has its share of what is taken while all have more than there is room for. Pure.

Each stream has a tally of what was taken from it, divided by its weight, and the lowest comes first: start-time fair queueing (Goyal, Vin,
Cheng 1996). Who has nothing waiting saves nothing up: its tally rises with those of the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


class Shares:
    """The shares of one pool's streams by their weights."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = dict(weights)
        self._tallies = dict.fromkeys(weights, 0.0)
        self._asked: list[str] = []

    def order(self, streams: Collection[str]) -> list[str]:
        """These streams in the order in which they are to be asked; each gives as much as there is room for when its turn comes."""
        self._asked = sorted(streams, key=lambda stream: (self._tallies[stream], -self._weights[stream]))
        return list(self._asked)

    def took(self, counts: Mapping[str, int]) -> None:
        """So many came from each stream that was asked last; those that gave nothing may be left out."""
        for stream, count in counts.items():
            self._tallies[stream] += count / self._weights[stream]
        # Whoever was asked before the last one that gave something has given all that it had; those behind it had no turn.
        gave = [position for position, stream in enumerate(self._asked) if counts.get(stream)]
        if not gave:
            return
        still = self._asked[gave[-1] :]
        now = min(self._tallies[stream] for stream in still)
        for stream in self._tallies.keys() - set(still):
            self._tallies[stream] = max(self._tallies[stream], now)
