"""What a group has handed out and not got back: pending on the stream itself, and on its retry stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from streamworker.admin.groups import meant
from streamworker.codecs.envelope import unpack
from streamworker.errors import DecodeError, ServerError, SetupError
from streamworker.streams import groups, inspecting, reading
from streamworker.streams.inspecting import PendingEntry
from streamworker.streams.keys import GroupKeys, keys_of
from streamworker.streams.link import Link

STREAM, RETRY = "stream", "retry"


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """An entry that is out: its original id, where it is pending and under which id, with whom, how long, how often handed out.

    `attempt` is known for retries only.
    """

    id: str
    where: str
    pending_id: str
    consumer: str
    idle: timedelta
    deliveries: int
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class PendingReport:
    """Some pending deliveries, the longest idle first, and the group as a whole.

    `retries_waiting` wait for their time, `retries_due` for a worker. `undelivered` is `None` where the server cannot tell.
    """

    deliveries: list[PendingDelivery]
    pending: int
    retries_waiting: int
    retries_due: int
    consumers: int
    undelivered: int | None


async def report(link: Link, stream: str, group: str, *, limit: int, consumer: str | None, idle: timedelta | None) -> PendingReport:
    """What is pending in `group`, at most `limit` of it. Raises `SetupError` for a consumer that is not in the group."""
    keys = keys_of(stream, group)
    consumers = await _consumers(link, keys, group)
    if consumer is not None and consumer not in consumers:
        raise SetupError(f"group {group!r} of stream {stream!r} has no consumer {consumer!r}: {meant(consumer, sorted(consumers))}")
    idle_ms = None if idle is None else round(idle / timedelta(milliseconds=1))
    on_stream = await _pending(link, keys.stream, group, limit, consumer, idle_ms)
    on_retry = await _pending(link, keys.retry, group, limit, consumer, idle_ms)
    found = [_on_stream(one) for one in on_stream]
    found += await asyncio.gather(*(_on_retry(link, keys, one) for one in on_retry))
    found.sort(key=lambda one: one.idle, reverse=True)
    main, retry = await groups.find(link, keys.stream, group), await groups.find(link, keys.retry, group)
    pending_retries = 0 if retry is None else retry.pending
    return PendingReport(
        deliveries=found[:limit],
        pending=(0 if main is None else main.pending) + pending_retries,
        retries_waiting=await inspecting.waiting(link, keys.due),
        retries_due=max(0, await inspecting.length(link, keys.retry) - pending_retries),
        consumers=len(consumers),
        undelivered=0 if main is None else main.lag,
    )


async def _consumers(link: Link, keys: GroupKeys, group: str) -> set[str]:
    names: set[str] = set()
    for key in (keys.stream, keys.retry):
        if await groups.find(link, key, group) is not None:
            names |= {info.name for info in await groups.consumers(link, key, group)}
    return names


async def _pending(link: Link, key: str, group: str, limit: int, consumer: str | None, idle_ms: int | None) -> list[PendingEntry]:
    try:
        return await inspecting.pending(link, key, group, count=limit, consumer=consumer, idle_ms=idle_ms)
    except ServerError as error:
        if error.code == "NOGROUP":  # a group has no retry stream before its first worker has started
            return []
        raise


def _on_stream(one: PendingEntry) -> PendingDelivery:
    return PendingDelivery(one.id, STREAM, one.id, one.consumer, timedelta(milliseconds=one.idle_ms), reading.turn_of(one.count))


async def _on_retry(link: Link, keys: GroupKeys, one: PendingEntry) -> PendingDelivery:
    """The original id is in the envelope; where that is gone or damaged, the retry's own must do."""
    entry = await inspecting.entry(link, keys.retry, one.id)
    original_id, attempt = one.id, None
    if entry is not None and len(entry.fields) == 2:
        try:
            envelope = unpack(entry.fields[1])
            original_id, attempt = envelope.id, envelope.history.attempt
        except DecodeError:
            pass
    return PendingDelivery(
        original_id, RETRY, one.id, one.consumer, timedelta(milliseconds=one.idle_ms), reading.turn_of(one.count), attempt
    )
