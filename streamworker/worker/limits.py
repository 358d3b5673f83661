"""After how long, and at what size, a worker process drains of its own accord."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from streamworker.errors import SetupError
from streamworker.settings import Settings, format_size
from streamworker.worker.memory import resident_bytes
from streamworker.worker.status import BEAT


def check_memory(settings: Settings) -> None:
    """Raise `SetupError` for a limit that is reached before the first entry: it would recycle the process for ever."""
    limit, held = settings.max_memory, resident_bytes()
    if limit is not None and held >= limit:
        raise SetupError(
            f"--max-memory is not above the {format_size(held)} that this program holds before its first entry: give it more"
        )


def watch_limits(settings: Settings, drain: Callable[[str], None]) -> tuple[Coroutine[Any, Any, None], ...]:
    """What watches over each of the limits."""
    return watch_time(settings, drain), watch_memory(settings, drain)


async def watch_time(settings: Settings, drain: Callable[[str], None]) -> None:
    """Drain when the process has run for as long as it may."""
    if settings.max_runtime is not None:
        await asyncio.sleep(settings.max_runtime.total_seconds())
        drain("max-runtime reached")


async def watch_memory(settings: Settings, drain: Callable[[str], None]) -> None:
    """Drain when the process holds as much as it may."""
    if settings.max_memory is not None:
        while resident_bytes() < settings.max_memory:  # noqa: ASYNC110  # nothing announces how much a process holds
            await asyncio.sleep(BEAT.total_seconds())
        drain("max-memory reached")
