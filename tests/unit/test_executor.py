"""User code runs, whatever it does, and one outcome comes of it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from typing import Any

import pytest
import structlog
from pydantic import BaseModel

from streamworker.delivery import Delivery, Failed, Fields, Interrupted, Interruption, Malformed, Outcome, Outgoing, Succeeded
from streamworker.errors import DecodeError, EncodeError, HandlerTimeout
from streamworker.handlers import CallNext, Context, Handler
from streamworker.worker.executor import Executor
from tests.factories import AN_ENTRY_ID, LoopTime, a_delivery, a_handler, a_lease, an_executor

A_MILLISECOND = timedelta(milliseconds=1)


class Order(BaseModel):
    order_id: int


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.fixture
def executor() -> Iterator[Executor]:
    executor = an_executor(state={"pay": "client"})
    yield executor
    executor.shut_down()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a handler in a thread waits for; opened at the end, so that no thread outlives its test."""
    gate = threading.Event()
    yield gate
    gate.set()


async def _trip(executor: Executor, delivery: Delivery, handler: Handler) -> Outcome:
    """Run as a worker does, in a task of its own, and see that the task is sound afterwards."""
    outcome = await executor.run(delivery, handler)

    task = asyncio.current_task()
    assert task is not None
    assert 0 == task.cancelling()
    await asyncio.sleep(0)
    return outcome


def _both(function: Callable[..., None]) -> list[Handler]:
    """The function as a handler in a thread, and as one on the loop."""

    @wraps(function)
    async def on_the_loop(*arguments: Any) -> None:
        function(*arguments)

    return [a_handler(function), a_handler(on_the_loop)]


def _hanging(gate: threading.Event) -> tuple[asyncio.Event, Callable[[dict[str, str]], None]]:
    """A function that holds its thread until the gate opens, and the event that says that it does."""
    loop, started = asyncio.get_running_loop(), asyncio.Event()

    def hang(body: dict[str, str]) -> None:
        loop.call_soon_threadsafe(started.set)
        gate.wait()

    return started, hang


# ---- what a handler is given ---------------------------------------------------------------------------------------------------


async def test_a_handler_is_given_the_body_and_the_context(executor: Executor) -> None:
    """On the loop and in a thread alike."""
    given: list[Any] = []

    def take(order: Order, ctx: Context) -> None:
        given.append((order, ctx.delivery, ctx.state["pay"], ctx.deadline, ctx.lease_lost))

    for handler in _both(take):
        delivery = a_delivery()

        assert Succeeded() == await executor.run(delivery, handler)
        assert (Order(order_id=7), delivery, "client", None, False) == given.pop()


async def test_a_handler_that_wants_no_context_gets_none(executor: Executor) -> None:
    """It is called with the body alone."""
    given: list[Order] = []

    def take(order: Order) -> None:
        given.append(order)

    for handler in _both(take):
        assert Succeeded() == await executor.run(a_delivery(), handler)

    assert [Order(order_id=7)] * 2 == given


async def test_a_plain_function_runs_in_a_thread(executor: Executor) -> None:
    """The loop goes on meanwhile; an async one runs on it."""
    names: list[str] = []

    def note(body: dict[str, str]) -> None:
        names.append(threading.current_thread().name)

    for handler in _both(note):
        await executor.run(a_delivery(), handler)

    assert names[0].startswith("streamworker-handler")
    assert threading.current_thread().name == names[1]


async def test_a_plain_function_around_an_async_one_is_run_to_its_end(executor: Executor) -> None:
    """What it returns is the work; left unawaited, the entry would count as done."""
    done: list[str] = []

    async def work(body: dict[str, str]) -> None:
        await asyncio.sleep(0)
        done.append(body["order_id"])

    @wraps(work)
    def logged(*arguments: Any) -> Awaitable[None]:
        return work(*arguments)

    for function in (logged, partial(logged)):
        assert Succeeded() == await executor.run(a_delivery(), a_handler(function))

    assert ["7", "7"] == done


