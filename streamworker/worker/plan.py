"""What the parts of a consumer are made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from streamworker.policies import DeadLetterPolicy, RetryPolicy
from streamworker.streams.connections import Endpoint
from streamworker.worker.bindings import Binding
from streamworker.worker.budget import ByteBudget
from streamworker.worker.ceiling import Ceiling
from streamworker.worker.isolation import Isolation


@dataclass(frozen=True, slots=True)
class Plan:
    """What a consumer is made from. `retry` and `dead_letter` apply where no handler's own do: to entries of unknown type.

    `isolation`, `budget` and `ceiling`, where there is one, are shared by all consumers of the process. `give_up` ends it, with the
    reason, where going on would do harm. `named` says that a user has given the consumer its name.
    """

    endpoint: Endpoint
    group: str
    consumer: str
    bindings: Sequence[Binding]
    limits: Mapping[str, int]
    lease: timedelta
    retry: RetryPolicy
    dead_letter: DeadLetterPolicy
    isolation: Isolation
    budget: ByteBudget
    give_up: Callable[[str], None]
    named: bool = False
    ceiling: Ceiling | None = None
