"""What happened in a run, as values: what was published, which handlers ran when, what was done to processes and servers.

All moments are seconds of CLOCK_MONOTONIC, which is the same clock in every process of one machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

Answer = Literal["acked", "refused", "unknown"]
"""What the publisher knows: written, not written, or nobody can say (the reply was lost)."""

End = Literal["done", "failed", "snoozed", "cancelled"]
"""How a handler ended; one that was killed has no end."""

DONE = "done"
"""Where a plan ends in success; else it names the reason of the dead letter."""


OLD_ATTEMPTS, NEW_ATTEMPTS = 3, 5
"""How many attempts the two versions of the application make."""


@dataclass(frozen=True)
class Plan:
    """What an entry asks its handler to do, and where it must end: `done`, or the reason of its dead letter.

    `seconds` is how long one run takes, `failures` how many attempts fail. `kills` says that it kills its worker.
    """

    kind: str = "ok"
    seconds: float = 0.0
    failures: int = 0
    ends: str = DONE
    kills: bool = False


@dataclass(frozen=True)
class Published:
    """One entry of the load. `id` is known where the answer is."""

    number: int
    plan: Plan
    answer: Answer
    id: str | None
    invoked: float
    completed: float


@dataclass(frozen=True)
class Run:
    """One start of a handler. Without `ended` its process was gone first, or it still ran when the run was over."""

    number: int
    id: str
    pid: int
    attempt: int
    crashes: int
    started: float
    ended: float | None = None
    end: End | None = None

    @property
    def until(self) -> float:
        """When it ended, as far as it did."""
        return inf if self.ended is None else self.ended


@dataclass(frozen=True)
class Life:
    """A worker process. `ordered` is the signal that it was sent, and when; without one it was not meant to end.

    `ready` says whether it ever read. `code` is what it exited with, as subprocess has it (a signal is negative).
    """

    pid: int
    started: float
    ended: float | None = None
    code: int | None = None
    ordered: str | None = None
    ordered_at: float | None = None
    ready: bool = True


@dataclass(frozen=True)
class Disturbance:
    """Something that was done, from when to when, to which processes (`None`: to all).

    `freezes`: they cannot do anything meanwhile, not even notice it. `voids`: the server forgets who holds what, so leases end.
    `takes`: the entry that was taken from them.
    """

    kind: str
    begin: float
    end: float
    pids: frozenset[int] | None = None
    freezes: bool = False
    voids: bool = False
    takes: str | None = None

    def concerns(self, run: Run) -> bool:
        """Whether it was done to this run's process, or to this entry there."""
        return (self.pids is None or run.pid in self.pids) and self.takes in {None, run.id}


@dataclass(frozen=True)
class DeadLetter:
    """One entry of the dead-letter stream."""

    number: int
    id: str
    reason: str
    attempts: int
    crashes: int
    intact: bool
    """Whether the original fields are all there."""


@dataclass(frozen=True)
class Footprint:
    """What a worker, or the server for all of them, has open at one moment. `of` names it."""

    of: str
    files: int = 0
    threads: int = 0
    resident_kb: int = 0
    connections: int = 0
    consumers: int = 0


@dataclass(frozen=True)
class History:
    """All of a run. `forgotten` are the moments at which the server lost its entries, by an order or an accident of its own."""

    published: tuple[Published, ...] = ()
    runs: tuple[Run, ...] = ()
    lives: tuple[Life, ...] = ()
    disturbances: tuple[Disturbance, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
    collected: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """What each feature has left on the server in the end, by its name."""
    forgotten: tuple[float, ...] = ()
    healed: tuple[float, ...] = ()
    """When troubles of the server or of the network ended."""
    drained: str = ""
    """Empty when everything was done in the end; else what was not."""
    before: tuple[Footprint, ...] = ()
    after: tuple[Footprint, ...] = ()
    logged: frozenset[str] = frozenset()
    """The names of the events in the workers' logs."""
    leaks: tuple[str, ...] = ()
    """Log lines in which a secret or a payload was found, shortened."""
    stray: tuple[str, ...] = ()
    """Log lines that report a fault of the engine itself, such as `delivery.unsettled`, or that are not JSON."""

    def runs_of(self) -> dict[int, list[Run]]:
        """The runs of each entry, in the order of their starts."""
        by_number: dict[int, list[Run]] = defaultdict(list)
        for run in sorted(self.runs, key=lambda run: run.started):
            by_number[run.number].append(run)
        return by_number

    def plans(self) -> dict[int, Plan]:
        """What was planned for each entry."""
        return {entry.number: entry.plan for entry in self.published}

    def with_deaths(self) -> History:
        """The same, with the death of each process as a disturbance of its own, and as the end of what ran in it."""
        deaths = [
            Disturbance("death", _death(life, self.runs), life.ended, frozenset({life.pid}))
            for life in self.lives
            if life.ended is not None and not _drained(life)
        ]
        return History(**{**self.__dict__, "disturbances": self.disturbances + tuple(deaths)})


@dataclass(frozen=True)
class Rules:
    """What a run is held to. Durations in seconds.

    `slack` is by how much this machine was late while the run lasted, as measured; `settle` how long after its handler's end an
    acknowledgement may need on a healthy server.
    """

    lease: float = 1.0
    max_attempts: frozenset[int] = frozenset({OLD_ATTEMPTS})
    max_crashes: int = 3
    slack: float = 0.0
    settle: float = 0.5
    hold: float = 2 / 3
    """The share of a lease for which a worker holds its sweeps after its start and after troubles."""
    restart: float = 0.0
    """How long a new worker may take to be there, where so many die at once that entries wait for one."""
    held_up: float = 0.0
    """For how long earlier entries of its key may hold up one that is to be run again."""
    recovery: float = 8.0
    """How soon after a trouble's end something is handled again: a pause between two tries is up to five seconds."""
    prompt: float = inf
    """How soon after its publication an entry starts, with nothing on record that may keep it: where there is always room for it."""
    max_concurrency: int | None = None
    """How many handlers may run at once in one process, if anything was said of that."""
    connections: int = 3
    """What a worker of one group may have: one for commands, one to read, one to renew leases."""
    exit_codes: frozenset[int] = frozenset({0})
    """What a worker may exit with that was told to drain."""
    crash_codes: frozenset[int] = frozenset()
    """What a worker may die of without having been told to."""
    events: tuple[frozenset[str], ...] = field(default_factory=tuple)
    """Of each of these sets, one event must be in the logs."""


@dataclass(frozen=True)
class Violation:
    """What must not be: the invariant's number and one sentence."""

    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


def _drained(life: Life) -> bool:
    """Whether it ended in order: then it has settled or released all it had."""
    return life.ordered == "term" and life.code == 0


def _death(life: Life, runs: tuple[Run, ...]) -> float:
    """When it died at the earliest: what killed it was ordered then, or was the last thing that ran in it."""
    if life.ordered_at is not None:
        return life.ordered_at
    moments = [run.started if run.ended is None else run.ended for run in runs if run.pid == life.pid]
    return max(moments, default=life.started)
