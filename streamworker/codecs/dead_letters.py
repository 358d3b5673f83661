"""What a dead letter is made of: the original fields byte for byte, then what we know about its end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from streamworker.codecs.envelope import pack_fields, unpack_fields
from streamworker.delivery import Delivery, Fields, Reason
from streamworker.effects import MOST_VALUES as MOST_VALUES
from streamworker.errors import DecodeError

_FIRST = b"_dlq_reason"
_PACKED = b"_dlq_packed"


@dataclass(frozen=True, slots=True)
class Obituary:
    """How a delivery ended: why, by which handler, with what error (already described and capped)."""

    reason: Reason
    handler: str | None
    error: str | None
    traceback: str | None
    failed_at: datetime
    version: str
    crashes: int | None = None
    """Where they are more than the delivery knew of."""


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A dead letter read back: the original fields, and our notes by their names without `_dlq_`."""

    fields: Fields
    notes: Mapping[str, str]


def write_dead_letter(delivery: Delivery, obituary: Obituary) -> Fields:
    """The dead letter's fields; notes that have nothing to say are left out, except the reason, which comes first."""
    history = delivery.history
    first_failed_at = obituary.failed_at if history.first_failed_at is None else history.first_failed_at
    notes: dict[str, str | None] = {
        "reason": obituary.reason.value,
        "error": obituary.error,
        "traceback": obituary.traceback,
        "stream": delivery.stream,
        "id": delivery.id,
        "group": delivery.group,
        "handler": obituary.handler,
        "attempts": str(delivery.attempt),
        "crashes": str(delivery.crashes if obituary.crashes is None else obituary.crashes),
        "first_failed_at": first_failed_at.isoformat(),
        "failed_at": obituary.failed_at.isoformat(),
        "consumer": delivery.consumer,
        "version": obituary.version,
    }
    written: Fields = []
    for name, note in notes.items():
        if note is not None:
            written += (f"_dlq_{name}".encode(), note.encode(errors="backslashreplace"))
    # An original field that has the packed one's name is packed too: there is one way to read it back.
    if len(delivery.fields) > MOST_VALUES or delivery.fields[:1] == [_PACKED]:
        return [_PACKED, pack_fields(delivery.fields), *written]
    return [*delivery.fields, *written]


def read_dead_letter(fields: Fields) -> DeadLetterRecord:
    """The original fields and our notes. Ours are the last ones, so an original field may have any name."""
    names = fields[::2]
    start = len(names) - 1 - names[::-1].index(_FIRST) if _FIRST in names else len(names)
    original, ours = fields[: 2 * start], fields[2 * start :]
    if ours and len(original) == 2 and original[0] == _PACKED:
        with suppress(DecodeError):  # not packed by us: it is shown as it is
            original = unpack_fields(original[1])
    notes = {
        name.decode(errors="backslashreplace").removeprefix("_dlq_"): value.decode(errors="backslashreplace")
        for name, value in zip(ours[::2], ours[1::2], strict=True)
    }
    return DeadLetterRecord(original, notes)
