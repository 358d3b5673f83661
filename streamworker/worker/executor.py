"""Runs user code and says what happened. Knows no Redis: a delivery goes in, an outcome comes out.

The only place where everything that user code may raise is caught, `SystemExit` and the like included: a handler cannot end the worker.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from typing import Any, TypeAlias

import structlog

from streamworker.delivery import Delivery, Failed, Interrupted, Interruption, Lease, Malformed, Outcome, Succeeded
from streamworker.errors import DecodeError, HandlerTimeout
from streamworker.handlers import CallNext, Context, Handler, HandlerFunction, Middleware, Publish, deadline_of
from streamworker.worker.waiting import happens_within

_Ended: TypeAlias = tuple[Any, BaseException | None]
"""What a function in a thread returned, or what it raised."""


@dataclass(slots=True, eq=False)
class _Run:
    """A handler that runs: the task it runs in, and why we stopped it, if we did."""

    task: asyncio.Task[Any]
    stopped: Interruption | None = None
    called: int = 0
    entered: int = 0

    @property
    def was_skipped(self) -> bool:
        """Whether a middleware has called `call_next` without awaiting it, so that what it stands for has not run."""
        return self.called > self.entered


class Executor:
    """Decodes, calls middleware and handler, keeps the timeout. `threads` is how many plain functions may run at once."""

    def __init__(self, middleware: Sequence[Middleware], state: Mapping[str, Any], publish: Publish, threads: int) -> None:
        self._middleware = tuple(middleware)
        self._state = state
        self._publish = publish
        self._chains: dict[str, CallNext] = {}
        self._running: dict[int, _Run] = {}
        self._threads = ThreadPoolExecutor(max(1, threads), thread_name_prefix="streamworker-handler")
        self._occupied: dict[int, asyncio.Event] = {}
        self._waits_for_none = False

    async def run(self, delivery: Delivery, handler: Handler) -> Outcome:
        """What happened when `handler` was given `delivery`. Never raises, except for a cancellation that is not ours."""
        if delivery.lease.lost:
            return Interrupted(Interruption.LEASE_LOST)
        try:
            body = handler.decode(delivery.fields)
        except DecodeError as error:
            return Malformed(error)
        except BaseException as error:  # noqa: BLE001  # a codec of the user's own may break its promise; that must not end the worker
            return Failed(error)
        context = Context(delivery, handler, body, self._state, deadline_of(handler), self._publish)
        return await self._guarded(context)

    def interrupt(self, lease: Lease, why: Interruption) -> bool:
        """Stop the handler that runs under this lease; false when none does. A thread cannot be stopped, only left alone."""
        run = self._running.get(id(lease))
        if run is None or run.stopped is not None:
            return False
        run.stopped = why
        run.task.cancel()
        return True

    def overstays(self, delivery: Delivery) -> bool:
        """Whether the delivery has its outcome while its thread still runs."""
        return id(delivery.lease) in self._occupied and not self._waits_for_none

    async def vacated(self, delivery: Delivery, within: timedelta) -> bool:
        """Wait until the delivery's thread, if it has one, has really ended: until then its place is taken. False when it has not."""
        occupied = self._occupied.get(id(delivery.lease))
        if occupied is None or self._waits_for_none:
            return True
        return await happens_within(occupied, within.total_seconds())

    @property
    def overdue(self) -> int:
        """How many threads still run though their deliveries have an outcome."""
        return sum(number not in self._running for number in self._occupied)

    def wait_for_no_thread(self) -> None:
        """From now on, threads whose entries are settled are left alone: nobody needs their places any more."""
        self._waits_for_none = True
        for occupied in self._occupied.values():
            occupied.set()

    def shut_down(self) -> None:
        """Start no thread any more, and wait for none."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _guarded(self, context: Context) -> Outcome:
        lease = context.delivery.lease
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a handler runs in a task")
        run = self._running[id(lease)] = _Run(task)
        try:
            await self._timed(context)
        except asyncio.CancelledError as error:
            if run.stopped is not None:
                return Interrupted(run.stopped)
            if task.cancelling():
                raise
            return Failed(error)
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            # What it made of our cancellation is not its failure, and must not cost an attempt.
            return Failed(error) if run.stopped is None else Interrupted(run.stopped)
        finally:
            del self._running[id(lease)]
            if run.stopped is not None:
                task.uncancel()
        if run.was_skipped:
            return Failed(RuntimeError("a middleware has called call_next without awaiting it: write `await call_next(ctx)`"))
        return Succeeded(context.publishes)

    async def _timed(self, context: Context) -> None:
        chain = self._chain(context.handler)
        timeout = context.handler.timeout
        if timeout is None:
            await chain(context)
            return
        scope = asyncio.timeout(timeout.total_seconds())
        try:
            async with scope:
                await chain(context)
        except TimeoutError as error:
            if scope.expired():
                raise HandlerTimeout(f"{context.handler.name} ran longer than {timeout}") from error
            raise

    def _chain(self, handler: Handler) -> CallNext:
        """Middleware around the handler, the first registered outermost; built once."""
        chain = self._chains.get(handler.name)
        if chain is None:
            innermost: CallNext = self._call_async if handler.executor == "async" else self._call_in_thread
            chain = self._chains[handler.name] = reduce(self._wrap, reversed(self._middleware), innermost)
        return chain

    def _wrap(self, inner: CallNext, middleware: Middleware) -> CallNext:
        async def enter(context: Context) -> None:
            self._running[id(context.delivery.lease)].entered += 1
            await inner(context)

        def call_next(context: Context) -> Coroutine[Any, Any, None]:
            self._running[id(context.delivery.lease)].called += 1
            return enter(context)

        async def call(context: Context) -> None:
            await middleware(context, call_next)

        return call

    async def _call_async(self, context: Context) -> None:
        _bind_log_context(context)
        await context.handler.function(*_arguments(context))

    async def _call_in_thread(self, context: Context) -> None:
        _bind_log_context(context)
        loop = asyncio.get_running_loop()
        occupied = self._occupied[id(context.delivery.lease)] = asyncio.Event()
        inside = contextvars.copy_context()
        future: Future[_Ended] = self._threads.submit(inside.run, _run_to_end, context.handler.function, _arguments(context))

        def vacate(_: Future[_Ended]) -> None:
            # The loop is closed when the process ended without waiting for this thread; then nobody asks any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._vacate, id(context.delivery.lease), occupied)

        future.add_done_callback(vacate)
        returned, error = await asyncio.wrap_future(future)
        if error is not None:
            raise error
        if inspect.isawaitable(returned):
            # A plain function around an async one: what it returned is the work itself, and unawaited it would count as done.
            await returned

    def _vacate(self, number: int, occupied: asyncio.Event) -> None:
        self._occupied.pop(number, None)
        occupied.set()


def _run_to_end(function: HandlerFunction, arguments: tuple[Any, ...]) -> _Ended:
    """Call it, in its thread. A future cannot carry every exception: a StopIteration would leave its waiter waiting for ever."""
    try:
        return function(*arguments), None
    except BaseException as error:  # noqa: BLE001  # raised again in the task that waits
        return None, error


def _arguments(context: Context) -> tuple[Any, ...]:
    return (context.body, context) if context.handler.wants_context else (context.body,)


def _bind_log_context(context: Context) -> None:
    """The user's own log lines carry the delivery too; each delivery is a task, so its context ends with it."""
    delivery = context.delivery
    structlog.contextvars.bind_contextvars(
        stream=delivery.stream,
        group=delivery.group,
        entry_id=delivery.id,
        handler=context.handler.name,
        attempt=delivery.attempt,
    )
