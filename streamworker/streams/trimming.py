"""Removing what a stream's retention lets go, and never what a group needs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from streamworker.retention import Retention
from streamworker.streams.link import Link
from streamworker.streams.packing import Argument
from streamworker.streams.scripts import script

PAGE = 1_000
"""How many entries one step removes at most."""


class Hold(NamedTuple):
    """Who needs what should have gone, and why: it is `pending` there, `undelivered`, the group is `missing`, or there is none
    (`groupless`)."""

    group: str
    why: str


class Trimmed(NamedTuple):
    """What a step has removed, how many entries are left, and who holds back what should have gone too, if anybody does."""

    removed: int
    length: int
    hold: Hold | None


async def trim(link: Link, stream: str, retention: Retention, groups: Sequence[str]) -> Trimmed:
    """Remove up to a page of what `retention` lets go; nothing at all while one of `groups` is not there."""
    most = "" if retention.max_length is None else retention.max_length
    age = "" if retention.max_age is None else retention.max_age // timedelta(milliseconds=1)
    arguments: list[Argument] = [most, age, int(retention.delete_when_acked), PAGE, *groups]
    removed, length, *hold = await script("trim").run(link, [stream], arguments)
    texts = [raw.decode(errors="backslashreplace") for raw in hold]
    return Trimmed(int(removed), int(length), Hold(*texts) if texts else None)
