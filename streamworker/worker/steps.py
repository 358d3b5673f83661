"""Drives a handler's coroutine by hand, in a context of its own, so that its first step needs no task of its own."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, TypeAlias

import structlog

from streamworker.delivery import Delivery

Ended: TypeAlias = tuple[Any, BaseException | None]
"""What a function in a thread returned, or what it raised."""


def _variable(name: str) -> contextvars.ContextVar[Any]:
    """The context variable in which structlog keeps a fact of this name."""
    return contextvars.copy_context().run(structlog.contextvars.bind_contextvars, **{name: None})[name].var


_ENTRY_ID, _ATTEMPT = _variable("entry_id"), _variable("attempt")


def first_step(work: Coroutine[Any, Any, Any], delivery: Delivery) -> Any:
    """Run `work` until it waits for something, in the delivery's own context; raises `StopIteration` when it has ended."""
    _ENTRY_ID.set(delivery.id)
    if delivery.history.attempt > 1:
        _ATTEMPT.set(delivery.history.attempt)
    return work.send(None)


@coroutine
def rest(step: Callable[..., Any], work: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """Wait for what `work` waits for, and go on with it by `step`, which runs it in its context, until it ends; gives what it returns."""
    try:
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:  # noqa: BLE001  # whatever it is, it is meant for the handler
                waits_for = step(work.throw, error)
            else:
                waits_for = step(work.send, sent)
    except StopIteration as end:
        return end.value


async def awaited(work: Any) -> Any:
    """What is no coroutine, but can be awaited, as one."""
    return await work


def run_to_end(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Ended:
    """Call it, in its thread. A future cannot carry every exception: a StopIteration would leave its waiter waiting for ever."""
    try:
        return function(*arguments), None
    except BaseException as error:  # noqa: BLE001  # raised again in the task that waits
        return None, error
