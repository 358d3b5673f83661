"""What a feature of the framework tells the suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import redis

from streamworker import StreamWorker
from tests.torture.history import History, Plan, Rules, Violation

if TYPE_CHECKING:
    from tests.torture.faults.base import Fault

Invariant = Callable[[History, Rules], Iterator[Violation]]


def nothing(*_: object) -> Any:
    """What a feature has none of."""
    return {}


@dataclass(frozen=True)
class Feature:
    """One feature: what its entries are, what handles them, what must hold, and what is done to it."""

    name: str
    handlers: Callable[[StreamWorker], object] = nothing
    """Registers them, in the worker's process."""
    kinds: Mapping[str, Callable[[float, Random], Plan]] = field(default_factory=dict)
    """Kinds of entries for a fault's `mix`, each with its plan by lease and chance."""
    fields: Callable[[int, Plan], Mapping[str, str]] = nothing
    """What entries of these kinds have beyond the usual fields, by number and plan, such as `_type` or a key."""
    collect: Callable[[redis.Redis], Sequence[Any]] = nothing
    """What lies on the server when all is done; the history has it as `collected[name]`."""
    invariants: tuple[Invariant, ...] = ()
    """Checked in every run, not in those of its own faults alone."""
    faults: tuple[Fault, ...] = ()
