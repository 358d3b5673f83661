"""Whether there is anything left to do, asked of the server."""

from __future__ import annotations

from collections.abc import Iterable

from streamworker.streams import groups, inspecting
from streamworker.streams.wire import Link
from streamworker.worker.bindings import Binding


async def is_finished(link: Link, bindings: Iterable[Binding]) -> bool:
    """True when nothing is undelivered, pending, released or waiting for a retry, in any of these groups, with any worker.

    Raises `ConnectionLost` or `ServerError`.
    """
    for binding in bindings:
        if await inspecting.waiting(link, binding.keys.due):
            return False
        for key in (binding.keys.retry, binding.keys.stream):
            if not await _is_drained(link, key, binding.group):
                return False
    return True


async def _is_drained(link: Link, key: str, group: str) -> bool:
    info = await groups.find(link, key, group)
    if info is None or info.pending:
        return False
    # Not XINFO's lag: it is unknown after deletions (https://redis.io/docs/latest/commands/xinfo-groups/).
    return not await inspecting.entries(link, key, first=f"({info.last_delivered_id}", count=1)