async def test_the_deadline_is_now_and_the_timeout(executor: Executor) -> None:
    """So a handler can tell how much time it has."""
    deadlines: list[datetime | None] = []

    async def note(body: dict[str, str], ctx: Context) -> None:
        deadlines.append(ctx.deadline)

    before = datetime.now(UTC)
    await executor.run(a_delivery(), a_handler(note, timeout=timedelta(hours=1)))

    [deadline] = deadlines
    assert deadline is not None
    assert before + timedelta(hours=1) <= deadline <= datetime.now(UTC) + timedelta(hours=1)


async def test_the_users_log_lines_know_the_delivery(executor: Executor) -> None:
    """In the handler, and in nothing that runs beside it."""
    known: list[dict[str, Any]] = []

    def look(body: dict[str, str]) -> None:
        known.append(structlog.contextvars.get_contextvars())

    for handler in _both(look):
        await asyncio.create_task(_trip(executor, a_delivery(attempt=2), handler))

        expected = {"stream": "orders", "group": "billing", "entry_id": AN_ENTRY_ID, "handler": handler.name, "attempt": 2}
        assert expected == known.pop()
    assert {} == structlog.contextvars.get_contextvars()


# ---- entries that no handler sees ----------------------------------------------------------------------------------------------


async def test_an_entry_that_does_not_fit_is_malformed(executor: Executor) -> None:
    """No user code runs."""
    called: list[Order] = []

    async def take(order: Order) -> None:
        called.append(order)

    outcome = await executor.run(a_delivery(fields=[b"order_id", b"seven"]), a_handler(take))

    assert isinstance(outcome, Malformed)
    assert isinstance(outcome.error, DecodeError)
    assert [] == called


async def test_a_codec_that_breaks_its_promise_does_not_end_the_worker(executor: Executor) -> None:
    """A codec of the user's own may raise anything."""
    error = KeyError("schema")

    def decode(fields: Fields) -> Any:
        raise error

    assert Failed(error) == await executor.run(a_delivery(), a_handler(decode=decode))


async def test_a_lease_lost_before_the_start_keeps_the_handler_from_starting(executor: Executor) -> None:
    """Somebody else has the entry by now."""
    called: list[Any] = []

    async def take(body: dict[str, str]) -> None:
        called.append(body)

    outcome = await executor.run(a_delivery(lease=a_lease(lost=True)), a_handler(take))

    assert Interrupted(Interruption.LEASE_LOST) == outcome
    assert [] == called


# ---- middleware ----------------------------------------------------------------------------------------------------------------


async def test_the_first_middleware_is_the_outermost() -> None:
    """As registered, around the handler."""
    steps: list[str] = []

    def step(name: str) -> Any:
        async def middleware(ctx: Context, call_next: CallNext) -> None:
            steps.append(f"{name} in")
            await call_next(ctx)
            steps.append(f"{name} out")

        return middleware

    def work(body: dict[str, str]) -> None:
        steps.append("handler")

    executor = an_executor(middleware=[step("first"), step("second")])
    for handler in _both(work):
        steps.clear()

        assert Succeeded() == await executor.run(a_delivery(), handler)
        assert ["first in", "second in", "handler", "second out", "first out"] == steps
    executor.shut_down()


async def test_a_middleware_may_leave_the_handler_out() -> None:
    """It has decided that the entry is done."""
    called: list[Any] = []

    async def skip(ctx: Context, call_next: CallNext) -> None:
        return

    async def take(body: dict[str, str]) -> None:
        called.append(body)

    assert Succeeded() == await an_executor(middleware=[skip]).run(a_delivery(), a_handler(take))
    assert [] == called


async def test_a_middleware_may_forgive_an_error_or_raise_its_own() -> None:
    """The outcome is what the outermost one says."""
    own = LookupError("no tenant")

    async def forgive(ctx: Context, call_next: CallNext) -> None:
        try:
            await call_next(ctx)
        except ValueError:
            ctx.log.debug("forgiven")

    async def refuse(ctx: Context, call_next: CallNext) -> None:
        raise own

    async def fail(body: dict[str, str]) -> None:
        raise ValueError("no")

    assert Succeeded() == await an_executor(middleware=[forgive]).run(a_delivery(), a_handler(fail))
    assert Failed(own) == await an_executor(middleware=[forgive, refuse]).run(a_delivery(), a_handler(fail))


