"""The markers of handlers with an `Idempotency`: what has been done, and what is being done."""

from __future__ import annotations

from datetime import timedelta

from streamworker.delivery import Lease
from streamworker.effects import Write
from streamworker.streams.keys import GroupKeys
from streamworker.streams.link import Link
from streamworker.streams.scripts import script

CLAIMED_AT_LEAST = timedelta(days=1)
"""A claim outlives the handler that it is for; where none comes to an end in a day, the next may begin."""


async def begin(link: Link, group: str, keys: GroupKeys, lease: Lease, marker: str, ttl: timedelta) -> str:
    """Claim a marker for the entry: `"begun"`, or `"done"` where that was before, or `"busy"` while another entry has it."""
    kept_ms = max(ttl, CLAIMED_AT_LEAST) // timedelta(milliseconds=1)
    arguments = [group, 3 if lease.of_retry else 2, lease.entry_id, kept_ms]
    answer: bytes = await script("begin_once").run(link, [marker, keys.stream, keys.retry], arguments)
    return answer.decode()


def done(marker: str, ttl: timedelta) -> Write:
    """What marks it as done, to be written with the acknowledgement."""
    return Write("SET", marker, (b"done", b"PX", b"%d" % (ttl // timedelta(milliseconds=1))))
