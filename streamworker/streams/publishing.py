"""XADD, once each: a second try could write an entry twice, so it is the caller's decision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streamworker.delivery import Outgoing
from streamworker.streams.wire import Argument, Link, Reply


async def add(link: Link, outgoing: Outgoing) -> str:
    """Append an entry; answers its id. After `ConnectionLost` it may have been written or not."""
    return _id(await link.call(*_xadd(outgoing)))


async def add_many(link: Link, entries: Sequence[Outgoing]) -> list[str | Exception]:
    """Append entries in order, pipelined; answers the id or the error of each."""
    wire = await link.connect()
    futures = [wire.call(*_xadd(outgoing), within=30.0) for outgoing in entries]
    replies: list[str | Exception] = []
    for future in futures:
        try:
            replies.append(_id(await future))
        except Exception as error:  # noqa: BLE001  # the caller gets it in the entry's place
            replies.append(error)
    return replies


def _xadd(outgoing: Outgoing) -> Iterable[Argument]:
    trim: tuple[Argument, ...] = () if outgoing.max_length is None else ("MAXLEN", "~", outgoing.max_length)
    return ("XADD", outgoing.stream, *trim, "*", *outgoing.fields)


def _id(reply: Reply) -> str:
    return reply.decode()  # type: ignore[no-any-return]
