"""Which of an application's handlers one process runs, and what it reads for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from streamworker.errors import SetupError
from streamworker.handlers import Handler, OnGroupLost
from streamworker.retention import Retention
from streamworker.settings import Settings
from streamworker.streams.keys import Removal, keys_of
from streamworker.worker.bindings import Binding


def choose_handlers(handlers: Sequence[Handler], settings: Settings, *, may_be_none: bool = False) -> list[Handler]:
    """The handlers that this process runs. Raises `SetupError` for a name that there is not, or when nothing is left to do."""
    known = {handler.name for handler in handlers}
    unknown = sorted(({*settings.handlers} | {*settings.exclude}) - known)
    if unknown:
        there = f"there {'is' if len(known) == 1 else 'are'} {', '.join(sorted(known)) or 'none at all'}"
        raise SetupError(f"there is no handler {unknown[0]!r}: {there}")
    chosen = [
        handler
        for handler in handlers
        if (not settings.handlers or handler.name in settings.handlers) and handler.name not in settings.exclude
    ]
    if not chosen and not may_be_none:
        repair = "name fewer with --exclude" if handlers else "decorate a function with @app.handler"
        raise SetupError(f"no handler to run: {repair}")
    for left_out in handlers:
        for handler in chosen if left_out not in chosen else ():
            shared = set(left_out.streams) & set(handler.streams)
            if shared and left_out.group == handler.group:
                # This process would be given entries of the other's type, and could only send them round until they are set aside.
                raise SetupError(
                    f"{handler.name!r} and {left_out.name!r} share stream {min(shared)!r} in group {handler.group!r}: "
                    "run both or neither in one process, or give one another group"
                )
    return chosen


def bindings_of(
    handlers: Sequence[Handler], on_group_lost: OnGroupLost, log: Any, retentions: Mapping[str, Retention]
) -> dict[str, list[Binding]]:
    """What these handlers read, by group."""
    routes: dict[tuple[str, str], dict[str | None, Handler]] = defaultdict(dict)
    for handler in handlers:
        for stream in handler.streams:
            routes[handler.group, stream][handler.type] = handler
    by_group: dict[str, list[Binding]] = defaultdict(list)
    for (group, stream), of_type in routes.items():
        start = next(iter(of_type.values())).start
        keys = keys_of(stream, group, _removal(retentions.get(stream)))
        by_group[group].append(Binding(keys, group, start, of_type, log, on_group_lost))
    return by_group


def _removal(retention: Retention | None) -> Removal:
    if retention is None or retention.keeps_all:
        return Removal.NEVER
    return Removal.WHEN_ACKED if retention.delete_when_acked else Removal.TRIMMED