async def test_a_middleware_may_start_the_handler_again() -> None:
    """And forget what the first run has published."""

    async def twice(ctx: Context, call_next: CallNext) -> None:
        await call_next(ctx)
        ctx.forget_effects()
        await call_next(ctx)

    async def publish(body: dict[str, str], ctx: Context) -> None:
        await ctx.publish("invoices", {"id": "1"})

    outcome = await an_executor(middleware=[twice]).run(a_delivery(), a_handler(publish))

    assert Succeeded((Outgoing("invoices", [b"id", b"1"]),)) == outcome


async def test_a_middleware_may_change_the_body() -> None:
    """The handler gets what the context holds."""
    given: list[Any] = []

    async def enrich(ctx: Context, call_next: CallNext) -> None:
        ctx.body = {**ctx.body, "tenant": "acme"}
        await call_next(ctx)

    async def take(body: dict[str, str]) -> None:
        given.append(body)

    await an_executor(middleware=[enrich]).run(a_delivery(), a_handler(take))

    assert [{"order_id": "7", "tenant": "acme"}] == given


async def test_the_timeout_holds_for_the_middleware_too() -> None:
    """It is part of the delivery's run."""

    async def hang(ctx: Context, call_next: CallNext) -> None:
        await asyncio.Event().wait()

    outcome = await an_executor(middleware=[hang]).run(a_delivery(), a_handler(timeout=A_MILLISECOND))

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, HandlerTimeout)


# ---- what a handler publishes --------------------------------------------------------------------------------------------------


async def test_what_is_published_waits_for_the_acknowledgement(executor: Executor) -> None:
    """In its order, with or without await."""

    async def on_the_loop(body: dict[str, str], ctx: Context) -> None:
        await ctx.publish("invoices", {"id": "1"}, max_length=9)
        ctx.publish("mails", {"id": "2"})
        assert 2 == len(ctx.publishes)

    def in_a_thread(body: dict[str, str], ctx: Context) -> None:
        ctx.publish("invoices", {"id": "1"}, max_length=9)
        ctx.publish("mails", {"id": "2"})

    expected = Succeeded((Outgoing("invoices", [b"id", b"1"], 9), Outgoing("mails", [b"id", b"2"])))
    for function in (on_the_loop, in_a_thread):
        assert expected == await executor.run(a_delivery(), a_handler(function))


async def test_a_handler_that_fails_has_published_nothing(executor: Executor) -> None:
    """What it published belongs to the acknowledgement that does not come."""
    error = ValueError("no")

    async def fail(body: dict[str, str], ctx: Context) -> None:
        await ctx.publish("invoices", {"id": "1"})
        raise error

    assert Failed(error) == await executor.run(a_delivery(), a_handler(fail))


async def test_a_body_that_cannot_be_written_fails_the_handler(executor: Executor) -> None:
    """At the line that publishes it."""

    async def publish(body: dict[str, str], ctx: Context) -> None:
        await ctx.publish("invoices", None)

    outcome = await executor.run(a_delivery(), a_handler(publish))

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, EncodeError)


