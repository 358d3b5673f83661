"""What a worker and the processes of its handlers say to each other: data only, never objects, so nothing that is read can run.

A message is a line of JSON and raw values, as in a retry's envelope; each travels with its length in front.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from struct import Struct
from time import monotonic
from typing import Any

from streamworker.codecs.envelope import Envelope, pack, pack_fields, unpack, unpack_fields
from streamworker.delivery import Delivery, Failed, Lease, Outcome, Outgoing, Succeeded
from streamworker.effects import Write
from streamworker.errors import HandlerFailed, Reject, Retry, Snooze
from streamworker.observe.descriptions import describe, trace
from streamworker.policies import RetryPolicy

LENGTH = Struct(">Q")
"""What stands in front of a message."""

READY, BEGUN = b"ready", b"begun"
"""The program is there and entries may come; an entry has come, and from now on a death of the process is its own."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first thing that such a process hears: where the program is, which handlers it must have, and how the worker is set up."""

    target: str
    factory: bool
    app_dir: str
    path: Sequence[str]
    handlers: Sequence[str]
    flags: dict[str, Any]
    parent: int


def framed(message: bytes) -> bytes:
    """The message with its length in front."""
    return LENGTH.pack(len(message)) + message


def write_hello(hello: Hello) -> bytes:
    """The greeting as a message."""
    return json.dumps({name: getattr(hello, name) for name in Hello.__slots__}).encode()


def read_hello(message: bytes) -> Hello:
    """The greeting from its message."""
    return Hello(**json.loads(message))


def write_call(delivery: Delivery, handler: str) -> bytes:
    """A delivery, and who is to handle it, as a message."""
    head = {"handler": handler, "stream": delivery.stream, "group": delivery.group, "consumer": delivery.consumer}
    return _joined(head, pack(Envelope(delivery.id, delivery.history, delivery.fields)))


def read_call(message: bytes) -> tuple[Delivery, str]:
    """The delivery and the handler's name. Its lease is renewed, and lost, where it came from."""
    head, rest = _parted(message)
    entry_id, history, fields = unpack(rest)
    stream, group, consumer = head["stream"], head["group"], head["consumer"]
    lease = Lease(stream, entry_id, consumer, 1, monotonic())
    return Delivery(entry_id, stream, group, consumer, fields, history, lease, sum(map(len, fields))), head["handler"]


def write_outcome(outcome: Outcome, policy: RetryPolicy) -> bytes:
    """What came of a handler as a message: what it asks for, or how it failed in words."""
    match outcome:
        case Succeeded(publishes, writes):
            head: dict[str, Any] = {
                "publishes": [[one.stream, one.max_length, one.is_reply, len(one.fields)] for one in publishes],
                "writes": [[one.command, one.key, len(one.values)] for one in writes],
            }
            values = [value for one in publishes for value in one.fields] + [value for one in writes for value in one.values]
            return _joined(head, pack_fields(values))
        case Failed(error):
            return _joined(_failure(error, policy), b"")
        case _:
            raise TypeError(f"a handler that has run comes to no {type(outcome).__name__}")


def read_outcome(message: bytes) -> Succeeded | BaseException:
    """What the handler asks for, or the error to raise in its place."""
    head, rest = _parted(message)
    if "error" in head:
        return _error(head)
    values = iter(unpack_fields(rest))
    publishes = [
        Outgoing(stream, [next(values) for _ in range(count)], max_length, is_reply)
        for stream, max_length, is_reply, count in head["publishes"]
    ]
    writes = [Write(command, key, tuple(next(values) for _ in range(count))) for command, key, count in head["writes"]]
    return Succeeded(tuple(publishes), tuple(writes))


def _failure(error: BaseException, policy: RetryPolicy) -> dict[str, Any]:
    gives_up = isinstance(error, policy.give_up_on)
    head: dict[str, Any] = {"error": describe(error), "trace": trace(error), "gives_up": gives_up}
    match error:
        case Reject():
            head["says"] = "reject"
        case Snooze(after=after):
            head |= {"says": "snooze", "after": after.total_seconds()}
        case Retry(after=after) if not gives_up:
            head |= {"says": "retry", "after": None if after is None else after.total_seconds()}
        case _:
            pass
    return head


def _error(head: dict[str, Any]) -> BaseException:
    told = HandlerFailed(head["error"], head["trace"], gives_up=head["gives_up"])
    after = None if head.get("after") is None else timedelta(seconds=head["after"])
    said: BaseException
    match head.get("says"):
        case "reject":
            said = Reject(head["error"])
        case "snooze" if after is not None:
            said = Snooze(head["error"], after=after)
        case "retry":
            said = Retry(head["error"], after=after)
        case _:
            return told
    said.__cause__ = told
    return said


def _joined(head: dict[str, Any], rest: bytes) -> bytes:
    return json.dumps(head).encode() + b"\n" + rest


def _parted(message: bytes) -> tuple[dict[str, Any], bytes]:
    head, _, rest = message.partition(b"\n")
    return json.loads(head), rest
