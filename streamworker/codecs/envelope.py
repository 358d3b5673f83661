"""A waiting retry as bytes: what the entry has been through, then its original fields. Pure.

The first line is JSON, for a person who looks with redis-cli; the fields follow as length-prefixed bytes, so that any content, order
and repeated name comes back exactly, and a field count above what a Lua script can unpack is no limit.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import NamedTuple

from streamworker.delivery import Fields, History
from streamworker.errors import DecodeError


class Envelope(NamedTuple):
    """The original entry's id, its history and its fields."""

    id: str
    history: History
    fields: Fields


def pack(envelope: Envelope) -> bytes:
    """The envelope as bytes."""
    history = envelope.history
    head = {
        "id": envelope.id,
        "attempt": history.attempt,
        "crashes": history.crashes,
        "crashes_alone": history.crashes_alone,
        "suspect": history.suspect,
        "misrouted": history.misrouted,
        "first_failed_at": None if history.first_failed_at is None else history.first_failed_at.isoformat(),
        "last_error": history.last_error,
    }
    return json.dumps(head).encode() + b"\n" + pack_fields(envelope.fields)


def unpack(data: bytes) -> Envelope:
    """The envelope from its bytes. Raises `DecodeError` when they are not one."""
    head, newline, rest = data.partition(b"\n")
    try:
        given = json.loads(head)
        failed_at, last_error = given["first_failed_at"], given["last_error"]
        history = History(
            attempt=int(given["attempt"]),
            crashes=int(given["crashes"]),
            crashes_alone=int(given["crashes_alone"]),
            suspect=bool(given["suspect"]),
            misrouted=int(given["misrouted"]),
            first_failed_at=None if failed_at is None else datetime.fromisoformat(failed_at),
            last_error=None if last_error is None else str(last_error),
        )
        entry_id = str(given["id"])
    except (ValueError, OverflowError, KeyError, TypeError, RecursionError):
        raise DecodeError("this is not an envelope that streamworker wrote") from None
    if not newline:
        raise DecodeError("the envelope ends before its fields")
    fields = unpack_fields(rest)
    if len(fields) % 2:
        raise DecodeError("the envelope's last field has no value")
    return Envelope(entry_id, history, fields)


def pack_fields(fields: Fields) -> bytes:
    """Each value as its length, a colon and its bytes."""
    return b"".join(b"%d:%s" % (len(value), value) for value in fields)


def unpack_fields(data: bytes) -> Fields:
    """The values from `pack_fields`. Raises `DecodeError` when the bytes end too early."""
    fields: Fields = []
    at = 0
    while at < len(data):
        colon = data.find(b":", at, at + 20)
        size = data[at:colon] if colon > at else b""
        end = colon + 1 + int(size) if size.isdigit() else -1
        if not colon < end <= len(data):
            raise DecodeError("the envelope's fields are damaged")
        fields.append(data[colon + 1 : end])
        at = end
    return fields
