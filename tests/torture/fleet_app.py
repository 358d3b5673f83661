"""The application that the torture runs as real processes: handlers that go well and wrong in every way, and those of the features.

What a handler does is said by the entry itself. `TORTURE_LEDGER` names the folder of the ledger, `TORTURE_LEASE_MS` shortens the lease,
`TORTURE_VERSION` is "new" for an application that knows one type more and makes more attempts.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from streamworker import Backoff, Context, Reject, RetryPolicy, Snooze, StreamWorker
from tests.torture import features
from tests.torture.history import NEW_ATTEMPTS, OLD_ATTEMPTS
from tests.torture.ledger import Work, noted

HANG_TIMEOUT = timedelta(milliseconds=400)
SNOOZE_UNTIL = timedelta(milliseconds=300)
IS_NEW = os.environ.get("TORTURE_VERSION") == "new"


class Unsayable(Exception):
    """An error that cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Rude(BaseException):
    """An error that no `except Exception` catches."""


app = StreamWorker(
    group="billing",
    lease=timedelta(milliseconds=int(os.environ.get("TORTURE_LEASE_MS", "1000"))),
    retry=RetryPolicy(max_attempts=NEW_ATTEMPTS if IS_NEW else OLD_ATTEMPTS, backoff=Backoff.constant(timedelta(milliseconds=100))),
)


@app.handler("orders")
async def work(body: Work, ctx: Context) -> None:
    with noted(body, ctx):
        if body.kind in POISONS:
            await asyncio.sleep(body.seconds)
            POISONS[body.kind]()
        if body.kind == "block":
            time.sleep(body.seconds)  # noqa: ASYNC251  # the mistake that a lease must survive
        else:
            await asyncio.sleep(body.seconds)
        if body.kind == "snooze" and datetime.now(UTC) < ctx.delivery.published_at + SNOOZE_UNTIL:
            raise Snooze(after=timedelta(milliseconds=100))
        if body.kind == "reject":
            raise Reject("no")
        if ctx.delivery.attempt <= body.failures:
            RAISED.get(body.kind, raise_value_error)()


@app.handler("orders", type="hang", timeout=HANG_TIMEOUT)
async def hang(body: Work, ctx: Context) -> None:
    with noted(body, ctx):
        await asyncio.sleep(3600 if ctx.delivery.attempt <= body.failures else 0)


@app.handler("orders", type="thread")
def in_a_thread(body: Work, ctx: Context) -> None:
    with noted(body, ctx):
        time.sleep(body.seconds)
        if ctx.delivery.attempt <= body.failures:
            RAISED.get(body.kind, raise_value_error)()


if IS_NEW:

    @app.handler("orders", type="new")
    async def only_the_new_one_knows(body: Work, ctx: Context) -> None:
        with noted(body, ctx):
            await asyncio.sleep(body.seconds)


for feature in features.everything():
    feature.handlers(app)


# ---- what entries do --------------------------------------------------------------------------------------------------------


def raise_value_error() -> NoReturn:
    raise ValueError("no")


def raise_rude() -> NoReturn:
    raise Rude("no")


def raise_system_exit() -> NoReturn:
    raise SystemExit(3)


def raise_keyboard_interrupt() -> NoReturn:
    raise KeyboardInterrupt


def raise_generator_exit() -> NoReturn:
    raise GeneratorExit


def raise_stop_iteration() -> NoReturn:
    raise StopAsyncIteration


def raise_group() -> NoReturn:
    raise BaseExceptionGroup("two", [SystemExit(1), ValueError("no")])


def raise_cancelled() -> NoReturn:
    raise asyncio.CancelledError


def raise_unsayable() -> NoReturn:
    raise Unsayable


def recurse() -> NoReturn:
    sys.setrecursionlimit(1000)

    def down() -> None:
        down()

    down()
    raise AssertionError("not reached")


def use_up_memory() -> NoReturn:
    bytearray(1 << 62)
    raise AssertionError("not reached")


RAISED: dict[str, Callable[[], NoReturn]] = {
    "base-exception": raise_rude,
    "system-exit": raise_system_exit,
    "keyboard-interrupt": raise_keyboard_interrupt,
    "generator-exit": raise_generator_exit,
    "stop-iteration": raise_stop_iteration,
    "exception-group": raise_group,
    "own-cancel": raise_cancelled,
    "recursion": recurse,
    "memory": use_up_memory,
    "unsayable": raise_unsayable,
}

POISONS: dict[str, Callable[[], object]] = {
    "poison-exit": lambda: os._exit(66),
    "poison-kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "poison-segfault": lambda: ctypes.string_at(0),
}
