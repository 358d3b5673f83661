"""What can be said about an entry that is to be published, checked before anything is sent. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from streamworker.delivery import Outgoing, PublishOptions
from streamworker.errors import EncodeError, SetupError

LONGEST_DELAY = timedelta(days=3660)
LONGEST_WINDOW = timedelta(days=366)
WINDOW = timedelta(seconds=100)
"""How long a dedupe id is remembered unless told: what Redis itself remembers where it does so (stream-idmp-duration)."""

LARGEST_VALUE = 512 * 2**20
"""What a server takes at most in one value, unless it is configured otherwise (proto-max-bulk-len)."""

MOST_VALUES = 7_000
"""Names and values of an entry that a script writes: what Lua can unpack, less some room."""

MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Durability:
    """What must be true before a publish counts as done: so many replicas have it, or it is on the primary's disk (`fsync`) and on theirs.

    `timeout` is how long to wait for that; then `NotConfirmed` is raised, and the entry is written all the same.
    """

    replicas: int = 0
    fsync: bool = False
    timeout: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        if isinstance(self.replicas, bool) or not isinstance(self.replicas, int) or not 0 <= self.replicas <= 1_000:
            raise SetupError(f"Durability(replicas=…) is a whole number from 0 to 1,000, not {self.replicas!r}")
        if not isinstance(self.fsync, bool):
            raise SetupError(f"Durability(fsync=…) is True or False, not {self.fsync!r}")
        if self.replicas == 0 and not self.fsync:
            raise SetupError("Durability() asks for nothing: say replicas=1, or fsync=True")
        if not isinstance(self.timeout, timedelta) or not MILLISECOND <= self.timeout <= timedelta(hours=1):
            raise SetupError(f"Durability(timeout=…) is a timedelta from a millisecond to an hour, not {self.timeout!r}")

    @property
    def timeout_ms(self) -> int:
        """The timeout for the server."""
        return round(self.timeout / MILLISECOND)

    @property
    def words(self) -> str:
        """What is asked for, for a sentence."""
        replicas = "" if self.replicas == 0 else f"{self.replicas} replica{'' if self.replicas == 1 else 's'}"
        return " and ".join(part for part in ("the disk" if self.fsync else "", replicas) if part)


class SendOptions(PublishOptions, total=False):
    """What can be said about an entry that is published by itself, beside `PublishOptions`.

    `delay` or `at` (with a time zone) is when it is to be added to its stream. `dedupe_id` is written once only within
    `dedupe_window` (without one: what the server remembers by itself, or 100 s). `nomkstream` refuses where there is no such stream.
    `durability` waits until the write is safe.
    """

    delay: timedelta | None
    at: datetime | None
    dedupe_id: str | None
    dedupe_window: timedelta | None
    nomkstream: bool
    durability: Durability | None


class Posting(NamedTuple):
    """An entry on its way to its stream, and how it is to be written. `window_ms` is `None` where the server's own window will do."""

    outgoing: Outgoing
    nomkstream: bool = False
    delay_ms: int | None = None
    at_ms: int | None = None
    dedupe_id: str | None = None
    window_ms: int | None = None
    durability: Durability | None = None

    @property
    def is_scheduled(self) -> bool:
        """Whether it waits for its time."""
        return self.delay_ms is not None or self.at_ms is not None

    @property
    def is_plain(self) -> bool:
        """Whether one XADD that any server knows will do."""
        return self.dedupe_id is None and self.delay_ms is None and self.at_ms is None


