"""How entries become ours: new ones, those whose lease ran out, and those whose reply was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from streamworker.entries import Entry, Fields
from streamworker.errors import ServerError
from streamworker.streams.faults import answered
from streamworker.streams.link import Link
from streamworker.streams.scripts import script
from streamworker.streams.wire import Argument, Reply

READ_MARGIN_SECONDS = 3.0
"""How much longer than its BLOCK a read may be without any answer before the connection counts as dead."""

RECONCILE_PAGE = 20

MOST_INTERVALS_LEFT = 2
"""Workers whose leases differ have different intervals; more than so many of one's own are no interval of anybody's."""


@dataclass(frozen=True, slots=True)
class Taken:
    """An entry that is now pending under our name, and its delivery count, which is 1 for a new one: see `scripts/book.lua`."""

    key: str
    entry: Entry
    count: int

    @property
    def was_in_a_crash(self) -> bool:
        """Whether a worker has died with it."""
        return self.turn > 1

    @property
    def turn(self) -> int:
        """Odd when it may be running, even when it waits to be run alone, and greater with every owner and every change."""
        return turn_of(self.count)

    @property
    def crashes_alone(self) -> int:
        """How many workers died with it while nothing else was in flight beside it."""
        return self.count // 1_000 % 1_000

    @property
    def outstayed(self) -> int:
        """How often it has run alone for so long that others had to start beside it."""
        return self.count // 1_000_000 % 1_000

    @property
    def failed(self) -> int:
        """How many attempts have failed while it stayed where it is."""
        return self.count // 1_000_000_000


class Fresh(NamedTuple):
    """New entries of one stream, as they came: each an id and its fields; nobody was given them before."""

    key: str
    entries: list[tuple[bytes, Fields]]

    def as_taken(self) -> list[Taken]:
        """The same in the words of a sweep."""
        return [Taken(self.key, Entry(entry_id.decode(), fields), 1) for entry_id, fields in self.entries]


@dataclass(frozen=True, slots=True)
class Page:
    """One step of a scan of `key`: where to go on (`None`: the end), what was taken, and the ids that were trimmed while pending."""

    key: str
    following: str | None
    taken: list[Taken]
    trimmed: list[str]


@dataclass(frozen=True, slots=True)
class Room:
    """How many entries may be read from `keys` together, in this order of precedence."""

    keys: tuple[str, ...]
    size: int


def count_of(fresh: Iterable[Fresh]) -> int:
    """How many entries they are."""
    return sum(len(entries) for _, entries in fresh)


async def fill(
    link: Link, group: str, consumer: str, rooms: Sequence[Room], *, most_bytes: int, expected_bytes: int
) -> tuple[list[Fresh], dict[str, ServerError]]:
    """Read new entries up to the size of each room, without blocking; errors come back by stream.

    It ends, too, when about `most_bytes` are read; `expected_bytes` is how large an entry is expected to be.
    """
    keys = [key for room in rooms for key in room.keys]
    numbers = [number for number, room in enumerate(rooms, 1) for _ in room.keys]
    sizes = [room.size for room in rooms]
    arguments: list[Argument] = [group, consumer, most_bytes, max(1, expected_bytes), len(rooms), *sizes, *numbers]
    found, refused = await script("fill").run(link, keys, arguments, within=READ_MARGIN_SECONDS)
    return [Fresh(keys[at - 1], entries) for at, entries in found], {
        keys[at - 1]: answered(text.decode(errors="replace")) for at, text in refused
    }


def ask(link: Link, group: str, consumer: str, keys: Sequence[str], *, count: int, block_ms: int | None) -> asyncio.Future[Reply]:
    """Ask at once for new entries of `keys`, up to `count` of each, and wait for the first one on any of them; `None`: do not wait."""
    options: list[Argument] = ["GROUP", group, consumer, "COUNT", count, *(() if block_ms is None else ("BLOCK", block_ms))]
    within = (block_ms or 0) / 1000 + READ_MARGIN_SECONDS
    return link.send("XREADGROUP", *options, "STREAMS", *keys, *(">" for _ in keys), within=within)


async def given(link: Link, asked: asyncio.Future[Reply]) -> list[Fresh]:
    """The entries that were asked for; an empty list when `block_ms` went by. Raises `ConnectionLost` or `ServerError`."""
    return [Fresh(name.decode(), entries) for name, entries in await link.reply_to(asked) or ()]


async def reclaim(
    link: Link,
    key: str,
    group: str,
    consumer: str,
    *,
    lease_ms: int,
    cursor: str,
    count: int,
    most_bytes: int,
    not_after_ms: int,
    lost: Collection[str] = (),
    witnesses: Sequence[str] = (),
) -> tuple[Page | None, int]:
    """Take over entries that have been idle for a whole lease, one page from `cursor` on; counts a crash of each that may have run.

    It ends with the entry that fills `most_bytes`. `lost` are those that we hold without a lease: they are left to others; `witnesses` is
    where what was trimmed is written down, see `GroupKeys.witnesses`. Answers the server's time in ms beside the page, which is `None`
    when that time is past `not_after_ms`: then nothing was taken.
    """
    arguments: list[Argument] = [group, consumer, lease_ms, cursor, count, not_after_ms, most_bytes, *lost]
    now_ms, too_late, following, entries, trimmed = await script("reclaim").run(link, [key, *witnesses], arguments)
    if too_late:
        return None, now_ms
    return _page(key, None if following == b"0-0" else following.decode(), entries, trimmed), now_ms


async def reconcile(
    link: Link,
    key: str,
    group: str,
    consumer: str,
    *,
    cursor: str,
    held: Collection[str],
    died: bool,
    most_bytes: int,
    witnesses: Sequence[str] = (),
) -> tuple[Page, bool]:
    """Take up what is pending under our name and not held by us, one page from `cursor` on (`-`: from the beginning).

    It ends with the entry that fills `most_bytes`; answers, beside the page, whether something was left for that reason. `died` says
    that the last owner of this name is dead, which is written down for what is left, too.
    """
    arguments: list[Argument] = [group, consumer, cursor, RECONCILE_PAGE, int(died), most_bytes, *held]
    following, entries, trimmed, left = await script("reconcile").run(link, [key, *witnesses], arguments)
    return _page(key, following.decode() or None, entries, trimmed), left > 0


async def may_sweep(link: Link, key: str, consumer: str, *, interval_ms: int) -> bool:
    """Whether it is our turn to look for lapsed leases: one sweeper per group and interval is enough."""
    if await link.call("SET", key, consumer, "NX", "PX", interval_ms) is not None:
        return True
    # A key without an end was not written by us, and would keep everybody from sweeping for ever; one whose end is far off was written
    # before the server's clock went back.
    if 0 <= await link.call("PTTL", key) <= MOST_INTERVALS_LEFT * interval_ms:
        return False
    await link.call("SET", key, consumer, "PX", interval_ms)
    return True


async def unblock(link: Link, client_id: int) -> None:
    """End the blocked read of another connection as if its time were up; its reply is not lost, unlike with a cancelled read."""
    await link.call("CLIENT", "UNBLOCK", client_id)


async def client_id(link: Link) -> int:
    """The server's number for this connection."""
    return int(await link.call("CLIENT", "ID"))


def turn_of(count: int) -> int:
    """The turn in a delivery count."""
    return count % 1_000


def _page(key: str, following: str | None, entries: list[Any], trimmed: list[bytes]) -> Page:
    taken = [Taken(key, _entry(raw), int(raw[2])) for raw in entries]
    return Page(key, following, taken, [entry_id.decode() for entry_id in trimmed])


def _entry(raw: list[Any]) -> Entry:
    return Entry(raw[0].decode(), raw[1])
