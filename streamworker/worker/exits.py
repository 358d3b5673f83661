"""How a worker process ends, as its exit code."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Done or drained; failed; wrong usage, import or registration; no server at the start; work released when the grace was over;
    interrupted by a second INT.
    """

    DONE = 0
    FAILURE = 1
    USAGE = 2
    UNREACHABLE = 3
    GRACE_EXCEEDED = 4
    INTERRUPTED = 130
