"""What a supervisor and its children say to each other: a line of JSON from a child, a word from the supervisor."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, TypeAlias

from streamworker.worker.status import Status

VARIABLE = "STREAMWORKER_LEASH"
"""By which a child finds its end of the line: file descriptor and number."""
MOST_WORDS, MOST_TRACE = 4_000, 6_000
"""How long a child's last words may be, and their trace; the other end reads lines of a bounded length."""


class Order(StrEnum):
    """What a supervisor tells a child to do; said twice, it is done once."""

    DRAIN = "drain"
    HURRY = "hurry"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Hello:
    """The handshake: the program is imported, and a drain of this child takes its grace and this margin at most."""

    grace_seconds: float
    margin_seconds: float


@dataclass(frozen=True, slots=True)
class LastWords:
    """The sentence with which a child ends that cannot go on, and where that came from, if it was the program."""

    text: str
    trace: str = ""


Message: TypeAlias = Hello | Status | LastWords
_KINDS: dict[str, type[Message]] = {"hello": Hello, "status": Status, "last_words": LastWords}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode(message: Message) -> bytes:
    """The message as a line."""
    if isinstance(message, LastWords):
        message = LastWords(message.text[:MOST_WORDS], message.trace[-MOST_TRACE:])
    return json.dumps([_NAMES[type(message)], asdict(message)]).encode() + b"\n"


def decode(line: bytes) -> Message | None:
    """The message of a line; `None` for what is none, such as half a line of a child that was killed while it spoke.

    Fields that are not known here are left out: after a rolling restart the child may be of a newer version than its supervisor.
    """
    try:
        name, values = json.loads(line)
        kind = _KINDS[name]
        known = {field.name: _frozen(values[field.name]) for field in fields(kind) if field.name in values}
        message = kind(**known)
    except (ValueError, TypeError, KeyError):
        return None
    return message


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
