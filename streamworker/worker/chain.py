"""Middleware around a handler, and the account of calls that a middleware has begun and not awaited."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from streamworker.batching import BatchContext
from streamworker.handlers import CallNext, Context, Middleware


@dataclass(slots=True, eq=False)
class WatchedContext(Context):
    """A context that goes through middleware; `unentered` is how often `call_next` was called and not awaited, so that nothing has run."""

    unentered: int = field(default=0, init=False, repr=False)


@dataclass(slots=True, eq=False)
class WatchedBatchContext(BatchContext):
    """The same for a batch."""

    unentered: int = field(default=0, init=False, repr=False)


WATCHED = (WatchedContext, WatchedBatchContext)


def wrap(inner: CallNext, middleware: Middleware) -> CallNext:
    """`inner` with a middleware around it."""

    async def enter(context: Any) -> None:
        if isinstance(context, WATCHED):
            context.unentered -= 1
        await inner(context)

    def call_next(context: Any) -> Coroutine[Any, Any, None]:
        if isinstance(context, WATCHED):
            context.unentered += 1
        return enter(context)

    async def call(context: Any) -> None:
        await middleware(context, call_next)

    return call


def is_unentered(context: object) -> bool:
    """Whether a middleware has called `call_next` and not awaited it."""
    return isinstance(context, WATCHED) and context.unentered > 0
