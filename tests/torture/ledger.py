"""What handlers note: a line for each start and end, in a file of their process's own, in the folder that `TORTURE_LEDGER` names."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol

from pydantic import BaseModel

from streamworker import Context, Delivery, Snooze


class Work(BaseModel):
    """An entry, as `load.fields_of` writes it. A feature whose entries have more fields derives from it."""

    number: int
    kind: str = "ok"
    seconds: float = 0.0
    failures: int = 0
    payload: str = ""


class HasDelivery(Protocol):
    """A context, or what stands for it."""

    @property
    def delivery(self) -> Delivery: ...


def note(event: str, work: Work, ctx: HasDelivery, worker: int | None = None) -> None:
    """One line, written at once and whole, so that a SIGKILL loses none; in the file of the `worker`, where this is not its process."""
    line = {
        "event": event,
        "at": time.monotonic_ns(),
        "number": work.number,
        "id": ctx.delivery.id,
        "attempt": ctx.delivery.attempt,
        "crashes": ctx.delivery.crashes,
        "consumer": ctx.delivery.consumer,
    }
    os.write(_file(os.getpid() if worker is None else worker), (json.dumps(line) + "\n").encode())


@contextmanager
def noted(work: Work, ctx: Context, worker: int | None = None) -> Iterator[None]:
    """Note the start and the end of a handler, whatever the end is."""
    note("started", work, ctx, worker)
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        note("failed" if task is None or not task.cancelling() else "cancelled", work, ctx, worker)
        raise
    except Snooze:
        note("snoozed", work, ctx, worker)
        raise
    except BaseException:
        note("failed", work, ctx, worker)
        raise
    note("done", work, ctx, worker)


@cache
def _file(pid: int) -> int:
    """By process, so that a child that a worker forks or spawns has its own."""
    return os.open(f"{os.environ['TORTURE_LEDGER']}/{pid}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
