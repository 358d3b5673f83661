"""How a worker process ends, as its exit code."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Done or drained; failed; wrong usage, import or registration; no server at the start; the grace was over before the work was;
    interrupted by a second INT.
    """

    DONE = 0
    FAILURE = 1
    USAGE = 2
    UNREACHABLE = 3
    GRACE_EXCEEDED = 4
    INTERRUPTED = 130


DRAINS_ALREADY = "SIGINT: it drains already; once more to stop at once"
"""What to say to the first INT that comes during a drain: the second one is obeyed, whatever came before."""

ENDS_WITH_ITS_TERMINAL = "SIGHUP: standard input is a terminal, so nothing fresh is started after the end"
"""Why a worker that was told to roll only drains."""


def exit_code(*, hurried: bool, gave_up: bool, unfinished: bool) -> ExitCode:
    """How a worker process ends that was told to stop at once, gave up, or left something behind."""
    if hurried:
        return ExitCode.INTERRUPTED
    if gave_up:
        return ExitCode.FAILURE
    return ExitCode.GRACE_EXCEEDED if unfinished else ExitCode.DONE
