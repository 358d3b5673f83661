"""Runs user code and says what happened. Knows no Redis: a delivery goes in, an outcome comes out.

The only place where everything that user code may raise is caught, `SystemExit` and the like included: a handler cannot end the worker.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial, reduce
from typing import Any

import structlog

from streamworker.batching import BatchContext
from streamworker.delivery import SUCCEEDED, Delivery, Failed, Interrupted, Interruption, Malformed, Outcome
from streamworker.errors import DecodeError
from streamworker.handlers import CallNext, Context, Handler, Middleware, Publish
from streamworker.worker.chain import Watched, note_returned, wrap
from streamworker.worker.processes import Processes
from streamworker.worker.replies import stopped, succeeded
from streamworker.worker.runs import AnyContext, Prepared, Run
from streamworker.worker.steps import awaited, first_step, rest
from streamworker.worker.threads import Threads
from streamworker.worker.timeouts import Timeouts
from streamworker.worker.waiting import happens_within


class Executor:
    """Decodes, calls middleware and handler, keeps the timeout. `threads` is how many plain functions may run at once."""

    def __init__(
        self,
        middleware: Sequence[Middleware],
        state: Mapping[str, Any],
        publish: Publish,
        threads: int,
        processes: Processes | None = None,
    ) -> None:
        self._middleware = tuple(middleware)
        self.state: Mapping[str, Any] = state
        self.publish: Publish = publish
        self._variables = contextvars.copy_context()
        self._prepared: dict[str, Prepared] = {}
        self._running: dict[int, Run] = {}
        self._timeouts: Timeouts[Run] = Timeouts(self._time_is_over)
        self._threads = Threads(threads)
        self._processes = processes
        self._occupied: dict[int, asyncio.Event] = {}
        self._waits_for_none = False

    async def run(self, delivery: Delivery, handler: Handler) -> Outcome:
        """What happened when `handler` was given `delivery`. Never raises, except for a cancellation that is not ours."""
        begun = self.begin(delivery, handler)
        return await self.finish(begun) if isinstance(begun, Run) else begun

    def begin(self, delivery: Delivery, handler: Handler) -> Outcome | Run:
        """Start `handler`, in the running task; what happened, or, where it waits for something, the run that has begun. Never raises."""
        if delivery.lease.lost:
            return Interrupted(Interruption.LEASE_LOST)
        try:
            body = handler.decode(delivery.fields)
        except DecodeError as error:
            return Malformed(error)
        except BaseException as error:  # noqa: BLE001  # a codec of the user's own may break its promise; that must not end the worker
            return Failed(error)
        prepared = self._prepared.get(handler.name) or self._prepare(handler)
        variables = (prepared.contexts.get(delivery.stream) or self._know_stream(prepared, delivery.stream, delivery.group)).copy()
        context = None
        try:
            if prepared.chain is None and not handler.wants_context:
                plain = handler.executor == "async"
                work = handler.function(body) if plain else self._in_thread(id(delivery.lease), handler.function, (body,))
            else:
                context = (Context if prepared.chain is None else Watched)(delivery, handler, body, self.state, self.publish)
                work = handler.function(body, context) if prepared.chain is None else prepared.chain(context)
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            return Failed(error)
        if not hasattr(work, "send"):
            work = awaited(work)
        try:
            waits_for = variables.run(first_step, work, delivery)
        except StopIteration as end:
            simple = context is None and not handler.answers and end.value is None
            return SUCCEEDED if simple else succeeded(delivery, handler, context, end.value)
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            return Failed(error)
        return Run(delivery.lease, delivery, prepared, context, variables, work, waits_for)

    def begin_batch(self, context: BatchContext) -> Outcome | Run:
        """As `begin`, for entries that were decoded already."""
        handler = context.handler
        prepared = self._prepared.get(handler.name) or self._prepare(handler)
        if prepared.chain is None:
            raise TypeError(f"{handler.name} takes no batches")
        # Its entries may be of several streams, so its log lines know none.
        variables = (prepared.contexts.get("") or self._know(prepared, "", group=handler.group)).copy()
        try:
            work = prepared.chain(context)
            return Run(context.under, None, prepared, context, variables, work, variables.run(work.send, None))
        except StopIteration:
            return succeeded(None, handler, context, None)
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            return Failed(error)

    async def finish(self, run: Run) -> Outcome:
        """What happened in the end, awaited in the task in which the run has begun. Raises a cancellation that is not ours."""
        run.task = task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a handler runs in a task")
        number, timeout = id(run.under), run.prepared.timeout
        self._running[number] = run
        try:
            if timeout is not None:
                self._timeouts.watch(run, timeout)
            waits_for, run.waits_for = run.waits_for, None
            returned = await rest(run.variables.run, run.work, waits_for)
        except asyncio.CancelledError as error:
            if run.stopped is None and not run.timed_out:
                if task.cancelling():
                    raise
                return Failed(error)
            return stopped(run.prepared.handler, run.stopped, error)
        except BaseException as error:  # noqa: BLE001  # whatever user code raises is an outcome
            # What it made of our cancellation is not its failure, and must not cost an attempt.
            return Failed(error) if run.stopped is None else Interrupted(run.stopped)
        finally:
            del self._running[number]
            if timeout is not None:
                self._timeouts.forget(run, timeout)
            if run.stopped is not None or run.timed_out:
                task.uncancel()
        return succeeded(run.delivery, run.prepared.handler, run.context, returned)

    def interrupt(self, under: object, why: Interruption) -> bool:
        """Stop the handler that runs under this lease, or for this batch; false when none does. A thread can only be left alone."""
        run = self._running.get(id(under))
        if run is None or run.stopped is not None:
            return False
        run.stopped = why
        if not run.timed_out:
            _cancel(run)
        return True

    def interrupt_all(self, why: Interruption) -> int:
        """Stop every handler that runs; answers how many were stopped by that."""
        return sum(self.interrupt(run.under, why) for run in list(self._running.values()))

    def overstays(self, under: object) -> bool:
        """Whether the delivery of this lease, or this batch, has its outcome while its thread still runs."""
        return id(under) in self._occupied and not self._waits_for_none

    async def vacated(self, under: object, within: timedelta) -> bool:
        """Wait until the thread, if there is one, has really ended: until then its place is taken. False when it has not."""
        occupied = self._occupied.get(id(under))
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
        self._threads.shut_down()

    def prepared(self, handler: Handler, stream: str, group: str) -> Prepared:
        """What the runs of a handler have in common, with the variables that those on this stream begin with."""
        prepared = self._prepared.get(handler.name) or self._prepare(handler)
        if stream not in prepared.contexts:
            self._know_stream(prepared, stream, group)
        return prepared

    def _prepare(self, handler: Handler) -> Prepared:
        chain = None
        plain = handler.executor == "async" or (handler.executor == "thread" and not handler.wants_context)
        if self._middleware or not plain or handler.batch is not None:
            ways: Mapping[str, CallNext] = {
                "async": self._call_async,
                "thread": self._call_in_thread,
                "process": self._call_in_process,
            }
            innermost = ways[handler.executor]
            # The first registered is the outermost.
            chain = reduce(wrap, reversed(self._middleware), innermost)
        prepared = self._prepared[handler.name] = Prepared(handler, chain)
        return prepared

    def _know_stream(self, prepared: Prepared, stream: str, group: str) -> contextvars.Context:
        return self._know(prepared, stream, stream=stream, group=group, attempt=1)

    def _know(self, prepared: Prepared, name: str, **facts: Any) -> contextvars.Context:
        """The context variables that all runs of a handler on one stream begin with; the user's own log lines carry the delivery too."""
        variables = prepared.contexts[name] = self._variables.copy()
        variables.run(structlog.contextvars.bind_contextvars, **facts, handler=prepared.handler.name)
        return variables

    def _time_is_over(self, run: Run) -> None:
        if run.stopped is None:
            run.timed_out = True
            _cancel(run)

    async def _call_async(self, context: AnyContext) -> None:
        note_returned(context, await context.handler.function(*_arguments(context)))

    async def _call_in_thread(self, context: AnyContext) -> None:
        number = id(context.delivery.lease) if isinstance(context, Context) else id(context.under)
        note_returned(context, await self._in_thread(number, context.handler.function, _arguments(context)))

    async def _in_thread(self, number: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        occupied = self._occupied[number] = asyncio.Event()
        returned, error = await self._threads.call(partial(self._vacate, number, occupied), function, arguments)
        if error is not None:
            raise error
        # A plain function around an async one: what it returned is the work itself, and unawaited it would count as done.
        return await returned if inspect.isawaitable(returned) else returned

    async def _call_in_process(self, context: Watched) -> None:
        await asyncio.sleep(0)  # from now on `finish` waits, and the time runs
        run = self._running.get(id(context.delivery.lease))
        if self._processes is None or run is None:
            raise RuntimeError("this worker has no processes for its handlers")
        # Until a process is there, and has taken the entry, that is not the handler's time.
        self._stop_clock(run)
        context.take(await self._processes.call(context.delivery, context.handler, partial(self._start_clock, run)))

    def _start_clock(self, run: Run) -> None:
        if run.prepared.timeout is not None:
            self._timeouts.watch(run, run.prepared.timeout)

    def _stop_clock(self, run: Run) -> None:
        if run.prepared.timeout is not None:
            self._timeouts.forget(run, run.prepared.timeout)

    def _vacate(self, number: int, occupied: asyncio.Event) -> None:
        self._occupied.pop(number, None)
        occupied.set()


def _arguments(context: AnyContext) -> tuple[Any, ...]:
    return (context.body, context) if context.handler.wants_context else (context.body,)


def _cancel(run: Run) -> None:
    if run.task is not None:
        run.task.cancel()
