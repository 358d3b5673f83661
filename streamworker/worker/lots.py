"""New entries that came together and are run one after another, under one lease, as long as none of them has to wait for anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from streamworker.delivery import Lease
from streamworker.handlers import Handler


@dataclass(slots=True, eq=False)
class Lot:
    """New entries of one stream, all for one handler, as they came in one reply.

    In `entries` an id with its fields is one that waits or runs, a mere id one that has ended well and waits for its acknowledgement, and
    `None` one that has gone: acknowledged, or under a lease of its own. `at` is the first that has not begun, `left` how many are held
    here, `counted` how many of them in their lane. `leases` are set once each entry has a lease of its own, by its id. `began` is when
    the last one that ran has begun.
    """

    key: str
    group: str
    consumer: str
    handler: Handler
    entries: list[Any]
    renewed_at: float
    at: int = 0
    began: float = 0.0
    leases: dict[bytes, Lease] | None = None
    left: int = field(init=False)
    counted: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.counted = len(self.entries)
        self.size = size_of_all(self.entries)

    @property
    def has_more(self) -> bool:
        """Whether one of them has not begun."""
        return self.at < len(self.entries)

    def end(self, first: int, stop: int) -> int:
        """Those from `first` on have ended well: only their ids are kept. Answers the bytes that are free by that."""
        ended = self.entries[first:stop]
        size = self.size if stop - first == len(self.entries) else size_of_all(ended)
        self.entries[first:stop] = [entry[0] for entry in ended]
        return size

    def lease_of(self, entry_id: bytes) -> Lease:
        """A lease for this one alone."""
        return Lease(self.key, entry_id.decode(), self.consumer, 1, self.renewed_at)


class Done(NamedTuple):
    """A part of a lot that is to be acknowledged."""

    lot: Lot
    first: int
    stop: int

    @property
    def ids(self) -> list[bytes]:
        """Of its entries."""
        return self.lot.entries[self.first : self.stop]


def size_of_all(entries: Sequence[Any]) -> int:
    """The bytes of their names and values."""
    return sum([len(b"".join(fields)) for _, fields in entries])


def is_plain(handler: Handler) -> bool:
    """Whether a handler takes nothing but the body, and nothing has to be done around it."""
    special = (handler.key_of, handler.batch, handler.idempotency, handler.rate_limit, handler.kill_switch)
    return handler.executor == "async" and not handler.wants_context and all(one is None for one in special)
