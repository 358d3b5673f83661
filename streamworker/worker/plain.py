"""Runs a plain handler on the entries of a lot, one after another: each in a context of its own, and nothing else done for each."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from time import perf_counter
from types import CoroutineType
from typing import Any, NamedTuple

from streamworker.codecs.replies import ASKS
from streamworker.delivery import Failed, Malformed, Outcome
from streamworker.errors import DecodeError
from streamworker.worker.lots import Lot
from streamworker.worker.runs import Prepared
from streamworker.worker.steps import NOTHING_RETURNED, Returned, awaited, steps


class Waits(NamedTuple):
    """What a handler has begun and waits for."""

    variables: contextvars.Context
    work: Coroutine[Any, Any, Any]
    waits_for: Any
    steps: Any


def run_through(
    lot: Lot, prepared: Prepared, task: asyncio.Task[Any], until: float
) -> tuple[int, Outcome | Returned | Waits | None]:
    """Run the handler on one entry after another, until all have begun, until that time (`perf_counter`), or until `task` is cancelled.

    Answers the position after the last one that simply succeeded; and of the one at that position what happened to it, what it returned
    or what it waits for, where it has begun. Never raises.
    """
    handler, entries, end = lot.handler, lot.entries, len(lot.entries)
    decode, function, answers = handler.decode, handler.function, handler.answers
    copy = prepared.contexts[lot.key].copy
    driver = steps()
    send = driver.send
    stop, now = lot.at, perf_counter()
    while (at := lot.at) < end:
        lot.at, lot.began = at + 1, now
        entry_id, fields = entries[at]
        try:
            body = decode(fields)
        except DecodeError as error:
            return at, Malformed(error)
        except BaseException as error:  # noqa: BLE001  # a codec of the user's own may break its promise; that must not end the worker
            return at, Failed(error)
        variables = copy()
        try:
            work = function(body)
            if type(work) is not CoroutineType:
                work = awaited(work)
            told = variables.run(send, (work, entry_id))
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            return at, Failed(error)
        if told is not NOTHING_RETURNED or (answers and ASKS in fields):
            return at, told if isinstance(told, Returned) else Waits(variables, work, told, driver)
        stop, now = at + 1, perf_counter()
        if now > until or task.cancelling():
            break
    return stop, None
