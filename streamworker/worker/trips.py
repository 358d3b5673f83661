"""A delivery on its way through the worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from streamworker.delivery import Delivery, Outcome
from streamworker.handlers import Handler


@dataclass(slots=True, eq=False)
class Trip:
    """A delivery, the handler that takes it (`None`: nobody does), and the outcome that stands before any user code runs, if one does.

    `lane` is the handler's line in which it has a place. Without one it takes room beside the lanes, because no handler will see it, or
    because it runs alone. `began` is when it started (`perf_counter`), without the time that it waited to be alone. `has_left` says that
    its place is free again.
    """

    delivery: Delivery
    handler: Handler | None
    foregone: Outcome | None = None
    lane: str | None = None
    began: float = 0.0
    has_left: bool = False

    @property
    def reaches_a_handler(self) -> bool:
        """Whether user code is to see it."""
        return self.handler is not None and self.foregone is None


@dataclass(slots=True, eq=False)
class BatchedTrip(Trip):
    """A trip that is made in a batch, and by itself from there on where that is needed; `ran_for` is how long the batch took."""

    ran_for: float = 0.0


Start: TypeAlias = Callable[[Trip], None]
