"""Consumer groups and their consumers: make, look at, forget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from streamworker.errors import ServerError
from streamworker.streams.keys import GroupKeys
from streamworker.streams.link import Link
from streamworker.streams.scripts import script


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group as XINFO GROUPS shows it. `lag` is `None` where the server cannot tell."""

    name: str
    consumers: int
    pending: int
    last_delivered_id: str
    lag: int | None


@dataclass(frozen=True, slots=True)
class ConsumerInfo:
    """A consumer as XINFO CONSUMERS shows it."""

    name: str
    pending: int
    idle_ms: int


class Place(NamedTuple):
    """How far a group was when somebody looked: below everything that was pending in it, and the last entry that it had delivered."""

    resume_after: str
    last_delivered_id: str


async def create(link: Link, stream: str, group: str, start_id: str) -> bool:
    """Make the group, and the stream if need be, to read what comes after `start_id`; false when the group was there already."""
    try:
        await link.call("XGROUP", "CREATE", stream, group, start_id, "MKSTREAM")
    except ServerError as error:
        if error.code == "BUSYGROUP":
            return False
        raise
    return True


async def describe(link: Link, stream: str) -> list[GroupInfo]:
    """The groups of a stream; none when there is no such stream."""
    return [
        GroupInfo(
            name=row["name"].decode(errors="backslashreplace"),
            consumers=row["consumers"],
            pending=row["pending"],
            last_delivered_id=row["last-delivered-id"].decode(),
            lag=row.get("lag"),
        )
        for row in await _rows(link, "XINFO", "GROUPS", stream)
    ]


async def find(link: Link, stream: str, group: str) -> GroupInfo | None:
    """One group of a stream, if it is there."""
    return next((info for info in await describe(link, stream) if info.name == group), None)


async def remember(link: Link, keys: GroupKeys, place: Place) -> None:
    """Write down that the group exists, and how far it is, for a worker that starts when it is gone; not on a full server.

    An older note stays true while the group lives, though it tells to begin further below than need be: nobody has to compare.
    """
    try:
        await link.call("SET", keys.known, f"{place.resume_after} {place.last_delivered_id}")
    except ServerError as error:
        if error.code != "OOM":
            raise


async def remembered(link: Link, keys: GroupKeys) -> Place | None:
    """How far a group was that existed once, as `remember` has noted it."""
    noted = await link.call("GET", keys.known)
    if noted is None:
        return None
    resume_after, _, last = noted.decode().partition(" ")
    return Place(resume_after, last or resume_after)


async def oldest_pending(link: Link, stream: str, group: str) -> str | None:
    """The lowest id that is pending with anybody, if any."""
    reply = await link.call("XPENDING", stream, group)
    return None if reply[1] is None else reply[1].decode()


async def last_id(link: Link, stream: str) -> str | None:
    """The newest id the stream ever had; `None` when there is no such stream."""
    try:
        reply = await link.call("XINFO", "STREAM", stream)
    except ServerError as error:
        if "no such key" in str(error):
            return None
        raise
    value: bytes = _pairs(reply)["last-generated-id"]
    return value.decode()


async def consumers(link: Link, stream: str, group: str) -> list[ConsumerInfo]:
    """The consumers of a group, `~` and all."""
    return [
        ConsumerInfo(row["name"].decode(errors="backslashreplace"), row["pending"], row["idle"])
        for row in await _rows(link, "XINFO", "CONSUMERS", stream, group)
    ]


async def forget_consumer(link: Link, stream: str, group: str, consumer: str) -> bool:
    """Remove a consumer that has nothing pending; false when it has."""
    return bool(await script("forget_consumer").run(link, [stream], [group, consumer]))


async def are_finished(link: Link, groups: Sequence[tuple[GroupKeys, str]]) -> bool:
    """True when nothing is undelivered, pending, released or waiting for a retry in any of these groups, with any worker."""
    keys = [key for of, _ in groups for key in (of.due, of.parked, of.retry, of.stream)]
    return bool(await script("is_finished").run(link, keys, [group for _, group in groups]))


async def _rows(link: Link, *command: str) -> list[dict[str, Any]]:
    try:
        reply = await link.call(*command)
    except ServerError as error:
        if "no such key" in str(error):
            return []
        raise
    return [_pairs(row) for row in reply]


def _pairs(flat: list[Any]) -> dict[str, Any]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
