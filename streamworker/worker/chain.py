"""Middleware around a handler, and what it does not hand on: that a call was begun and not awaited, and what the handler returned."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from streamworker.batching import BatchContext
from streamworker.handlers import CallNext, Context, Middleware


@dataclass(slots=True, eq=False)
class Watched(Context):
    """A context that goes through middleware, or to a thread.

    `unentered` is how often `call_next` was called and not awaited, so that nothing has run; `returned` is what the handler has returned.
    """

    unentered: int = field(default=0, init=False, repr=False)
    returned: Any = field(default=None, init=False, repr=False)


@dataclass(slots=True, eq=False)
class WatchedBatch(BatchContext):
    """The same for a batch, which takes what is returned itself."""

    unentered: int = field(default=0, init=False, repr=False)


WATCHED = (Watched, WatchedBatch)


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


def note_returned(context: Context | BatchContext, returned: Any) -> None:
    """Keep what the handler has returned, which middleware does not hand on."""
    if isinstance(context, BatchContext):
        context.take_returned(returned)
    elif isinstance(context, Watched):
        context.returned = returned