# ---- failures ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        TimeoutError("the user's own"),
        HandlerTimeout("raised by hand"),
        SystemExit(1),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopAsyncIteration(),
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
        RecursionError("too deep"),
        MemoryError(),
        UnprintableError(),
        ExceptionGroup("two", [ValueError("a"), SystemError("b")]),
        BaseExceptionGroup("one", [KeyboardInterrupt()]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("limit", [None, timedelta(hours=1)], ids=["without timeout", "with timeout"])
async def test_whatever_a_handler_raises_is_a_failure(executor: Executor, error: BaseException, limit: timedelta | None) -> None:
    """It ends neither worker nor task, on the loop and in a thread."""

    def fail(body: dict[str, str]) -> None:
        raise error

    for function in (handler.function for handler in _both(fail)):
        outcome = await asyncio.create_task(_trip(executor, a_delivery(), a_handler(function, timeout=limit)))

        assert isinstance(outcome, Failed)
        assert error is outcome.error


async def test_a_stop_iteration_is_a_failure(executor: Executor) -> None:
    """Python makes a RuntimeError of one that leaves a coroutine; one from a thread must not leave its waiter waiting."""

    def fail(body: dict[str, str]) -> None:
        next(iter(()))

    for handler in _both(fail):
        outcome = await _trip(executor, a_delivery(), handler)

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, RuntimeError)
        assert isinstance(outcome.error.__cause__, StopIteration)


async def test_endless_recursion_is_a_failure(executor: Executor) -> None:
    """A real one, not only its exception."""

    def fall(body: dict[str, str]) -> None:
        fall(body)

    for handler in _both(fall):
        outcome = await _trip(executor, a_delivery(), handler)

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, RecursionError)


# ---- timeouts ------------------------------------------------------------------------------------------------------------------


async def test_a_handler_that_runs_too_long_has_timed_out(executor: Executor) -> None:
    """It is cancelled, and gets to clean up."""
    cleaned_up: list[bool] = []

    async def hang(body: dict[str, str]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(True)

    outcome = await asyncio.create_task(_trip(executor, a_delivery(), a_handler(hang, timeout=A_MILLISECOND)))

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, HandlerTimeout)
    assert "hang ran longer than 0:00:00.001000" == str(outcome.error)
    assert [True] == cleaned_up


async def test_a_timeout_inside_the_handler_is_its_own(executor: Executor) -> None:
    """It is a failure like any other, and not ours."""

    async def give_up(body: dict[str, str]) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    outcome = await _trip(executor, a_delivery(), a_handler(give_up, timeout=timedelta(hours=1)))

    assert isinstance(outcome, Failed)
    assert TimeoutError is type(outcome.error)


async def test_a_thread_past_its_timeout_keeps_its_place_until_it_ends(executor: Executor, gate: threading.Event) -> None:
    """A thread cannot be stopped, so only its end makes room for the next."""
    time, delivery = LoopTime(), a_delivery()
    started, hang = _hanging(gate)

    running = asyncio.create_task(_trip(executor, delivery, a_handler(hang, timeout=timedelta(hours=1))))
    await started.wait()
    time.advance(timedelta(hours=1))
    outcome = await running
    vacated = asyncio.create_task(executor.vacated(delivery, timedelta(hours=1)))
    await asyncio.sleep(0)

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, HandlerTimeout)
    assert not vacated.done()

    gate.set()
    await vacated


async def test_a_thread_that_has_ended_has_left_its_place(executor: Executor) -> None:
    """As has a handler that ran in none."""
    for handler in _both(lambda body: None):
        delivery = a_delivery()
        await executor.run(delivery, handler)

        await executor.vacated(delivery, timedelta(hours=1))


async def test_a_middleware_that_forgets_to_await_has_failed(executor: Executor) -> None:
    """The handler has not run, so its entry must not be acknowledged."""

    async def forgetful(context: Context, call_next: CallNext) -> None:
        call_next(context).close()  # as good as forgotten, without Python's warning about it

    outcome = await an_executor(middleware=[forgetful]).run(a_delivery(), a_handler(lambda body: None))

    assert isinstance(outcome, Failed)
    assert "await call_next(ctx)" in str(outcome.error)


async def test_threads_that_do_not_end_can_be_abandoned(executor: Executor, gate: threading.Event) -> None:
    """Nobody waits for them any longer."""
    delivery = a_delivery()
    started, hang = _hanging(gate)
    running = asyncio.create_task(_trip(executor, delivery, a_handler(hang)))
    await started.wait()
    executor.interrupt(delivery.lease, Interruption.DRAIN)
    await running
    vacated = asyncio.create_task(executor.vacated(delivery, timedelta(hours=1)))
    await asyncio.sleep(0)

    assert executor.overstays(delivery)
    assert not vacated.done()
    executor.wait_for_no_thread()
    assert await vacated
    assert not executor.overstays(delivery)


