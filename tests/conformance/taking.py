"""Entries that a group has, taken with the verbs of `streams/` alone."""

from __future__ import annotations

from collections.abc import Sequence

from streamworker.delivery import Lease, Outgoing
from streamworker.streams import publishing, reading
from streamworker.streams.keys import keys_of
from streamworker.streams.link import Link
from streamworker.streams.reading import Room

KEYS = keys_of("orders", "billing")


async def take(link: Link, *notes: str) -> list[Lease]:
    """Add an entry for each note and read them all as `me`; answers their leases."""
    for note in notes:
        await publishing.add(link, Outgoing("orders", [b"note", note.encode()]))
    fresh, _ = await reading.fill(link, "billing", "me", [Room(("orders",), len(notes))], most_bytes=2**30, expected_bytes=100)
    return [Lease(one.key, one.entry.id, "me", one.count, 0.0) for part in fresh for one in part.as_taken()]


async def take_one(link: Link) -> Lease:
    """Add an entry and read it as `me`; answers its lease."""
    [lease] = await take(link, "a")
    return lease


async def read(link: Link, group: str, consumer: str, keys: Sequence[str], *, count: int, block_ms: int) -> list[reading.Fresh]:
    """Ask for new entries and wait for them, over a link that may have to be opened."""
    await link.connect()
    return await reading.given(link, reading.ask(link, group, consumer, keys, count=count, block_ms=block_ms))
