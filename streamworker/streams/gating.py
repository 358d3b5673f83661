"""What all processes know of a handler's gate: permits to start its deliveries at a rate, and that somebody has paused it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from streamworker.flow import Timing
from streamworker.streams.faults import answered
from streamworker.streams.keys import keys_of, rate_key
from streamworker.streams.link import Link
from streamworker.streams.scripts import script
from streamworker.streams.wire import Reply


class Granted(NamedTuple):
    """The server's time in µs, the first slot that was granted, how many were, and the next one that is free."""

    server_us: int
    first_us: int
    granted: int
    next_us: int


class Pause(NamedTuple):
    """Since when a handler is paused, by the server's clock, and why, if somebody said so."""

    since: datetime
    reason: str


async def ask_for_permits(link: Link, place: tuple[str, str, str], timing: Timing, count: int, *, together: bool) -> Granted:
    """Take up to `count` permits of a handler (its first stream, its group, its name); those that are to start `together` all or none."""
    arguments = [timing.interval_us, timing.back_us, count, int(together)]
    server_us, first_us, granted, next_us = await script("permits").run(link, [rate_key(*place)], arguments)
    return Granted(int(server_us), int(first_us), int(granted), int(next_us))


async def pause(link: Link, stream: str, group: str, handler: str, reason: str) -> bool:
    """Pause a handler in all processes; false when it was, and then its reason is the new one, where there is one."""
    key, known = keys_of(stream, group).paused, await paused(link, stream, group)
    seconds, micros = await link.call("TIME")
    since_ms = round(known[handler].since.timestamp() * 1000) if handler in known else int(seconds) * 1000 + int(micros) // 1000
    kept = known[handler].reason if handler in known and not reason else reason
    await link.call("HSET", key, handler, f"{since_ms} {kept}")
    return handler not in known


async def resume(link: Link, stream: str, group: str, handler: str) -> bool:
    """End a handler's pause; false when there was none."""
    return bool(await link.call("HDEL", keys_of(stream, group).paused, handler))


async def paused(link: Link, stream: str, group: str) -> dict[str, Pause]:
    """The handlers that are paused, of those whose first stream this is."""
    return read_pauses(await link.call("HGETALL", keys_of(stream, group).paused))


def read_pauses(reply: Reply) -> dict[str, Pause]:
    """What an HGETALL has answered. Raises `ServerError` where it was refused inside a script, which then hands on the error's text."""
    if isinstance(reply, bytes):
        raise answered(reply.decode(errors="backslashreplace"))
    pairs = zip(reply[::2], reply[1::2], strict=True)
    return {name.decode(errors="backslashreplace"): _pause(value) for name, value in pairs}


def pause_keys(places: Sequence[tuple[str, str]]) -> list[str]:
    """The keys that say who is paused, for each first stream and group."""
    return [keys_of(stream, group).paused for stream, group in places]


def _pause(value: bytes) -> Pause:
    """Whatever somebody has written there pauses the handler."""
    since, _, reason = value.decode(errors="backslashreplace").partition(" ")
    try:
        moment = datetime.fromtimestamp(int(since) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return Pause(datetime.fromtimestamp(0, UTC), value.decode(errors="backslashreplace"))
    return Pause(moment, reason)
