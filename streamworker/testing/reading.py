"""Reads for a test what is on the server: entries by their bodies, what is pending, what waits, what was set aside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from streamworker.admin import pending as admin
from streamworker.codecs import Codec
from streamworker.codecs.dead_letters import read_dead_letter
from streamworker.codecs.envelope import unpack
from streamworker.entries import Fields
from streamworker.streams import inspecting, rehearsing
from streamworker.streams.link import Link
from streamworker.testing.clock import MILLISECOND, PAGE
from streamworker.testing.records import DeadLetterRecord, PendingRecord, WaitingRecord
from streamworker.worker.bindings import Binding


async def bodies(link: Link, stream: str, codec: Codec, body_type: Any) -> list[Any]:
    """The bodies of all entries of a stream, oldest first. Raises `DecodeError` for one that is no `body_type`."""
    decode = codec.decoder(body_type)
    return [decode(entry.fields) for entry in await inspecting.entries(link, stream)]


async def pending(link: Link, bindings: Sequence[Binding]) -> list[PendingRecord]:
    """What is delivered and not settled."""
    return [
        PendingRecord(one.id, binding.keys.stream, binding.group, one.consumer)
        for binding in bindings
        for one in (await admin.report(link, binding.keys.stream, binding.group, limit=PAGE, consumer=None, idle=None)).deliveries
    ]


async def waiting(link: Link, bindings: Sequence[Binding], now_ms: int) -> list[WaitingRecord]:
    """The retries that wait, the next due first."""
    found: list[WaitingRecord] = []
    for binding in bindings:
        for entry_id, due_ms in (await rehearsing.due_times_ms(link, binding.keys.due)).items():
            packed = await rehearsing.envelope(link, binding.keys, entry_id)
            if packed is not None:
                history = unpack(packed).history
                due_in: timedelta = (due_ms - now_ms) * MILLISECOND
                found.append(
                    WaitingRecord(entry_id, binding.keys.stream, binding.group, history.attempt, due_in, history.last_error)
                )
    return sorted(found, key=lambda record: record.due_in)


async def dead_letters(link: Link, bindings: Sequence[Binding]) -> list[DeadLetterRecord]:
    """What was set aside, oldest first in each stream and group."""
    found: list[DeadLetterRecord] = []
    for binding in bindings:
        for entry in await inspecting.entries(link, binding.keys.dead_letters):
            letter = read_dead_letter(entry.fields)
            notes = letter.notes
            found.append(
                DeadLetterRecord(
                    id=notes["id"],
                    stream=binding.keys.stream,
                    group=binding.group,
                    reason=notes["reason"],
                    error=notes.get("error"),
                    handler=notes.get("handler"),
                    attempts=int(notes["attempts"]),
                    crashes=int(notes["crashes"]),
                    fields=as_text(letter.fields),
                )
            )
    return found


def as_text(fields: Fields) -> dict[str, str]:
    """Fields as text; what is none is escaped."""
    text = [value.decode(errors="backslashreplace") for value in fields]
    return dict(zip(text[::2], text[1::2], strict=True))
