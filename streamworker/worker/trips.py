"""A delivery on its way through the worker."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, TypeAlias

from streamworker.delivery import Delivery, History, Outcome
from streamworker.handlers import Handler


class Ticket(NamedTuple):
    """A delivery's key, and its place in the line of that key: its entry's id as a pair of numbers."""

    key: Hashable
    place: tuple[int, int]


class Again(NamedTuple):
    """When a delivery that stays is to be tried again, and with which history."""

    after: timedelta
    history: History


@dataclass(slots=True, eq=False)
class Trip:
    """A delivery, the handler that takes it (`None`: nobody does), and the outcome that stands before any user code runs, if one does.

    `lane` is the handler's line in which it has a place. Without one it takes room beside the lanes, because no handler will see it, or
    because it runs alone. `began` is when it started (`perf_counter`), without the time that it waited to be alone. `has_left` says that
    its place is free again. `ticket` is set where its handler has an ordering key, and `again` where it has to be tried again in its place.
    """

    delivery: Delivery
    handler: Handler | None
    foregone: Outcome | None = None
    lane: str | None = None
    began: float = 0.0
    has_left: bool = False
    ticket: Ticket | None = None
    again: Again | None = None

    @property
    def reaches_a_handler(self) -> bool:
        """Whether user code is to see it."""
        return self.handler is not None and self.foregone is None


Start: TypeAlias = Callable[[Trip], None]