# ---- interruptions -------------------------------------------------------------------------------------------------------------


class Held:
    """A handler that has started, and waits."""

    def __init__(self, executor: Executor, function: Callable[..., Any] | None = None, **options: Any) -> None:
        self.executor = executor
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()
        self.delivery = a_delivery()
        self.handler = a_handler(self._wait if function is None else partial(function, self), **options)

    async def __aenter__(self) -> Held:
        self.outcome = asyncio.create_task(_trip(self.executor, self.delivery, self.handler))
        await self.started.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go_on.set()
        await asyncio.wait([self.outcome])

    async def _wait(self, body: dict[str, str]) -> None:
        self.started.set()
        await self.go_on.wait()


@pytest.mark.parametrize("why", list(Interruption))
@pytest.mark.parametrize("limit", [None, timedelta(hours=1)], ids=["without timeout", "with timeout"])
async def test_an_interrupted_handler_is_no_failure(executor: Executor, why: Interruption, limit: timedelta | None) -> None:
    """It is told apart by why we stopped it, and its task can still settle."""
    async with Held(executor, timeout=limit) as held:
        assert executor.interrupt(held.delivery.lease, why)

        assert Interrupted(why) == await held.outcome


async def test_only_the_first_interruption_counts(executor: Executor) -> None:
    """A second cancellation would hit the handler's clean-up."""
    async with Held(executor) as held:
        assert executor.interrupt(held.delivery.lease, Interruption.LEASE_LOST)
        assert not executor.interrupt(held.delivery.lease, Interruption.DRAIN)

        assert Interrupted(Interruption.LEASE_LOST) == await held.outcome


async def test_what_does_not_run_cannot_be_interrupted(executor: Executor) -> None:
    """Neither before nor after."""
    delivery = a_delivery()

    assert not executor.interrupt(delivery.lease, Interruption.DRAIN)
    await executor.run(delivery, a_handler())
    assert not executor.interrupt(delivery.lease, Interruption.DRAIN)


async def test_one_interruption_leaves_the_others_alone(executor: Executor) -> None:
    """Two deliveries of one handler have two leases."""
    async with Held(executor) as one, Held(executor) as other:
        executor.interrupt(one.delivery.lease, Interruption.DRAIN)
        other.go_on.set()

        assert Interrupted(Interruption.DRAIN) == await one.outcome
        assert Succeeded() == await other.outcome


async def test_a_handler_that_swallows_the_cancellation_and_returns_has_succeeded(executor: Executor) -> None:
    """It says that it is done; its task is not left cancelling."""

    async def finish_anyway(held: Held, body: dict[str, str]) -> None:
        held.started.set()
        try:
            await held.go_on.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    async with Held(executor, finish_anyway) as held:
        executor.interrupt(held.delivery.lease, Interruption.DRAIN)

        assert Succeeded() == await held.outcome


@pytest.mark.parametrize("why", [Interruption.DRAIN, Interruption.LEASE_LOST])
async def test_a_handler_that_makes_an_error_of_the_cancellation_is_interrupted(executor: Executor, why: Interruption) -> None:
    """Or a drain would cost it an attempt, perhaps the last."""

    async def translate(held: Held, body: dict[str, str]) -> None:
        held.started.set()
        try:
            await held.go_on.wait()
        except asyncio.CancelledError:
            raise ConnectionError("request aborted") from None

    async with Held(executor, translate) as held:
        executor.interrupt(held.delivery.lease, why)

        assert Interrupted(why) == await held.outcome


async def test_a_cancellation_that_is_not_ours_passes_through(executor: Executor) -> None:
    """The task's parent wants it to end."""
    async with Held(executor) as held:
        held.outcome.cancel()

        with pytest.raises(asyncio.CancelledError):
            await held.outcome


