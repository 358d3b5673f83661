"""How entries are written: a plain XADD, or one atomic step where a window or a time is to be kept.

Who sends these may send one a second time only where it has a dedupe id.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from streamworker.delivery import Outgoing
from streamworker.errors import ConnectionLost, PublishFailed, ServerError, StreamWorkerError
from streamworker.posting import MILLISECOND, WINDOW, Durability, Posting
from streamworker.streams.faults import sentence
from streamworker.streams.keys import once_key, schedule_keys
from streamworker.streams.link import Link
from streamworker.streams.packing import Argument
from streamworker.streams.scripts import Script, on_virtual_time, script
from streamworker.streams.wire import Reply

_MINE = "1"
"""The one id of each producer (IDMP): a producer for each dedupe id, because a server keeps but few ids of one producer."""


class Step(NamedTuple):
    """A script and what it is run with."""

    script: Script
    keys: list[str]
    arguments: list[Argument]

    def by_digest(self) -> tuple[Argument, ...]:
        """The command for a server that knows the script."""
        return ("EVALSHA", self.script.digest, len(self.keys), *self.keys, *self.arguments)

    def whole(self) -> tuple[Argument, ...]:
        """The command for one that has forgotten it."""
        return ("EVAL", self.script.source, len(self.keys), *self.keys, *self.arguments)


async def add(link: Link, outgoing: Outgoing) -> str:
    """Append an entry with a plain XADD; answers its id. After `ConnectionLost` it may have been written or not."""
    reply: bytes = await link.call(*_xadd(Posting(outgoing)))
    return reply.decode()


def command_or_step(posting: Posting, *, idmp: bool, virtual_time: bool = False) -> tuple[Argument, ...] | Step:
    """What writes this entry. `idmp` says whether the server may know XADD IDMP, `virtual_time` whether a test moves its time."""
    if posting.is_plain:
        return _xadd(posting)
    if posting.is_scheduled:
        step = _schedule(posting)
        return step._replace(script=on_virtual_time(step.script)) if virtual_time else step
    # A server that finds the id by itself writes nothing, so there would be nothing for WAIT to wait for: a script does.
    if idmp and posting.window_ms is None and posting.durability is None:
        return _xadd(posting)
    return _once(posting)


def command_of(posting: Posting, *, idmp: bool, virtual_time: bool = False) -> tuple[Argument, ...]:
    """The same as a command, for a server that knows the scripts."""
    made = command_or_step(posting, idmp=idmp, virtual_time=virtual_time)
    return made.by_digest() if isinstance(made, Step) else made


def xadd_head(stream: str, max_length: int | None) -> tuple[Argument, ...]:
    """What is in front of the fields where nothing more is said."""
    return ("XADD", stream, "*") if max_length is None else ("XADD", stream, "MAXLEN", "~", max_length, "*")


def sorted_out(postings: Sequence[Posting], outcomes: Mapping[int, Reply]) -> list[str]:
    """The ids by position. Raises `PublishFailed` where some have none."""
    ids: list[str | None] = []
    errors: dict[int, StreamWorkerError] = {}
    for position, posting in enumerate(postings):
        outcome = outcomes[position]
        try:
            if isinstance(outcome, StreamWorkerError):
                raise outcome
            ids.append(read_reply(posting, outcome))
        except StreamWorkerError as error:
            errors[position] = explained(error, posting.outgoing.stream)
            ids.append(None)
    if errors:
        raise PublishFailed(ids, errors)
    return [entry_id for entry_id in ids if entry_id is not None]


def read_reply(posting: Posting, reply: Reply) -> str:
    """The entry's id, or that of its schedule. Raises `ServerError`."""
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, ServerError):
        raise reply
    stream = posting.outgoing.stream
    raise ServerError("NOSTREAM", f"there is no stream {stream!r}, and nomkstream forbids to make it: nothing was written")


def knows_no_idmp(reply: object) -> bool:
    """Whether this answer to XADD IDMP says that the server has never heard of it; then it has written nothing."""
    return isinstance(reply, ServerError) and "Invalid stream ID" in str(reply)


def has_forgotten(reply: object) -> bool:
    """Whether the script must be sent whole; then it has not run."""
    return isinstance(reply, ServerError) and reply.code == "NOSCRIPT"


def cancel_step(stream: str, handle: str) -> Step:
    """What takes a scheduled entry away."""
    return Step(script("cancel"), list(schedule_keys(stream)), [handle])


def confirmation(durability: Durability) -> tuple[Argument, ...]:
    """What waits until the writes before it on its connection are safe."""
    if durability.fsync:
        return ("WAITAOF", 1, durability.replicas, durability.timeout_ms)
    return ("WAIT", durability.replicas, durability.timeout_ms)


def rehearsal(durability: Durability) -> tuple[Argument, ...]:
    """The same before anything is written: it waits for nothing, and shows whether the server takes it."""
    return ("WAITAOF", 1, 0, 1) if durability.fsync else ("WAIT", 0, 1)


