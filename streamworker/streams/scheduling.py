"""Adding what is scheduled to its streams once it is due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from streamworker.errors import ServerError
from streamworker.streams import inspecting
from streamworker.streams.faults import answered
from streamworker.streams.keys import schedule_keys
from streamworker.streams.scripts import script
from streamworker.streams.wire import Link


class Added(NamedTuple):
    """What happened on one stream: entries added, entries that cannot be read, and why the rest was refused."""

    stream: str
    added: int
    damaged: int
    refused: ServerError | None


async def is_anything_scheduled(link: Link, streams: Sequence[str]) -> bool:
    """Whether the script has anything to look at; where nothing is scheduled, asking that is all that is done each second."""
    return await inspecting.existing(link, [key for stream in streams for key in schedule_keys(stream)]) > 0


async def publish_due(link: Link, streams: Sequence[str], *, limit: int) -> tuple[int | None, list[Added]]:
    """Add up to `limit` entries that are due to each stream; answers ms until the next one is (`None`: none waits), and what happened."""
    keys = [key for stream in streams for key in (*schedule_keys(stream), stream)]
    wait, *told = await script("publish_due").run(link, keys, [limit])
    happened = [
        Added(streams[int(number) - 1], added, damaged, answered(text.decode(errors="backslashreplace")) if text else None)
        for number, added, damaged, text in told
    ]
    return (None if wait < 0 else int(wait)), happened