async def test_an_interrupted_thread_is_left_alone_but_keeps_its_place(executor: Executor, gate: threading.Event) -> None:
    """The outcome comes at once, the place with the thread's end."""
    delivery = a_delivery()
    started, hang = _hanging(gate)
    outcome = asyncio.create_task(_trip(executor, delivery, a_handler(hang)))
    await started.wait()

    assert executor.interrupt(delivery.lease, Interruption.LEASE_LOST)
    assert Interrupted(Interruption.LEASE_LOST) == await outcome
    vacated = asyncio.create_task(executor.vacated(delivery, timedelta(hours=1)))
    await asyncio.sleep(0)
    assert not vacated.done()

    gate.set()
    await vacated


@pytest.fixture
async def narrow() -> AsyncIterator[Executor]:
    """An executor with one thread."""
    executor = an_executor(threads=1)
    yield executor
    executor.shut_down()


async def test_a_call_that_still_waits_for_a_thread_never_starts(narrow: Executor, gate: threading.Event) -> None:
    """Interrupted while queued, its function is not called, and it holds no place."""
    loop, started = asyncio.get_running_loop(), asyncio.Event()
    called: list[str] = []

    def hang(body: dict[str, str]) -> None:
        called.append(body["order_id"])
        loop.call_soon_threadsafe(started.set)
        gate.wait()

    first, second = a_delivery(), a_delivery(fields=[b"order_id", b"8"])
    running = asyncio.create_task(_trip(narrow, first, a_handler(hang)))
    await started.wait()
    queued = asyncio.create_task(_trip(narrow, second, a_handler(hang)))
    await asyncio.sleep(0)

    assert narrow.interrupt(second.lease, Interruption.DRAIN)
    assert Interrupted(Interruption.DRAIN) == await queued
    await narrow.vacated(second, timedelta(hours=1))

    gate.set()
    assert Succeeded() == await running
    assert ["7"] == called


# ---- what is no plain coroutine ------------------------------------------------------------------------------------------------


async def test_a_stop_iteration_of_the_call_itself_is_a_failure(executor: Executor) -> None:
    """Nothing has run, so it must not look like an end."""

    def call(body: dict[str, str]) -> Awaitable[None]:
        return next(iter(()))

    handler = replace(a_handler(call), executor="async")
    outcome = await executor.run(a_delivery(), handler)

    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, StopIteration)


async def test_whatever_can_be_awaited_is_awaited(executor: Executor) -> None:
    """A future, or an object of the user's own."""
    done: list[str] = []

    class Later:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            done.append("later")

    def futures(body: dict[str, str]) -> Awaitable[None]:
        return asyncio.ensure_future(asyncio.sleep(0))

    for function in (lambda body: Later(), futures):
        assert Succeeded() == await executor.run(a_delivery(), replace(a_handler(function), executor="async"))
    assert ["later"] == done


async def test_what_returns_a_generator_or_a_coroutine_has_not_run(executor: Executor) -> None:
    """In a thread and on the loop: acknowledged, it would never run."""

    def generator(body: dict[str, str]) -> Any:
        return (number for number in range(3))

    async def coroutine(body: dict[str, str]) -> Any:
        return asyncio.sleep(0)

    for function in (generator, coroutine):
        outcome = await executor.run(a_delivery(), a_handler(function))

        assert isinstance(outcome, Failed)
        assert "which has not run" in str(outcome.error)


async def test_a_middleware_that_does_not_wait_for_the_end_has_failed() -> None:
    """The handler still runs, and may fail: its entry must not be acknowledged."""
    gate, tasks = asyncio.Event(), list[asyncio.Task[None]]()

    async def impatient(context: Context, call_next: CallNext) -> None:
        tasks.append(asyncio.ensure_future(call_next(context)))
        await asyncio.wait(tasks, timeout=0.001)

    async def slow(body: dict[str, str]) -> None:
        await gate.wait()

    outcome = await an_executor(middleware=[impatient]).run(a_delivery(), a_handler(slow))
    gate.set()
    await asyncio.gather(*tasks)

    assert isinstance(outcome, Failed)
    assert "await call_next(ctx)" in str(outcome.error)
