"""When a child that died is followed by another one, when it is enough, and what it all amounts to. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from streamworker.worker.exits import ExitCode

LIVED_SECONDS = 10.0
"""A child that has been ready for so long is well: what kills it then is no matter of how it starts."""
MOST_EARLY_DEATHS = 5
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

_WORST_LAST = (ExitCode.DONE, ExitCode.GRACE_EXCEEDED, ExitCode.INTERRUPTED, ExitCode.UNREACHABLE, ExitCode.USAGE, ExitCode.FAILURE)


def has_lived(ready_seconds: float | None) -> bool:
    """Whether a child that has been ready for so long (`None`: never) counts as well."""
    return ready_seconds is not None and ready_seconds >= LIVED_SECONDS


def pause_seconds(early_deaths: int, random: float) -> float:
    """How long to wait before the next child of a place where so many in a row have died early: growing, with full jitter."""
    exponent = max(0, min(early_deaths, MOST_EARLY_DEATHS * 4) - 1)
    return random * min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**exponent)


def is_crash_loop(early_deaths: Collection[int]) -> bool:
    """Whether it is time to give up: in every place so many children in a row have died early that the next would too."""
    return bool(early_deaths) and min(early_deaths) >= MOST_EARLY_DEATHS


def ends_all(code: int, *, anybody_was_ready: bool) -> bool:
    """Whether a child's end is everyone's: wrong usage or no server at the very start is the same for all, and for every successor."""
    return not anybody_was_ready and code in (ExitCode.USAGE, ExitCode.UNREACHABLE)


def as_exit_code(returncode: int, *, killed_by_us: bool) -> ExitCode:
    """A child's end as one of our exit codes; whom we had to kill has overrun its grace, and any other signal is a failure."""
    if killed_by_us:
        return ExitCode.GRACE_EXCEEDED
    return ExitCode(returncode) if returncode in set(ExitCode) else ExitCode.FAILURE


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The exit code of all by those of each."""
    return max(codes, key=_WORST_LAST.index, default=ExitCode.DONE)
