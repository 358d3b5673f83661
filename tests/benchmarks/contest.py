"""Run those who are compared in turns, again and again, so that a slow minute of the machine is everybody's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.benchmarks.places import Setup
from tests.benchmarks.stage import Failed, Stage

MOST_REPEATS = 3

Measured = dict[str, float]
"""What one run gave: `rate` (entries per second), `worker_us` and `server_us` (CPU per entry), `rss_mb`, `commands` (per entry), …"""


@dataclass(frozen=True)
class World:
    """What a scenario is given."""

    stage: Stage
    setup: Setup
    tree: Path
    """The root of the source tree under test."""
    quick: bool
    peers: tuple[str, ...]
    """Which other frameworks take part."""
    say: Callable[[str], None]
    """Tells the user."""

    def size(self, full: int) -> int:
        """How many entries: `full`, or a fifth of it in the quick form."""
        return full // 5 if self.quick else full


@dataclass(frozen=True)
class Entrant:
    """One who is compared: a name, and what runs it once."""

    name: str
    run: Callable[[], Measured]


@dataclass
class Standing:
    """What an entrant's runs gave; None for a run that failed."""

    runs: list[Measured | None] = field(default_factory=list)
    trouble: str = ""

    def values(self, measure: str) -> list[float]:
        """That measure of every run that has it."""
        return [run[measure] for run in self.runs if run is not None and measure in run]

    def middle(self, measure: str) -> float | None:
        """The median, or None when there is nothing."""
        values = self.values(measure)
        return median(values) if values else None


Standings = dict[str, Standing]


def compete(
    entrants: Sequence[Entrant], runs: int, told: Callable[[str, Measured | None, str], None], most_of_others: float
) -> Standings:
    """Run each `runs` times, in turns, beginning with another one in every round. Whoever fails twice is left out.

    A run beside which others used more of the CPU than `most_of_others` percent of a core is repeated, a few times at most.
    """
    standings = {entrant.name: Standing() for entrant in entrants}
    for number in range(runs):
        shift = number % len(entrants)
        for entrant in (*entrants[shift:], *entrants[:shift]):
            standing = standings[entrant.name]
            if standing.runs.count(None) < 2:
                _once(entrant, standing, most_of_others)
            told(entrant.name, standing.runs[-1], standing.trouble)
    return standings


def ratios(standings: Standings, measure: str, one: str, other: str) -> list[float]:
    """`one` over `other`, round by round, so that what slowed both does not count."""
    pairs = zip(standings[one].runs, standings[other].runs, strict=False)
    return [a[measure] / b[measure] for a, b in pairs if a is not None and b is not None and a.get(measure) and b.get(measure)]


def _once(entrant: Entrant, standing: Standing, most_of_others: float) -> None:
    try:
        measured = entrant.run()
        for _ in range(MOST_REPEATS):
            if measured.get("others_busy", 0.0) <= most_of_others:
                break
            measured = min(measured, entrant.run(), key=lambda run: run["others_busy"])
        standing.runs.append(measured)
    except Failed as failure:
        standing.runs.append(None)
        standing.trouble = str(failure)
