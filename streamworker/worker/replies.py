"""What comes of a handler that has ended, and what whoever has asked by an entry is told."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from streamworker.batching import BatchContext
from streamworker.codecs.replies import ASKS, write_failure, write_reply
from streamworker.delivery import SUCCEEDED, Delivery, Failed, Interrupted, Interruption, Outcome, Outgoing, Reason, Succeeded
from streamworker.effects import Write
from streamworker.errors import HandlerTimeout
from streamworker.handlers import Context, Handler
from streamworker.streams.keys import reply_key
from streamworker.worker.chain import Watched, is_unended


def succeeded(delivery: Delivery | None, handler: Handler, context: Context | BatchContext | None, returned: Any) -> Outcome:
    """Success, with what was published, and with what the handler has returned as the reply where the entry asks for one.

    A batch has no `delivery`: what it publishes belongs to its entries, and it answers nobody.
    """
    if is_unended(context):
        return Failed(RuntimeError("a middleware has called call_next without awaiting its end: write `await call_next(ctx)`"))
    if delivery is None or isinstance(context, BatchContext):
        return SUCCEEDED
    publishes: tuple[Outgoing, ...] = ()
    writes: tuple[Write, ...] = ()
    if context is not None:
        publishes, writes = context.publishes, context.writes
    if isinstance(context, Watched):
        returned = context.returned
        publishes = publishes if context.reply is None else (*publishes, context.reply)
    if inspect.isgenerator(returned) or inspect.isasyncgen(returned) or inspect.iscoroutine(returned):
        if not inspect.isasyncgen(returned):
            returned.close()
        return Failed(
            TypeError(f"{handler.name} has returned a {type(returned).__name__}, which has not run: await it, or loop over it")
        )
    # A handler in a process of its own has written its reply there.
    if handler.answers and handler.executor != "process" and ASKS in delivery.fields:
        try:
            reply = write_reply(delivery, reply_key(delivery.stream, ""), handler.codec, returned)
        except Exception as error:  # noqa: BLE001  # a codec of the user's own may raise anything
            return Failed(error)
        publishes = publishes if reply is None else (*publishes, reply)
    return Succeeded(publishes, writes) if publishes or writes else SUCCEEDED


def stopped(handler: Handler, why: Interruption | None, error: asyncio.CancelledError) -> Outcome:
    """The outcome of a run that our cancellation has ended: interrupted, or without a `why`, too long."""
    if why is not None:
        return Interrupted(why)
    timeout = HandlerTimeout(f"{handler.name} ran longer than {handler.timeout}")
    timeout.__cause__ = error
    return Failed(timeout)


def failed(delivery: Delivery, reason: Reason, error: str | None) -> Outgoing | None:
    """The reply to a request that is set aside, if the entry is one."""
    return write_failure(delivery, reply_key(delivery.stream, ""), reason, error)
