"""`TestWorker`: a program's worker inside a test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, closing
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

import structlog

from streamworker.app import StreamWorker
from streamworker.delivery import Delivery, Outcome, Outgoing, Verdict
from streamworker.destination import Destination, name_of_stream
from streamworker.handlers import Handler
from streamworker.posting import SendOptions
from streamworker.settings import Settings
from streamworker.streams import publishing, rehearsing
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link
from streamworker.testing import reading
from streamworker.testing.alarms import Alarms
from streamworker.testing.clock import MILLISECOND, Clock
from streamworker.testing.naming import check_stream, name_of_handler, who_reads
from streamworker.testing.plans import Death, Failure, Plans, When
from streamworker.testing.process import RehearsedProcess, as_rehearsed
from streamworker.testing.records import DeadLetterRecord, DeliveryRecord, PendingRecord, WaitingRecord, record_of
from streamworker.testing.stage import stage
from streamworker.worker.ticker import Ticker
from streamworker.worker.trimmer import Trimmer
from streamworker.worker.waiting import happens_within
from streamworker.worker.watchdog import MARGIN

Body = TypeVar("Body")

LOOK_SECONDS = 0.01
"""How often to look whether there is anything to do, where no delivery has ended."""


class TestWorker:
    """Runs the handlers of `app` inside a test, as a worker would: `async with TestWorker(app) as worker`.

    It works on a fake server of its own, or, with `redis_url`, in an empty database of a real one, which is emptied again. `state` stands
    in for what the app's lifespan yields, which then does not run. Time stands still until `advance` moves it. `patience` is how long, in
    real time, the handlers may take until nothing is left to do.

    Raises `SetupError` where the app cannot be run, `AssertionError` at the end where something planned has not happened.
    """

    __test__ = False  # for pytest, which collects what is called Test…

    def __init__(
        self,
        app: StreamWorker,
        *,
        redis_url: str | None = None,
        state: Mapping[str, Any] | None = None,
        patience: timedelta = timedelta(seconds=10),
    ) -> None:
        self._app = app
        self._redis_url = redis_url
        self._state = state
        self._patience = patience
        self._plans = Plans(self._crash)
        self._alarms = Alarms()
        self._records: list[DeliveryRecord] = []
        self._crashing: set[int] = set()
        self._crashes = 0
        self._more = asyncio.Event()
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as exits:
            self._url = await exits.enter_async_context(stage(self._redis_url))
            endpoint = Endpoint(self._url, virtual_time=True)
            await exits.enter_async_context(self._app.publishing_to(endpoint))
            self._link = Link(endpoint)
            exits.push_async_callback(self._link.close)
            settings = Settings.model_validate({"redis_url": self._url, "concurrency": self._app.settings().concurrency})
            double = as_rehearsed(self._app, self._state, self._plans.middleware)
            self._alarms.ring(await rehearsing.now_ms(self._link))
            self._process = RehearsedProcess(double, settings, self._url, self._told, self._alarms)
            self._running = asyncio.create_task(self._process.run())
            exits.push_async_callback(self._end)
            await self._begun()
            log = structlog.get_logger("streamworker.worker")
            tickers = [exits.enter_context(closing(Ticker(schedule, self._link, log))) for schedule in self._app.schedules]
            reads = self._process.bindings
            trimmer = Trimmer.of(self._app, self._link, self._process.consumer, log)
            held_up = self._process.is_held_up
            self._clock = Clock(self._link, reads, self._process.consumer, self._app.lease, self._alarms, tickers, trimmer, held_up)
            await self._clock.to_do()  # a schedule that is seen for the first time begins now
            self._exits = exits.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._exits.aclose()
        if error is None and (left := self._plans.left()):
            raise AssertionError(f"{'; '.join(left)}: no delivery of it was begun after that was planned")

    # ---- give it work -------------------------------------------------------------------------------------------------------

    @overload
    async def publish(self, stream: Destination[Body], body: Body, **options: Unpack[SendOptions]) -> str: ...
    @overload
    async def publish(self, stream: str, body: object, **options: Unpack[SendOptions]) -> str: ...
    async def publish(self, stream: str | Destination[Any], body: Any, **options: Unpack[SendOptions]) -> str:
        """Add an entry for a handler or listener of this app, as `app.publish` does; answers its id. Raises `LookupError` without one."""
        name = name_of_stream(stream, body)
        check_stream(self._app, name)
        await self._process.learn_pauses(self._link)  # those that the test has just made
        return await self._app.publish(name, body, **options)

    async def add(self, stream: str, fields: Mapping[str | bytes, str | bytes]) -> str:
        """Add an entry of exactly these fields, as any other program could (XADD); answers its id."""
        check_stream(self._app, stream)
        await self._process.learn_pauses(self._link)
        raw = [part if isinstance(part, bytes) else part.encode() for pair in fields.items() for part in pair]
        return await publishing.add(self._link, Outgoing(stream, raw))

    async def run_until_idle(self) -> None:
        """Wait until nothing happens any more at this time: all is handled, waits for a later time, or is left behind by a crash.

        Raises `AssertionError`, with what is still going on, when that takes longer than `patience`.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._patience.total_seconds()
        while not await self._is_idle():
            if loop.time() > give_up_at:
                raise AssertionError(f"after {self._patience} there is still something to do: {self._goes_on()}")
            await happens_within(self._more, LOOK_SECONDS)
            self._more.clear()

    async def advance(self, by: timedelta) -> None:
        """Move the time, and run what comes due on the way, each thing at its own time, until nothing happens any more.

        Retries and schedules come due, batches are closed by their `max_wait`, entries of workers that have died are taken over when
        their lease is over, keys of the server end that end by themselves. What a handler waits for by itself, and its timeout, is real
        time. Raises what the function of a schedule raises.
        """
        if by < timedelta(0):
            raise ValueError("time does not go back")
        until_ms = self._clock.now_ms + by // MILLISECOND
        await self.run_until_idle()
        while True:
            due_ms = await self._clock.next_due_ms()
            is_last = due_ms is None or due_ms > until_ms
            await self._clock.move(until_ms if due_ms is None or is_last else max(due_ms, self._clock.now_ms))
            await self.run_until_idle()
            if is_last:
                return

    @property
    def now(self) -> datetime:
        """The time of the test."""
        return self._clock.now

    @property
    def redis_url(self) -> str:
        """Where it works, for code under test that opens a connection of its own."""
        return self._url

    # ---- plan trouble -------------------------------------------------------------------------------------------------------

    def fail_next(self, handler: str | Callable[..., Any], error: BaseException | type[BaseException], *, times: int = 1) -> None:
        """Let the next deliveries of this handler fail with `error`; the handler itself is not called then."""
        self._plans.add(name_of_handler(self._app, handler), Failure(error), times)

    def crash_next(self, handler: str | Callable[..., Any], *, when: When = "after", times: int = 1) -> None:
        """Let it look as if the worker died with the next deliveries of this handler: `advance` by the lease, and they are taken over.

        `"after"`: the handler has done its work, but that is not acknowledged, so it is done again. `"before"`: it has not begun.
        """
        if when not in ("before", "after"):
            raise ValueError(f'when is "before" or "after", not {when!r}')
        self._plans.add(name_of_handler(self._app, handler), Death(when), times)

    # ---- see what came of it ------------------------------------------------------------------------------------------------

    @overload
    async def published(self, stream: Destination[Body]) -> list[Body]: ...
    @overload
    async def published(self, stream: str) -> list[dict[str, str]]: ...
    @overload
    async def published(self, stream: str, body_type: type[Body]) -> list[Body]: ...
    async def published(self, stream: str | Destination[Any], body_type: Any = dict[str, str]) -> list[Any]:
        """The bodies of all entries that are in a stream, oldest first; as `body_type`, or as text by field.

        What a `Retention(delete_when_acked=True)` has removed is not.
        """
        if isinstance(stream, Destination):
            body_type, stream = stream.body_type, stream.name
        codecs = [handler.codec for handler in self._app.handlers if stream in handler.streams]
        return await reading.bodies(self._link, stream, codecs[0] if codecs else self._app.codec, body_type)

    async def pending(self) -> list[PendingRecord]:
        """What is delivered and not settled: handlers that still run, and what a crash has left behind."""
        return await reading.pending(self._link, self._process.bindings)

    async def waiting(self) -> list[WaitingRecord]:
        """The retries that wait for their time, the next due first."""
        return await reading.waiting(self._link, self._process.bindings, self._clock.now_ms)

    async def dead_letters(self) -> list[DeadLetterRecord]:
        """What was set aside, and why."""
        return await reading.dead_letters(self._link, self._process.bindings)

    def deliveries(self, entry_id: str | None = None) -> list[DeliveryRecord]:
        """The story of one entry, or of all: each delivery, what happened, and what was decided.

        Raises `LookupError` for an entry that no handler was given.
        """
        found = [record for record in self._records if entry_id in (None, record.id)]
        if entry_id is not None and not found:
            raise LookupError(
                f"entry {entry_id} was given to no handler: {who_reads(self._app)}; await run_until_idle() before you look"
            )
        return found

    # ---- inside -------------------------------------------------------------------------------------------------------------

    async def _begun(self) -> None:
        ready = asyncio.create_task(self._process.ready.wait())
        try:
            await asyncio.wait({self._running, ready}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        self._check_alive()

    async def _end(self) -> None:
        if self._process.in_flight != self._process.at_rest:
            self._process.hurry()
        else:
            self._process.drain("the test is over")
        _, still_there = await asyncio.wait({self._running}, timeout=(self._patience + MARGIN).total_seconds())
        if still_there:
            raise AssertionError(f"the worker of this test does not end: {self._goes_on()}")
        if not self._running.cancelled():
            self._running.exception()  # it was raised where it was met

    async def _is_idle(self) -> bool:
        self._check_alive()
        await self._process.learn_pauses(self._link)
        if self._process.in_flight != self._process.at_rest:
            return False
        heard = await self._process.heard_all(self._link)
        to_do = await self._clock.to_do()
        if to_do.lapsed:
            self._process.sweep()
        if heard is None or heard != await self._process.heard_all(self._link):
            return False  # a listener may have published meanwhile
        at_rest = self._process.at_rest
        return to_do.is_nothing_but(at_rest) and self._process.in_flight == at_rest

    async def _crash(self, delivery: Delivery) -> None:
        """Leave the entry with a name that nobody has, as a dead process does; ends with the interruption of the handler."""
        lease = delivery.lease
        self._crashes += 1
        self._crashing.add(id(lease))
        name = f"crashed-{self._crashes}"
        await rehearsing.hand_over(self._link, lease.key, delivery.group, lease.entry_id, name, idle=timedelta(0))
        self._process.lose(lease, "the test lets its worker die")
        await asyncio.Event().wait()

    def _told(self, delivery: Delivery, handler: Handler | None, outcome: Outcome, verdict: Verdict) -> None:
        crashed = id(delivery.lease) in self._crashing
        self._crashing.discard(id(delivery.lease))
        name = None if handler is None else handler.name
        self._records.append(record_of(delivery, name, outcome, None if crashed else verdict, self._clock.now))
        self._more.set()

    def _check_alive(self) -> None:
        if self._running.done():
            raise RuntimeError("the worker of this test has ended") from self._running.exception()

    def _goes_on(self) -> str:
        running = [
            f"handler {ctx.handler.name!r} runs with {ctx.delivery.id} of {ctx.delivery.stream!r}"
            for ctx in self._plans.running.values()
        ]
        troubled = [f"stream {stream!r} cannot be read" for stream in self._process.status().troubled]
        story = [str(record) for record in self._records[-3:]]
        return "; ".join([*running, *troubled, *story]) or "no handler has begun yet"
