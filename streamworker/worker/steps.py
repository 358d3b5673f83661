"""Drives a handler's coroutine by hand, in a context of its own, so that its first step needs no task of its own."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, NamedTuple, cast

import structlog

from streamworker.delivery import Delivery


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


class Returned(NamedTuple):
    """What a coroutine has returned, in place of what it waits for."""

    value: Any


NOTHING_RETURNED = Returned(None)


def steps() -> Generator[Any, Any, Any]:
    """Runs coroutines one after another: each is sent here, in the context in which it is to run, with the id of its entry.

    Gives what it has returned, or, other than a `Returned`, what it waits for; then it goes on by itself (`rest`), and this one must stay
    as long. Raises what it raises, and is over with that. An exception for each that ends would cost more than most of them need.
    """
    driver = cast("Generator[Any, Any, Any]", _steps())
    driver.send(None)
    return driver


@coroutine
def _steps() -> Generator[Any, Any, Any]:
    ended = NOTHING_RETURNED
    while True:
        work, entry_id = yield ended
        _ENTRY_ID.set(entry_id.decode())
        value = yield from work
        ended = NOTHING_RETURNED if value is None else Returned(value)


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
