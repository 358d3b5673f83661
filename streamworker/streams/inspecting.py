"""Commands that only look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from streamworker.delivery import Entry
from streamworker.errors import ConnectionLost, ServerError
from streamworker.streams.link import Link

PAGE_SECONDS = 30.0
"""How long a page of entries may take: they can be large, and the way to the server slow."""


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """A delivered, unacknowledged entry as XPENDING shows it."""

    id: str
    consumer: str
    idle_ms: int
    count: int


async def entries(link: Link, stream: str, *, first: str = "-", last: str = "+", count: int | None = None) -> list[Entry]:
    """Entries by id, oldest first (XRANGE)."""
    limit = () if count is None else ("COUNT", count)
    return _entries(await link.call("XRANGE", stream, first, last, *limit, within=PAGE_SECONDS))


async def entry(link: Link, stream: str, entry_id: str) -> Entry | None:
    """One entry by its id, if it is there."""
    found = await entries(link, stream, first=entry_id, last=entry_id, count=1)
    return found[0] if found else None


async def newest(link: Link, stream: str, count: int, *, last: str = "+") -> list[Entry]:
    """The last `count` entries up to `last`, oldest first (XREVRANGE)."""
    return _entries(await link.call("XREVRANGE", stream, last, "-", "COUNT", count, within=PAGE_SECONDS))[::-1]


async def follow(link: Link, stream: str, *, after: str, count: int, block_ms: int | None) -> list[Entry]:
    """Entries after an id (`$`: from now on), waiting up to `block_ms` for the first one (XREAD, no group)."""
    wait = () if block_ms is None else ("BLOCK", block_ms)
    within = 5.0 if block_ms is None else block_ms / 1000 + 3.0
    reply = await link.call("XREAD", "COUNT", count, *wait, "STREAMS", stream, after, within=within)
    return _entries(reply[0][1]) if reply else []


async def pending(
    link: Link, stream: str, group: str, *, count: int, consumer: str | None = None, idle_ms: int | None = None
) -> list[PendingEntry]:
    """Pending entries, oldest id first (XPENDING)."""
    idle = () if idle_ms is None else ("IDLE", idle_ms)
    whose = () if consumer is None else (consumer,)
    reply = await link.call("XPENDING", stream, group, *idle, "-", "+", count, *whose)
    return [PendingEntry(row[0].decode(), row[1].decode(errors="backslashreplace"), row[2], row[3]) for row in reply]


async def greet(link: Link, *, within: float = 5.0) -> None:
    """See that the server answers (PING). Raises `ConnectionLost` or `ServerError`."""
    await link.call("PING", within=within)


async def is_there(link: Link, *, within: float = 5.0) -> bool:
    """Whether the server answers."""
    try:
        await greet(link, within=within)
    except (ConnectionLost, ServerError):
        return False
    return True


async def kind(link: Link, key: str) -> str:
    """What a key holds: `stream`, `hash` …, or `none` when there is no such key (TYPE)."""
    reply: bytes = await link.call("TYPE", key)
    return reply.decode(errors="backslashreplace")


async def existing(link: Link, keys: list[str]) -> int:
    """How many of these keys are there (EXISTS)."""
    return int(await link.call("EXISTS", *keys))


async def now(link: Link) -> datetime:
    """The server's clock, by which entry ids are made (TIME)."""
    seconds, microseconds = await link.call("TIME")
    return datetime.fromtimestamp(int(seconds), tz=UTC) + timedelta(microseconds=int(microseconds))


async def length(link: Link, stream: str) -> int:
    """How many entries a stream holds (XLEN)."""
    return int(await link.call("XLEN", stream))


async def waiting(link: Link, due_key: str) -> int:
    """How many retries wait (ZCARD)."""
    return int(await link.call("ZCARD", due_key))


async def remove(link: Link, stream: str, entry_ids: list[str]) -> int:
    """Delete entries from a stream (XDEL); answers how many were there."""
    return int(await link.call("XDEL", stream, *entry_ids))


async def delete_keys(link: Link, keys: Sequence[str]) -> int:
    """Delete whole keys (UNLINK); answers how many were there."""
    return int(await link.call("UNLINK", *keys))


async def expire(link: Link, key: str, after: timedelta) -> None:
    """Let the server delete a key by itself after so long (PEXPIRE)."""
    await link.call("PEXPIRE", key, round(after / timedelta(milliseconds=1)))


def _entries(reply: list[Any]) -> list[Entry]:
    return [Entry(raw[0].decode(), raw[1]) for raw in reply]
