"""Adding what is scheduled to its streams once it is due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from streamworker.errors import ServerError
from streamworker.streams import inspecting
from streamworker.streams.faults import answered
from streamworker.streams.keys import schedule_keys
from streamworker.streams.link import Link
from streamworker.streams.scripts import script
from streamworker.streams.wire import Reply


class Added(NamedTuple):
    """What happened on one stream: entries added, entries that cannot be read, and why the rest was refused."""

    stream: str
    added: int
    damaged: int
    refused: ServerError | None


class Looked(NamedTuple):
    """In how many ms the next one is due (`None`: none waits), what happened, and what the hashes of pauses hold (`read_pauses`)."""

    next_due_ms: int | None
    happened: list[Added]
    pauses: list[Reply]


async def look(link: Link, streams: Sequence[str], *, limit: int, pauses: Sequence[str]) -> Looked:
    """As `publish_due`, where there is anything to look at: an idle worker asks each second, and the script looks at each key by itself."""
    if await inspecting.existing(link, [key for stream in streams for key in schedule_keys(stream)] + list(pauses)) == 0:
        return Looked(None, [], [[] for _ in pauses])
    return await publish_due(link, streams, limit=limit, pauses=pauses)


async def publish_due(link: Link, streams: Sequence[str], *, limit: int, pauses: Sequence[str] = ()) -> Looked:
    """Add up to `limit` entries that are due to each stream; and look into the hashes of `pauses`."""
    keys = [key for stream in streams for key in (*schedule_keys(stream), stream)]
    wait, held, *told = await script("publish_due").run(link, [*keys, *pauses], [limit, len(streams)])
    happened = [
        Added(streams[int(number) - 1], added, damaged, answered(text.decode(errors="backslashreplace")) if text else None)
        for number, added, damaged, text in told
    ]
    return Looked(None if wait < 0 else int(wait), happened, held)
