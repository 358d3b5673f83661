"""A program with handlers in processes of their own, which do what an entry says."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel

from streamworker import Backoff, Context, Idempotency, Reject, Retry, RetryPolicy, Snooze, StreamWorker

LEDGER = Path(os.environ.get("LEDGER", "."))
LEASE = timedelta(milliseconds=int(os.environ.get("LEASE_MS", "1000")))


class Work(BaseModel):
    number: int
    does: str = "succeed"


class HopelessError(Exception):
    """One of those that are given up on."""


def note(event: str, **facts: Any) -> None:
    """Write a line that outlives this process; pipes and logs would not."""
    line = json.dumps({"event": event, "at": time.time(), "pid": os.getpid(), **facts})
    with (LEDGER / f"{os.getpid()}.jsonl").open("a") as file:
        file.write(f"{line}\n")


@asynccontextmanager
async def lifespan(app: StreamWorker) -> AsyncIterator[Mapping[str, Any]]:
    note("began")
    yield {"pid": os.getpid()}
    note("ended")


app = StreamWorker(
    group="billing",
    lease=LEASE,
    lifespan=lifespan,
    retry=RetryPolicy(max_attempts=3, backoff=Backoff.constant(timedelta(milliseconds=20)), give_up_on=HopelessError),
)


def wait_for_ever(work: Work) -> NoReturn:
    while True:
        time.sleep(0.05)


def hold_the_interpreter(work: Work) -> None:
    ctypes.PyDLL(None).sleep(60)


def start_a_program(work: Work) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as program:
        note("program", program=program.pid)


def die(work: Work) -> None:
    ctypes.string_at(0)


def fail(work: Work) -> NoReturn:
    raise ValueError(f"number {work.number} is odd")


def give_up(work: Work) -> NoReturn:
    raise HopelessError("for good")


def reject(work: Work) -> NoReturn:
    raise Reject("not this one")


def retry(work: Work) -> NoReturn:
    raise Retry("later", after=timedelta(milliseconds=30))


def snooze(work: Work) -> None:
    if not (LEDGER / f"snoozed-{work.number}").exists():
        (LEDGER / f"snoozed-{work.number}").touch()
        raise Snooze("not yet", after=timedelta(milliseconds=30))


WAYS = {
    "succeed": lambda work: None,
    "sleep": lambda work: time.sleep(0.2),
    "hang": wait_for_ever,
    "hold": hold_the_interpreter,
    "program": start_a_program,
    "die": die,
    "exit": lambda work: os._exit(3),
    "leave": lambda work: sys.exit(3),
    "fail": fail,
    "give up": give_up,
    "reject": reject,
    "retry": retry,
    "snooze": snooze,
    "print": lambda work: print(f"printed {work.number}"),
}


@app.handler("images", executor="process", concurrency=3)
def scale(work: Work, ctx: Context) -> str:
    note("started", number=work.number, attempt=ctx.delivery.attempt, crashes=ctx.delivery.crashes, state=ctx.state["pid"])
    ctx.log.info("scale.logged", number=work.number)
    WAYS[work.does](work)
    ctx.publish("{images}:scaled", {"number": work.number})
    ctx.transaction.incrby("{images}:count")
    note("done", number=work.number)
    return f"scaled {work.number}"


@app.handler("timed", executor="process", concurrency=1, timeout=timedelta(milliseconds=500))
def scale_in_time(work: Work, ctx: Context) -> None:
    note("started", number=work.number, attempt=ctx.delivery.attempt, deadline=str(ctx.deadline))
    WAYS[work.does](work)
    note("done", number=work.number)


@app.handler(
    "once", executor="process", concurrency=1, idempotency=Idempotency(timedelta(minutes=1), key=lambda work: str(work.number))
)
def scale_once(work: Work) -> None:
    note("done", number=work.number)


@app.handler("{line}:ordered", executor="process", concurrency=2, ordering_key="number")
def scale_in_order(work: Work, ctx: Context) -> None:
    note("started", number=work.number, attempt=ctx.delivery.attempt, crashes=ctx.delivery.crashes)
    WAYS[work.does](work)
    note("done", number=work.number)
