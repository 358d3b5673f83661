"""What a worker process says of itself, about once a second, to whoever watches over it: its supervisor, its health endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

BEAT = timedelta(seconds=1)
"""How often a worker says how it is; what changes is said at once."""


@dataclass(frozen=True, slots=True)
class Status:
    """One worker process at one moment. Made on its event loop, so that a fresh one proves that the loop turns.

    `started` is set once the groups were looked at for the first time, and stays. `connected` is whether the server answered when it was
    last asked. `reading` is whether it reads now: connected, with at least one of its streams readable, neither paused nor draining, and
    not kept for long by an entry that has to run alone, which is `solitary`. `gave_up` is set when it drains because going on would do
    harm: that is a failure. `troubled` are the streams that cannot be read at the moment. `waits_for` is what keeps it from starting, as
    far as it can tell. `paused_handlers` are those that somebody has paused in all processes, `resting_handlers` those whose kill switches
    have tripped in this one: neither keeps a process from being ready. `trimmed` is how many entries it has found that were trimmed away
    while they were pending: those of dead workers are lost. `held_back` are the streams that hold more than their retention allows, each
    with the group that still needs it.
    """

    started: bool
    connected: bool
    reading: bool
    draining: bool
    why_draining: str
    gave_up: bool
    paused: bool
    in_flight: int
    deliveries: int
    memory_bytes: int
    troubled: tuple[str, ...] = ()
    waits_for: str = ""
    solitary: bool = False
    paused_handlers: tuple[str, ...] = ()
    resting_handlers: tuple[str, ...] = ()
    trimmed: int = 0
    held_back: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Watched:
    """A worker process as its watcher sees it: the last status it sent, if any, and how many seconds ago that was (or it was started)."""

    pid: int
    status: Status | None
    silent_seconds: float
