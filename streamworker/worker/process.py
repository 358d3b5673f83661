"""One worker process: its connection, its lifespan, a consumer for each group, and the order of its end."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog

from streamworker.app import StreamWorker
from streamworker.errors import ConnectionLost, Refused, ServerError, SetupError, Unreachable
from streamworker.handlers import Handler
from streamworker.settings import Settings
from streamworker.streams.connections import Endpoint
from streamworker.streams.faults import Remedy, remedy_for
from streamworker.streams.groups import are_finished
from streamworker.streams.keys import keys_of
from streamworker.streams.wire import Link
from streamworker.version import VERSION
from streamworker.worker.bindings import Binding
from streamworker.worker.budget import ByteBudget
from streamworker.worker.consumer import Consumer
from streamworker.worker.executor import Executor
from streamworker.worker.exits import ExitCode
from streamworker.worker.intake import Plan
from streamworker.worker.isolation import Isolation
from streamworker.worker.watchdog import Watchdog

LOOK_FOR_THE_END = timedelta(milliseconds=200)


class WorkerProcess:
    """Runs an application's handlers until told to stop. `drain`, `hurry` and the pausing may be called from signal handlers' callbacks."""

    def __init__(self, app: StreamWorker, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._log = structlog.get_logger("streamworker.worker")
        self._handlers = choose_handlers(app.handlers, settings)
        self.consumer: str = settings.consumer if settings.consumer is not None else unique_name()
        self._endpoint = Endpoint(settings.redis_url.get_secret_value(), client_name=f"streamworker:{self.consumer}"[:200])
        self._consumers: list[Consumer] = []
        self._delivered = 0
        self.ready: asyncio.Event = asyncio.Event()
        """Set once every group is there and reading has begun."""
        self._stop_wanted = asyncio.Event()
        self._isolation = Isolation()
        self._budget = ByteBudget(settings.in_flight_bytes)
        self.watchdog: Watchdog = Watchdog(settings.grace, lambda: self.in_flight, self._log)
        self._hurried = False
        self._gave_up = False
        self._paused = False

    async def run(self) -> ExitCode:
        """Work until stopped. Raises `Unreachable` at the start, and whatever the lifespan raises."""
        link = await self._connect()
        self._app.publish_to(self._endpoint)
        try:
            async with self._lifespan() as state:
                await self._consume(link, state)
        finally:
            await link.close()
            await self._app.close()
            self.watchdog.leave()
        return self._exit_code()

    def drain(self, why: str) -> None:
        """Stop reading, finish what is in flight within the grace, release the rest."""
        if not self._stop_wanted.is_set():
            self._log.info("worker.draining", why=why, in_flight=self.in_flight, grace_s=self._settings.grace.total_seconds())
            self.watchdog.watch()
            self._stop_wanted.set()
            for consumer in self._consumers:
                consumer.drain(self._settings.grace)

    def give_up(self, why: str) -> None:
        """Drain, and end as a failure: going on would do harm."""
        if not self._gave_up:
            self._gave_up = True
            self._log.error("worker.gives_up", why=why)
            self.drain("it gives up")

    def hurry(self) -> None:
        """Interrupt the handlers and release their entries now."""
        self._hurried = True
        self._log.warning("worker.interrupted", in_flight=self.in_flight)
        self._stop_wanted.set()
        for consumer in self._consumers:
            consumer.hurry()

    def toggle_pause(self) -> None:
        """Stop reading new entries, or go on; what is in flight goes on either way."""
        self._paused = not self._paused
        self._log.info("worker.paused" if self._paused else "worker.resumed", in_flight=self.in_flight)
        for consumer in self._consumers:
            consumer.pause() if self._paused else consumer.resume()

    @property
    def in_flight(self) -> int:
        """How many entries this process holds."""
        return sum(consumer.in_flight for consumer in self._consumers)

    async def _connect(self) -> Link:
        link = Link(self._endpoint)
        try:
            await link.call("PING")
        except ServerError as error:
            if remedy_for(error) is Remedy.CONFIGURE:
                await link.close()
                raise Refused(f"Redis at {self._endpoint} refuses this worker: {error}") from error
        except ConnectionLost as error:
            await link.close()
            raise Unreachable(f"cannot reach Redis at {self._endpoint}: {error}") from error
        return link

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[Mapping[str, Any]]:
        if self._app.lifespan is None:
            yield {}
            return
        async with self._app.lifespan(self._app) as state:
            yield {} if state is None else state

    async def _consume(self, link: Link, state: Mapping[str, Any]) -> None:
        bindings = self._bindings()
        self._consumers = [self._consumer(group, of_group, link, state) for group, of_group in bindings.items()]
        for consumer in self._consumers:
            await consumer.claim_name()
        if self._stop_wanted.is_set():
            return
        async with asyncio.TaskGroup() as tasks:
            for consumer in self._consumers:
                tasks.create_task(consumer.run())
            watchers = [tasks.create_task(self._announce()), tasks.create_task(self._watch_time())]
            if self._settings.burst:
                watchers.append(tasks.create_task(self._watch_for_the_end(link, [b for of in bindings.values() for b in of])))
            await self._stop_wanted.wait()
            for watcher in watchers:
                watcher.cancel()

    def _bindings(self) -> dict[str, list[Binding]]:
        """What to read, by group."""
        routes: dict[tuple[str, str], dict[str | None, Handler]] = defaultdict(dict)
        for handler in self._handlers:
            for stream in handler.streams:
                routes[handler.group, stream][handler.type] = handler
        by_group: dict[str, list[Binding]] = defaultdict(list)
        for (group, stream), handlers in routes.items():
            start = next(iter(handlers.values())).start
            by_group[group].append(Binding(keys_of(stream, group), group, start, handlers, self._log, self._app.on_group_lost))
        return by_group

    def _consumer(self, group: str, bindings: Sequence[Binding], link: Link, state: Mapping[str, Any]) -> Consumer:
        handlers = {handler.name: handler for binding in bindings for handler in binding.handlers}
        default = self._settings.concurrency
        limits = {name: default if h.concurrency is None else h.concurrency for name, h in handlers.items()}
        threads = sum(limits[name] for name, handler in handlers.items() if handler.executor == "thread")
        executor = Executor(self._app.middlewares, state, self._app.encode_for_commit, threads)
        plan = Plan(
            endpoint=self._endpoint,
            group=group,
            consumer=self.consumer,
            bindings=bindings,
            limits=limits,
            lease=self._app.lease,
            retry=self._app.retry,
            dead_letter=self._app.dead_letter,
            isolation=self._isolation,
            budget=self._budget,
            give_up=self.give_up,
            named=self._settings.consumer is not None,
        )
        return Consumer(plan, link, executor, self._count, self._log)

    async def _announce(self) -> None:
        for consumer in self._consumers:
            await consumer.reads.wait()
        self.ready.set()
        troubled = [stream for consumer in self._consumers for stream in consumer.troubled_streams]
        self._log.info(
            "worker.ready",
            consumer=self.consumer,
            redis=str(self._endpoint),
            handlers=[handler.name for handler in self._handlers],
            version=VERSION,
            pid=os.getpid(),
            **({"not_yet": troubled} if troubled else {}),
        )

    async def _watch_time(self) -> None:
        if self._settings.max_runtime is not None:
            await asyncio.sleep(self._settings.max_runtime.total_seconds())
            self.drain("max-runtime reached")

    async def _watch_for_the_end(self, link: Link, bindings: Sequence[Binding]) -> None:
        await self.ready.wait()
        while True:
            try:
                if self.in_flight == 0 and await are_finished(link, [(binding.keys, binding.group) for binding in bindings]):
                    self.drain("burst finished")
                    return
            except (ConnectionLost, ServerError) as error:
                self._log.debug("burst.unknown", error=str(error))
            await asyncio.sleep(LOOK_FOR_THE_END.total_seconds())

    def _count(self) -> None:
        self._delivered += 1
        if self._delivered == self._settings.max_deliveries:
            self.drain("max-deliveries reached")

    def _exit_code(self) -> ExitCode:
        unfinished = sum(consumer.left_pending for consumer in self._consumers)
        interrupted = sum(consumer.interrupted for consumer in self._consumers)
        if self._hurried:
            code = ExitCode.INTERRUPTED
        elif self._gave_up:
            code = ExitCode.FAILURE
        elif interrupted or unfinished:
            code = ExitCode.GRACE_EXCEEDED
        else:
            code = ExitCode.DONE
        self._log.info(
            "worker.stopped", deliveries=self._delivered, interrupted=interrupted, left_pending=unfinished, exit_code=int(code)
        )
        return code


def choose_handlers(handlers: Sequence[Handler], settings: Settings) -> list[Handler]:
    """The handlers that this process runs. Raises `SetupError` for a name that there is not, or when nothing is left."""
    known = {handler.name for handler in handlers}
    unknown = sorted(({*settings.handlers} | {*settings.exclude}) - known)
    if unknown:
        raise SetupError(f"there is no handler {unknown[0]!r}: there are {', '.join(sorted(known)) or 'none at all'}")
    chosen = [
        handler
        for handler in handlers
        if (not settings.handlers or handler.name in settings.handlers) and handler.name not in settings.exclude
    ]
    if not chosen:
        raise SetupError("no handler to run: decorate a function with @app.handler, or name fewer with --exclude")
    for left_out in handlers:
        for handler in chosen if left_out not in chosen else ():
            shared = set(left_out.streams) & set(handler.streams)
            if shared and left_out.group == handler.group:
                # This process would be given entries of the other's type, and could only send them round until they are set aside.
                raise SetupError(
                    f"{handler.name!r} and {left_out.name!r} share stream {min(shared)!r} in group {handler.group!r}: "
                    "run both or neither in one process, or give one another group"
                )
    return chosen


def unique_name() -> str:
    """A consumer name that no other process has or had: two processes of one name would take each other's entries."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