class Posts:
    """How the entries of one call are to be written: its options, checked once. Raises `EncodeError`."""

    def __init__(
        self,
        *,
        delay: timedelta | None = None,
        at: datetime | None = None,
        dedupe_id: str | None = None,
        dedupe_window: timedelta | None = None,
        nomkstream: bool = False,
        durability: Durability | None = None,
    ) -> None:
        if dedupe_window is not None and dedupe_id is None:
            raise EncodeError("dedupe_window says how long a dedupe_id is remembered: give the dedupe_id too")
        if not isinstance(nomkstream, bool):
            raise EncodeError(f"nomkstream is True or False, not {nomkstream!r}")
        if nomkstream and (delay is not None or at is not None):
            raise EncodeError("nomkstream looks for the stream now, and the entry is added later: leave it out, or delay and at")
        if durability is not None and not isinstance(durability, Durability):
            raise EncodeError("durability is a Durability, such as Durability(replicas=1)")
        self._post = Posting(
            Outgoing("", []),
            nomkstream=nomkstream,
            delay_ms=_delay_ms(delay, at),
            at_ms=_at_ms(at),
            window_ms=_window_ms(dedupe_window),
            durability=durability,
        )
        self._dedupe_id = None if dedupe_id is None else checked_id(dedupe_id)

    def of(self, outgoing: Outgoing, dedupe_id: str | None = None) -> Posting:
        """How this entry is to be written."""
        if self is PLAIN:
            return check_size(Posting(outgoing))
        whose = self._dedupe_id if dedupe_id is None else checked_id(dedupe_id)
        posting = self._post._replace(outgoing=outgoing, dedupe_id=whose)
        if not posting.is_plain and len(outgoing.fields) > MOST_VALUES:
            raise EncodeError(f"an entry of more than {MOST_VALUES // 2} fields cannot be published with delay, at or dedupe_id")
        return check_size(posting)


def split(options: SendOptions) -> tuple[PublishOptions, dict[str, Any]]:
    """What belongs to the entry, and what to the way it is written."""
    ways = {name: value for name, value in options.items() if name in _WAYS}
    entry = {name: value for name, value in options.items() if name not in _WAYS}
    return entry, ways  # type: ignore[return-value]  # mypy cannot tell which keys are left


def chunks(weights: Sequence[int], *, most: int, most_bytes: int) -> Iterator[range]:
    """The positions of each write, in order: at most so many entries and bytes, and at least one entry; `weights` are their bytes."""
    start = size = 0
    for position, weight in enumerate(weights):
        if position > start and (position - start >= most or size + weight > most_bytes):
            yield range(start, position)
            start, size = position, 0
        size += weight
    if start < len(weights):
        yield range(start, len(weights))


def weights_of(postings: Iterable[Posting]) -> list[int]:
    """The bytes of these."""
    return [sum(map(len, posting.outgoing.fields)) for posting in postings]


def checked_id(dedupe_id: object) -> str:
    """The dedupe id, which is text that is not too long. Raises `EncodeError`."""
    if not isinstance(dedupe_id, str) or not dedupe_id or len(dedupe_id) > 1_000:
        raise EncodeError("a dedupe_id is a text of 1 to 1,000 characters that names what is published, such as 'order-7-paid'")
    try:
        dedupe_id.encode()
    except UnicodeEncodeError:
        raise EncodeError("the dedupe_id holds half a surrogate pair, which is not text") from None
    return dedupe_id


def check_size(posting: Posting) -> Posting:
    """The posting, unless it is larger than any server takes. Raises `EncodeError`."""
    fields = posting.outgoing.fields
    largest = max(map(len, fields))
    if posting.is_scheduled:
        largest = sum(map(len, fields)) + 32 * len(fields)
    if largest > LARGEST_VALUE:
        raise EncodeError(f"a value of {largest:,} bytes is more than Redis takes: store it elsewhere, and publish where it is")
    return posting


_WAYS = frozenset(SendOptions.__annotations__) - frozenset(PublishOptions.__annotations__)


def _delay_ms(delay: object, at: object) -> int | None:
    if delay is None:
        return None
    if at is not None:
        raise EncodeError("delay and at say two times: leave one out")
    if not isinstance(delay, timedelta) or not timedelta(0) <= delay <= LONGEST_DELAY:
        raise EncodeError(f"delay is a timedelta from 0 to ten years, for example timedelta(minutes=5), not {delay!r}")
    return round(delay / MILLISECOND)


def _at_ms(at: object) -> int | None:
    if at is None:
        return None
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise EncodeError(f"at is a datetime with a time zone, such as datetime.now(UTC) + timedelta(hours=1), not {at!r}")
    return max(0, round(at.timestamp() * 1000))


def _window_ms(window: object) -> int | None:
    if window is None:
        return None
    if not isinstance(window, timedelta) or not timedelta(seconds=1) <= window <= LONGEST_WINDOW:
        raise EncodeError(f"dedupe_window is a timedelta from a second to a year, not {window!r}")
    return round(window / MILLISECOND)


PLAIN = Posts()
"""Nothing said: one XADD, now."""
