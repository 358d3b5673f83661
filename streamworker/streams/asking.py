"""Requests and their replies on the server."""

from __future__ import annotations

from datetime import timedelta

from streamworker.delivery import Outgoing
from streamworker.entries import Entry
from streamworker.streams.inspecting import follow
from streamworker.streams.link import Link
from streamworker.streams.scripts import script

BLOCK_MS = 2_000
PAGE = 100
MOST_REPLIES = 1_000
"""What a stream of replies is trimmed to as one is added (settle_commit.lua); so many may be waited for at once."""

KEPT_FOR = timedelta(minutes=1)
"""How long the stream of the replies outlives the timeout of the last request, where its process has died."""


async def ask(link: Link, outgoing: Outgoing, reply_to: str, *, within: timedelta) -> str:
    """Add a request, and see that there is a stream for its reply; answers the request's id."""
    most = "" if outgoing.max_length is None else outgoing.max_length
    kept_ms = round((within + KEPT_FOR).total_seconds() * 1000)
    reply: bytes = await script("ask").run(link, [reply_to], [outgoing.stream, kept_ms, most, *outgoing.fields])
    return reply.decode()


async def replies(link: Link, key: str, *, after: str) -> list[Entry]:
    """The next replies, waited for. They are not removed: who asks has no right to delete, for it would be one to delete requests."""
    return await follow(link, key, after=after, count=PAGE, block_ms=BLOCK_MS)


async def forget(link: Link, key: str) -> None:
    """Remove the stream of the replies: whoever still replies finds none, and makes none."""
    await link.call("PEXPIRE", key, 0)
