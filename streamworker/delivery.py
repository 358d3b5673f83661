"""The values that travel through a worker: deliveries, outcomes, verdicts. Imports nothing of ours but what an entry and a write are.

What happened (`Outcome`), what should be done (`Verdict`) and doing it (`worker/settlement.py`) are three things in three rooms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, TypeAlias, TypedDict

from streamworker.effects import Write
from streamworker.entries import Entry as Entry
from streamworker.entries import Fields as Fields
from streamworker.entries import read_headers


class Outgoing(NamedTuple):
    """An entry that is to be written: where to, its fields, and the length to trim the stream to (`None`: not at all).

    A reply (`is_reply`) goes only to a stream that is there, whose length is bounded anyway.
    """

    stream: str
    fields: Fields
    max_length: int | None = None
    is_reply: bool = False


class PublishOptions(TypedDict, total=False):
    """What can be said about an entry beside its body.

    `type` names the kind of entry (`_type`), `headers` become further fields, `key` is the ordering key (`_key`). `max_length` trims the
    stream to about so many entries as this one is added (XADD MAXLEN ~); without it nothing is trimmed.
    """

    type: str | None
    headers: Mapping[str, str] | None
    key: str | None
    max_length: int | None


@dataclass(slots=True)
class Lease:
    """How long a pending entry is ours: the stream it is pending in, and the fencing token (consumer name, turn).

    `turn` is odd while the entry may be running, and even while it waits to be run alone; `outstayed` is how often it has run alone for
    so long that others had to start beside it; `failed` is how many attempts have failed in its place, where its key's order keeps it.

    `renewed_at` is the monotonic second at which the last good renewal (or the read) was *sent*: the server's clock for this lease
    started no earlier. `of_retry` says that the entry lies in a retry stream, from which it goes when it is settled. `lost` turns true
    once, when somebody else owns the entry or the lease ran out unrenewed. `recounting` is set while a new `turn` is on its way to the
    server, so that nobody takes the difference for a loss.
    """

    key: str
    entry_id: str
    consumer: str
    turn: int
    renewed_at: float
    of_retry: bool = False
    lost: bool = False
    recounting: bool = False
    outstayed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """What an entry has been through before this delivery; it travels in the envelope of a waiting retry.

    `crashes` are the deliveries that ended without a verdict because their worker died; `crashes_alone` those of them in which nothing
    else ran beside the entry, so that it was the entry's doing. `suspect` says that it has not run to an end since the last one.
    """

    attempt: int = 1
    crashes: int = 0
    crashes_alone: int = 0
    suspect: bool = False
    misrouted: int = 0
    first_failed_at: datetime | None = None
    last_error: str | None = None


@dataclass(slots=True)
class Delivery:
    """One handing of an entry to a worker: entry + stream + group + attempt + lease.

    `id` is the id of the *original* entry and the same on every attempt, so it serves as an idempotency key.
    `attempt` starts at 1; `crashes` counts earlier deliveries that ended without any verdict. Treat it as frozen: it is not only because
    a worker makes many of them.
    """

    id: str
    stream: str
    group: str
    consumer: str
    fields: Fields = field(repr=False)
    history: History
    lease: Lease = field(repr=False)
    size: int = field(repr=False)
    _headers: Mapping[str, str] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def headers(self) -> Mapping[str, str]:
        """The entry's headers by their name without its leading underscore; read when first asked for, because most are not."""
        if self._headers is None:
            self._headers = read_headers(self.fields)
        return self._headers

    @property
    def attempt(self) -> int:
        """How often a handler has been started for this entry with a counted end, this time included; starts at 1."""
        return self.history.attempt

    @property
    def crashes(self) -> int:
        """How many deliveries of this entry ended without any verdict because their worker died."""
        return self.history.crashes

    @property
    def key(self) -> str | None:
        """The ordering key the publisher gave (`_key`), if any."""
        return self.headers.get("key")

    @property
    def published_at(self) -> datetime:
        """When the entry was added, by the server's clock: the millisecond in front of its id."""
        return datetime.fromtimestamp(int(self.id.partition("-")[0]) / 1000, tz=UTC)


# ---- what happened ----------------------------------------------------------------------------------------------------------


class Interruption(StrEnum):
    """Why we stopped a handler, or did not start it.

    `makes_room` is for an entry that must run alone; `not_alone` is said of such an entry when the others here did not end in time.
    `twin_runs`: another entry with the same idempotency key is being handled. `held_back`: nothing of its handler may start now.
    """

    DRAIN = "drain"
    NO_ROOM = "no_room"
    LEASE_LOST = "lease_lost"
    MAKES_ROOM = "makes_room"
    NOT_ALONE = "not_alone"
    TWIN_RUNS = "twin_runs"
    HELD_BACK = "held_back"


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned; `publishes` is what it asked to publish, `writes` what else it asked to write."""

    publishes: tuple[Outgoing, ...] = ()
    writes: tuple[Write, ...] = ()


SUCCEEDED = Succeeded()
"""By far the most frequent outcome, made once."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised, or ran out of time (`HandlerTimeout`)."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Malformed:
    """The entry's fields do not fit the handler's type; no user code ran."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Unroutable:
    """No handler here takes entries of this type; `known` are the types that some handler takes."""

    type: str | None
    known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Crashed:
    """The entry came back because its worker died; no user code ran yet this time."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """We stopped the handler, or never started it. `after` is how long what is held back waits; `None`: until somebody reads it."""

    why: Interruption
    after: timedelta | None = None


Outcome: TypeAlias = Succeeded | Failed | Malformed | Unroutable | Crashed | Interrupted


# ---- what should be done ----------------------------------------------------------------------------------------------------


class Reason(StrEnum):
    """Why an entry became a dead letter (`_dlq_reason`)."""

    MALFORMED = "malformed"
    REJECTED = "rejected"
    UNRETRYABLE = "unretryable"
    EXHAUSTED = "exhausted"
    CRASHED = "crashed"
    UNROUTABLE = "unroutable"


@dataclass(frozen=True, slots=True)
class Ack:
    """Done: acknowledge, and commit `publishes` and `writes` with the acknowledgement."""

    publishes: tuple[Outgoing, ...] = ()
    writes: tuple[Write, ...] = ()


ACK = Ack()
"""By far the most frequent verdict, made once."""


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Wait for `after`, then deliver again with `history`."""

    after: timedelta
    history: History
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Give the entry back at once, uncounted."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Set the entry aside with its reason; `crashes`, where this delivery has added to them."""

    reason: Reason
    error: BaseException | None = None
    crashes: int | None = None


@dataclass(frozen=True, slots=True)
class Abandon:
    """Do nothing: the entry is no longer ours."""


Verdict: TypeAlias = Ack | RetryLater | Release | DeadLetter | Abandon
