"""Schedules on the server: what was published last, and publishing the next tick once."""

from __future__ import annotations

from typing import NamedTuple

from streamworker.delivery import Outgoing
from streamworker.streams.keys import tick_key
from streamworker.streams.link import Link
from streamworker.streams.packing import Argument
from streamworker.streams.scripts import script


class Clock(NamedTuple):
    """The server's time, a schedule's last tick, and the entry that this call has added, if it has."""

    now_ms: int
    last_ms: int
    entry_id: str | None


async def look(link: Link, stream: str, name: str) -> Clock:
    """What time it is, and what was published last; a schedule that is seen for the first time begins now."""
    return await _run(link, stream, name, [""])


async def publish(link: Link, stream: str, name: str, tick_ms: int, outgoing: Outgoing | None) -> Clock:
    """Add the entry of a tick, if nobody has; with `None` the tick is done without one. May be said again after a lost reply."""
    if outgoing is None:
        return await _run(link, stream, name, [tick_ms, ""])
    most = "" if outgoing.max_length is None else outgoing.max_length
    return await _run(link, stream, name, [tick_ms, most, *outgoing.fields])


async def _run(link: Link, stream: str, name: str, arguments: list[Argument]) -> Clock:
    now, last, entry_id = await script("tick").run(link, [tick_key(stream, name), stream], arguments)
    return Clock(int(now), int(last), None if entry_id is None else entry_id.decode())
