"""Middleware around a handler, and what it does not hand on: that a call has not ended, and what the handler returned."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from streamworker.batching import BatchContext
from streamworker.delivery import Outgoing, Succeeded
from streamworker.effects import take_over
from streamworker.handlers import CallNext, Context, Middleware


@dataclass(slots=True, eq=False)
class Watched(Context):
    """A context that goes through middleware, or to a thread.

    `unended` is how often `call_next` was called and what it stands for has not ended; `returned` is what the handler has returned, or
    where it ran in a process of its own, `reply` what that has made of it.
    """

    unended: int = field(default=0, init=False, repr=False)
    returned: Any = field(default=None, init=False, repr=False)
    reply: Outgoing | None = field(default=None, init=False, repr=False)

    def take(self, told: Succeeded) -> None:
        """Take over what a handler in a process of its own has asked for, as if it had been asked here."""
        self.reply = next((outgoing for outgoing in told.publishes if outgoing.is_reply), None)
        gathered = [] if self._publishes is None else self._publishes
        self._publishes = gathered + [outgoing for outgoing in told.publishes if not outgoing.is_reply]
        if told.writes:
            take_over(self.transaction, told.writes)


@dataclass(slots=True, eq=False)
class WatchedBatch(BatchContext):
    """The same for a batch, which takes what is returned itself."""

    unended: int = field(default=0, init=False, repr=False)


WATCHED = (Watched, WatchedBatch)


def wrap(inner: CallNext, middleware: Middleware) -> CallNext:
    """`inner` with a middleware around it."""

    async def enter(context: Any) -> None:
        try:
            await inner(context)
        finally:
            if isinstance(context, WATCHED):
                context.unended -= 1

    def call_next(context: Any) -> Coroutine[Any, Any, None]:
        if isinstance(context, WATCHED):
            context.unended += 1
        return enter(context)

    async def call(context: Any) -> None:
        await middleware(context, call_next)

    return call


def is_unended(context: object) -> bool:
    """Whether a middleware has called `call_next` and not awaited its end."""
    return isinstance(context, WATCHED) and context.unended > 0


def note_returned(context: Context | BatchContext, returned: Any) -> None:
    """Keep what the handler has returned, which middleware does not hand on."""
    if isinstance(context, BatchContext):
        context.take_returned(returned)
    elif isinstance(context, Watched):
        context.returned = returned
