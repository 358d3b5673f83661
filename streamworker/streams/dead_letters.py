"""How dead letters leave their stream: back to their group, or for good."""

from __future__ import annotations

from collections.abc import Sequence

from streamworker.streams.keys import GroupKeys
from streamworker.streams.link import Link
from streamworker.streams.scripts import script


async def replay(link: Link, keys: GroupKeys, dead_letter_id: str, envelope: bytes) -> bool:
    """Move a dead letter to its group's retry stream in one step; false when it was not there any more.

    After `ConnectionLost` it may have moved or not; a second call does no harm, because what has moved is not there any more.
    """
    return bool(await script("replay").run(link, [keys.dead_letters, keys.retry], [dead_letter_id, envelope]))


async def discard(link: Link, keys: GroupKeys, dead_letter_ids: Sequence[str]) -> int:
    """Delete dead letters for good; answers how many were there."""
    return int(await link.call("XDEL", keys.dead_letters, *dead_letter_ids))
