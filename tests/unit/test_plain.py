"""A plain handler runs through a lot as it would run on each entry alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from typing import Any

import structlog

from streamworker.delivery import Failed, Malformed
from streamworker.worker.lots import Lot
from streamworker.worker.plain import Waits, run_through
from streamworker.worker.steps import Returned
from tests.factories import a_handler, an_executor

BLUE: ContextVar[str | None] = ContextVar("BLUE", default=None)


def through(function: Callable[..., Any], *numbers: object, until: float = 60.0, **changes: Any) -> tuple[int, Any, Lot]:
    """Let it run on entries that hold these numbers: how far it came, what it told, and the lot."""
    handler, executor = a_handler(function, **changes), an_executor()
    try:
        entries = [[b"%d-0" % at, [b"number", str(number).encode()]] for at, number in enumerate(numbers)]
        lot = Lot("orders", "billing", "me", handler, entries, 0.0)
        task = asyncio.current_task()
        assert task is not None
        stop, told = run_through(lot, executor.prepared(handler, "orders", "billing"), task, perf_counter() + until)
        return stop, told, lot
    finally:
        executor.shut_down()


async def test_all_run_in_order_and_each_knows_its_own_entry() -> None:
    """In its log lines, and nothing that another one has left."""
    seen = []

    async def handle(body: dict[str, int]) -> None:
        seen.append((body["number"], BLUE.get(), structlog.contextvars.get_contextvars()["entry_id"]))
        BLUE.set("set")

    assert (3, None) == through(handle, 5, 6, 7)[:2]
    assert [(5, None, "0-0"), (6, None, "1-0"), (7, None, "2-0")] == seen
    assert BLUE.get() is None


async def test_it_stops_at_what_fails_is_malformed_returns_something_or_waits() -> None:
    """And says which one, and what."""
    boom = RuntimeError("boom")

    async def handle(body: dict[str, int]) -> Any:
        if body["number"] == 2:
            raise boom
        if body["number"] == 3:
            await asyncio.sleep(0)
        return "four" if body["number"] == 4 else None

    assert (1, Failed(boom)) == through(handle, 1, 2, 1)[:2]
    assert (2, Returned("four")) == through(handle, 1, 1, 4, 1)[:2]
    stop, told, lot = through(handle, 3, 1)
    assert (0, None, 1) == (stop, told.waits_for, lot.at)
    assert isinstance(told, Waits)
    told.work.close()
    stop, told, _ = through(handle, 1, "x")
    assert (1, True) == (stop, isinstance(told, Malformed))


async def test_what_waits_goes_on_by_itself() -> None:
    """After the one that has begun it has gone on to others, too."""
    future = asyncio.get_running_loop().create_future()

    async def handle(body: dict[str, int]) -> None:
        await future

    told = through(handle, 1)[1]
    future.set_result(None)
    try:
        told.variables.run(told.work.send, None)
    except StopIteration:
        return
    raise AssertionError("it should have ended")


async def test_it_stops_when_its_time_is_over() -> None:
    """After the one that overran it."""

    async def handle(body: dict[str, int]) -> None:
        return None

    stop, told, lot = through(handle, 1, 2, 3, until=0.0)

    assert (1, None, True) == (stop, told, lot.has_more)


async def test_who_asks_for_an_answer_is_not_passed_over() -> None:
    """Though the handler has returned nothing."""

    async def handle(body: dict[str, int]) -> None:
        return None

    executor, handler = an_executor(), a_handler(handle, answers=True)
    task = asyncio.current_task()
    assert task is not None
    lot = Lot("orders", "billing", "me", handler, [[b"1-0", [b"number", b"1", b"_reply_to", b"me"]]], 0.0)

    assert (0, Returned(None)) == run_through(lot, executor.prepared(handler, "orders", "billing"), task, perf_counter() + 60)
    executor.shut_down()


async def test_an_awaitable_that_is_no_coroutine_is_awaited() -> None:
    """As everywhere else."""

    class Ready:
        def __await__(self) -> Any:
            return iter(())

    assert (2, None) == through(lambda body: Ready(), 1, 2, executor="async", body_type=dict[str, int])[:2]
