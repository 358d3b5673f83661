"""A handler at work, and what all runs of one handler have in common."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeAlias

from streamworker.batching import BatchContext
from streamworker.delivery import Delivery, Interruption
from streamworker.handlers import CallNext, Context, Handler

AnyContext: TypeAlias = Context | BatchContext


class Prepared:
    """What the runs of one handler have in common: its chain, if it needs one, and for each stream what its log lines know."""

    __slots__ = ("chain", "contexts", "handler", "timeout")

    def __init__(self, handler: Handler, chain: CallNext | None) -> None:
        self.handler: Handler = handler
        self.chain: CallNext | None = chain
        self.timeout: float | None = None if handler.timeout is None else handler.timeout.total_seconds()
        self.contexts: dict[str, contextvars.Context] = {}


@dataclass(slots=True, eq=False)
class Run:
    """A handler that has started and waits for something: `Executor.finish` awaits its end.

    `under` is by what it is known: the lease of its entry, or the batch. `delivery` is `None` where it is a batch's.
    """

    under: object
    delivery: Delivery | None
    prepared: Prepared
    context: AnyContext | None
    variables: contextvars.Context
    work: Coroutine[Any, Any, Any]
    waits_for: Any
    task: asyncio.Task[Any] | None = None
    stopped: Interruption | None = None
    timed_out: bool = False
    steps: Any = None
    """Who has begun it, and must not go before it has ended."""
