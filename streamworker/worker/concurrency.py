"""How many deliveries of a handler run at once in this process, where the handler does not say so itself."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from streamworker.app import StreamWorker
from streamworker.errors import SetupError
from streamworker.handlers import Handler
from streamworker.settings import Settings
from streamworker.worker.ceiling import Ceiling, places
from streamworker.worker.processes import Processes

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def concurrency_of(handler: Handler, settings: Settings, ceiling: Ceiling | None = None) -> int:
    """As many as there are CPUs where each has a process of its own, else what the settings say; no more than all together may."""
    return places(handler.concurrency, cpus() if handler.executor == "process" else settings.concurrency, ceiling)


def processes_of(app: StreamWorker, chosen: Sequence[Handler], settings: Settings, log: Any) -> Processes | None:
    """The processes of those handlers that want some. Raises `SetupError` where these could not find the program."""
    handlers = [handler for handler in chosen if handler.executor == "process"]
    if not handlers:
        return None
    if app.found_at is None:
        raise SetupError(
            f"handler {handlers[0].name!r} has executor='process', and a process of its own finds the program only by its name: "
            "start it with `streamworker run module:app`"
        )
    most = sum(concurrency_of(handler, settings) for handler in handlers)
    return Processes(app.found_at, handlers, settings, most, log)


def cpus() -> int:
    """How many CPUs this process may use, in a container as much as its limit allows."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = _CPU_MAX.read_text(encoding="ascii").split()
        if quota != "max":
            count = min(count, math.ceil(int(quota) / int(period)))
    return max(1, count)