def cannot_confirm(error: ServerError) -> ServerError:
    """Why a server does not take `rehearsal`; nothing was written."""
    text = str(error)
    if error.code == "NOPERM":
        repair = _REPAIRS["NOPERM"]
    elif "unknown command" in text:
        repair = "WAITAOF is there from Redis 7.2 and Valkey 8 on; leave fsync out"
    elif "appendonly" in text:
        repair = "it writes no append-only file; set appendonly yes, or leave fsync out"
    else:
        repair = "leave durability out, or publish to the primary"
    return ServerError(error.code, f"nothing was written: this server cannot confirm what durability asks for: {repair} ({text})")


def unconfirmed(durability: Durability, count: int, why: str | None) -> str:
    """The sentence for entries that are written, and no more is known."""
    what = "the entry was" if count == 1 else f"all {count:,} entries were"
    seconds = f"{durability.timeout.total_seconds():g} s"
    return f"{what} written, but not confirmed by {durability.words} ({why or f'not within {seconds}'}): do not publish again"


def is_confirmed(durability: Durability, reply: Reply) -> bool:
    """What the server said to `confirmation`."""
    if durability.fsync:
        local, replicas = reply
        return bool(local >= 1 and replicas >= durability.replicas)
    return bool(reply >= durability.replicas)


def explained(error: StreamWorkerError, stream: str) -> StreamWorkerError:
    """The error for whoever publishes: what is known of the entry, and the repair."""
    if isinstance(error, ConnectionLost):
        known = "the entry may have been written or not" if error.may_have_run else "nothing was written"
        return ConnectionLost(f"{error}; {known}", may_have_run=error.may_have_run)
    if not isinstance(error, ServerError):
        return error
    repair = _REPAIRS.get(error.code)
    if repair is None:
        return ServerError(error.code, sentence(error))
    return ServerError(error.code, f"nothing was written: {repair.format(stream=stream)} ({error})")


_REPAIRS = {
    "WRONGTYPE": "{stream!r} is not a stream, or a key beside it not ours: rename or delete that key, or publish elsewhere",
    "OOM": "the server is full; raise maxmemory or free memory, and publish again",
    "NOPERM": "the user lacks a right; `streamworker acl --role publisher` prints all it needs",
    "READONLY": "this server is a replica; publish to the primary",
    "MISCONF": "the server cannot persist; mend its disk, and publish again",
    "NOREPLICAS": "too few replicas are connected; mend them, and publish again",
    "OVERSIZED": "the entry is larger than the server takes; publish less at once, or raise proto-max-bulk-len",
}


def _xadd(posting: Posting) -> tuple[Argument, ...]:
    stream, fields, most = posting.outgoing.stream, posting.outgoing.fields, posting.outgoing.max_length
    if not posting.nomkstream and posting.dedupe_id is None:
        return (*xadd_head(stream, most), *fields)
    command: list[Argument] = ["XADD", stream]
    if posting.nomkstream:
        command.append("NOMKSTREAM")
    if posting.dedupe_id is not None:
        command += ("IDMP", posting.dedupe_id, _MINE)
    if most is not None:
        command += ("MAXLEN", "~", most)
    return (*command, "*", *fields)


def _once(posting: Posting) -> Step:
    outgoing = posting.outgoing
    arguments = [outgoing.stream, _window_ms(posting), *_bounds(posting), *outgoing.fields]
    return Step(script("publish_once"), [once_key(outgoing.stream, str(posting.dedupe_id))], arguments)


def _schedule(posting: Posting) -> Step:
    outgoing = posting.outgoing
    keys = list(schedule_keys(outgoing.stream))
    marker = None if posting.dedupe_id is None else once_key(outgoing.stream, posting.dedupe_id)
    head = json.dumps({"max_length": outgoing.max_length, "once": marker})
    due: list[Argument] = ["delay", int(posting.delay_ms or 0)] if posting.at_ms is None else ["at", posting.at_ms]
    # By the time it was made, so that what is due at the same moment goes in the order of publishing; and nobody else makes the same.
    handle = f"scheduled-{time.time_ns():016x}-{secrets.token_hex(8)}"
    arguments: list[Argument] = [handle, *due, _window_ms(posting), head[1:], _packed(outgoing.fields)]
    return Step(script("schedule"), keys if marker is None else [*keys, marker], arguments)


def _window_ms(posting: Posting) -> int:
    return round(WINDOW / MILLISECOND) if posting.window_ms is None else posting.window_ms


def _bounds(posting: Posting) -> tuple[Any, ...]:
    most = posting.outgoing.max_length
    return int(posting.nomkstream), "" if most is None else most


def _packed(fields: Iterable[bytes]) -> bytes:
    return b"".join(b"%d:%s" % (len(value), value) for value in fields)
