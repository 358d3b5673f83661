"""Whether the workers are alive, ready, started: from what they said last, and when. Pure, and no server is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

from streamworker.worker.status import Status, Watched


@dataclass(frozen=True, slots=True)
class Seen:
    """All worker processes at one moment; `draining` is set when all of them are to end."""

    children: Sequence[Watched]
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One process and what there is to say of it; `well` is whether this speaks for the verdict."""

    watched: Watched
    well: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to a probe, and why."""

    ok: bool
    reason: str
    findings: tuple[Finding, ...]


Judge: TypeAlias = Callable[[Seen, timedelta], Verdict]


def alive(seen: Seen, limit: timedelta) -> Verdict:
    """No event loop stands still for longer than `limit`. What only starts, drains or is being restarted is no reason to end the rest."""
    findings = _find(seen, lambda watched: _alive(watched, limit))
    stuck = [finding for finding in findings if not finding.well]
    return Verdict(not stuck, _in_one(stuck) if stuck else "ok", findings)


def ready(seen: Seen, limit: timedelta) -> Verdict:
    """At least one process has its groups and reads, and they are not told to end."""
    findings = _find(seen, lambda watched: _ready(watched, limit))
    if seen.draining:
        return Verdict(False, "draining", findings)
    verdict = _any(findings)
    alarms = _alarms(watched.status for watched in seen.children) if verdict.ok else ()
    return replace(verdict, reason="; ".join((verdict.reason, *alarms)))


def started(seen: Seen, limit: timedelta) -> Verdict:
    """At least one process has looked at its groups once."""
    del limit
    return _any(_find(seen, _started))


PROBES: dict[str, Judge] = {"livez": alive, "readyz": ready, "startupz": started}


def _alive(watched: Watched, limit: timedelta) -> tuple[bool, str]:
    status = watched.status
    if status is None or not status.started:
        return True, _starting(status)
    if status.draining:
        return True, "draining, which its watchdog bounds"
    if _is_stale(watched, limit):
        return False, _stands_still(watched)
    return True, "its event loop turns"


def _ready(watched: Watched, limit: timedelta) -> tuple[bool, str]:
    status = watched.status
    if status is None or not status.started:
        return False, _starting(status)
    if status.draining:
        return False, "draining"
    if _is_stale(watched, limit):
        return False, _stands_still(watched)
    return status.reading, _reading(status)


def _started(watched: Watched) -> tuple[bool, str]:
    is_up = watched.status is not None and watched.status.started
    return is_up, "started" if is_up else _starting(watched.status)


def _starting(status: Status | None) -> str:
    return "starting" if status is None or not status.waits_for else f"starting; it waits for {status.waits_for}"


def _reading(status: Status) -> str:
    if status.reading:
        reading = f"reading, but not {', '.join(status.troubled)}" if status.troubled else "reading"
        return "; ".join((reading, *_alarms([status])))
    if status.paused:
        return "paused"
    if not status.connected:
        return "the server does not answer"
    if status.solitary:
        return "an entry whose worker died runs alone, or waits for that: nothing else begins"
    return f"cannot read {', '.join(status.troubled)}"


def _alarms(statuses: Iterable[Status | None]) -> Iterator[str]:
    """What somebody should look at though all is well with the workers."""
    told = [status for status in statuses if status is not None]
    trimmed = sum(status.trimmed for status in told)
    if trimmed:
        yield f"{trimmed:,} found trimmed while pending"
    held_back = sorted({held for status in told for held in status.held_back})
    if held_back:
        yield f"held back: {', '.join(held_back)}"


def _is_stale(watched: Watched, limit: timedelta) -> bool:
    return watched.silent_seconds > limit.total_seconds()


def _stands_still(watched: Watched) -> str:
    return f"its event loop has stood still for {watched.silent_seconds:.0f} s"


def _find(seen: Seen, judge: Callable[[Watched], tuple[bool, str]]) -> tuple[Finding, ...]:
    return tuple(Finding(watched, *judge(watched)) for watched in seen.children)


def _any(findings: tuple[Finding, ...]) -> Verdict:
    if any(finding.well for finding in findings):
        return Verdict(True, "ok", findings)
    return Verdict(False, _in_one(findings) if findings else "no worker process is there at the moment", findings)


def _in_one(findings: Sequence[Finding]) -> str:
    return "; ".join(f"process {finding.watched.pid}: {finding.reason}" for finding in findings)
