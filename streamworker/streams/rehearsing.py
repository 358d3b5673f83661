"""What the test kit asks of a server: a database of its own, a time that it moves, and entries that look as if their worker had died."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from streamworker.streams.keys import GroupKeys
from streamworker.streams.link import Link
from streamworker.streams.scripts import script
from streamworker.streams.wire import Argument

CLAIM, NOW = "streamworker:testing:claim", "streamworker:testing:now"

LEFT_BEHIND_AFTER = timedelta(hours=1)
"""A test that takes longer may lose its database to another one; one that was killed gives its own back by then."""


@dataclass(frozen=True, slots=True)
class ToDo:
    """What waits: what is due, entries whose worker has died, whether anything is undelivered, how many entries are pending with our own
    consumer, and the sets of what is scheduled."""

    due: int
    lapsed: int
    fresh: bool
    held: int
    scheduled: Sequence[str]

    def is_nothing_but(self, at_rest: int) -> bool:
        """Whether nothing happens any more until the time is moved, where so many entries that are held wait for that."""
        return not (self.due or self.lapsed or self.fresh) and self.held == at_rest


async def claim(link: Link) -> bool:
    """Take the link's database for a test; false when there is something in it."""
    return bool(await script("rehearsal_claim").run(link, [CLAIM, NOW], [LEFT_BEHIND_AFTER // timedelta(milliseconds=1)]))


async def give_back(link: Link) -> None:
    """Delete everything in the link's database (FLUSHDB)."""
    await link.call("FLUSHDB")


async def now_ms(link: Link) -> int:
    """The time of the test."""
    return int(await link.call("GET", NOW))


async def move(link: Link, to_ms: int, by_ms: int) -> None:
    """Set the time of the test to what is `by_ms` later; keys that end by themselves end by so much sooner."""
    await script("rehearsal_move").run(link, [NOW], [to_ms, by_ms])


async def look(
    link: Link,
    groups: Sequence[tuple[GroupKeys, str]],
    consumer: str,
    lease: timedelta,
    is_held_up: Callable[[str, str], bool],
) -> ToDo:
    """What there is to do at this time of the test. What is pending with others for a `lease` has lapsed; what lies unread in a stream
    that `is_held_up` for its group is not to be done now."""
    keys = [key for of, _ in groups for key in (of.due, of.retry, of.stream)]
    arguments: list[Argument] = [consumer, lease // timedelta(milliseconds=1)]
    for of, group in groups:
        arguments += [group, int(is_held_up(of.stream, group))]
    due, lapsed, fresh, held, scheduled = await script("rehearsal_look").run(link, keys, arguments)
    return ToDo(due, lapsed, bool(fresh), held, sorted(key.decode() for key in scheduled))


async def next_due_ms(link: Link, key: str) -> int | None:
    """When the first of what waits in this sorted set is due."""
    reply = await link.call("ZRANGE", key, 0, 0, "WITHSCORES")
    return int(float(reply[1])) if reply else None


async def due_times_ms(link: Link, key: str) -> dict[str, int]:
    """When what waits in this sorted set is due, the first first."""
    reply = await link.call("ZRANGE", key, 0, -1, "WITHSCORES")
    return {name.decode(): int(float(score)) for name, score in zip(reply[::2], reply[1::2], strict=True)}


async def envelope(link: Link, keys: GroupKeys, entry_id: str) -> bytes | None:
    """The envelope of a retry that waits."""
    packed: bytes | None = await link.call("HGET", keys.parked, entry_id)
    return packed


async def hand_over(link: Link, key: str, group: str, entry_id: str, consumer: str, *, idle: timedelta) -> bool:
    """Let a pending entry be `consumer`'s, idle for so long; false when it is not pending."""
    arguments: list[Argument] = [group, entry_id, consumer, idle // timedelta(milliseconds=1)]
    return bool(await script("rehearsal_hand_over").run(link, [key], arguments))


async def may_sweep_again(link: Link, keys: Sequence[GroupKeys]) -> None:
    """Forget when the groups were swept last, so that it may be done now."""
    await link.call("UNLINK", *(of.sweep for of in keys))
