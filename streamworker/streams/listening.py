"""Reading a stream without a group: every reader sees every entry, and knows what has gone before it could."""

from __future__ import annotations

from typing import NamedTuple

from streamworker.entries import Entry
from streamworker.streams.inspecting import PAGE_SECONDS, follow
from streamworker.streams.link import Link
from streamworker.streams.scripts import script


class Place(NamedTuple):
    """How far a stream was read: the last id, and how many entries had been added up to it (`scripts/listen.lua`)."""

    last_id: str
    added: int = -2


class Heard(NamedTuple):
    """The next entries, how far they go, and how many had gone before they could be read (`None`: perhaps some)."""

    place: Place
    lost: int | None
    entries: list[Entry]


async def listen(link: Link, stream: str, place: Place, *, count: int) -> Heard:
    """What comes next, at once; at the place `$` nothing but where the end is."""
    reply = await script("listen").run(link, [stream], [place.last_id, place.added, count], within=PAGE_SECONDS)
    last_id, added, lost, rows = reply
    entries = [Entry(entry_id.decode(), fields) for entry_id, fields in rows]
    return Heard(Place(last_id.decode(), int(added)), None if lost < 0 else int(lost), entries)


async def until_more(link: Link, stream: str, place: Place, *, block_ms: int) -> None:
    """Wait until there is more, or for so long. The link is the caller's own: the server answers nothing else on it meanwhile."""
    await follow(link, stream, after=place.last_id, count=1, block_ms=block_ms)
