"""One worker process: its connection, its lifespan, a consumer for each group, and the order of its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any

import structlog

from streamworker.app import StreamWorker
from streamworker.settings import Settings
from streamworker.streams.connections import Endpoint
from streamworker.streams.gating import Pause
from streamworker.streams.inspecting import is_there
from streamworker.streams.link import Link
from streamworker.version import VERSION
from streamworker.worker.bindings import Binding
from streamworker.worker.budget import ByteBudget
from streamworker.worker.burst import watch_for_the_end
from streamworker.worker.ceiling import Ceiling
from streamworker.worker.choosing import bindings_of, choose_handlers
from streamworker.worker.companions import Companions
from streamworker.worker.concurrency import concurrency_of, processes_of
from streamworker.worker.connecting import first_link
from streamworker.worker.consumer import Consumer
from streamworker.worker.executor import Executor
from streamworker.worker.exits import ExitCode, exit_code
from streamworker.worker.isolation import Isolation
from streamworker.worker.limits import check_memory, watch_limits
from streamworker.worker.memory import resident_bytes
from streamworker.worker.names import NameClaim, claim_all, unique_name
from streamworker.worker.pausing import PauseWatch
from streamworker.worker.plan import Plan
from streamworker.worker.status import BEAT, Status
from streamworker.worker.watchdog import Watchdog


class WorkerProcess:
    """Runs an application's handlers until told to stop. `drain`, `hurry` and the pausing may be called from signal handlers' callbacks."""

    def __init__(self, app: StreamWorker, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._handlers = choose_handlers(app.handlers, settings, may_be_none=app.works_without_handlers)
        self.consumer: str = settings.consumer if settings.consumer is not None else unique_name()
        self._log = structlog.get_logger("streamworker.worker").bind(consumer=self.consumer)
        self._endpoint = Endpoint(settings.read_redis_url, client_name=f"streamworker:{self.consumer}"[:200])
        self._consumers: list[Consumer] = []
        self._claims: list[NameClaim] = []
        self._delivered = 0
        self.ready: asyncio.Event = asyncio.Event()
        """Set once every group is there and reading has begun."""
        self._stop_wanted = asyncio.Event()
        self._processes = processes_of(app, self._handlers, settings, self._log)
        self._isolation = Isolation()
        self._budget = ByteBudget(settings.in_flight_bytes)
        self._ceiling = None if settings.max_concurrency is None else Ceiling(settings.max_concurrency)
        self._why_draining = ""
        self._connected = False
        self._streams = 0
        self.changed: asyncio.Event = asyncio.Event()
        """Set whenever `status` has something new to tell at once; whoever has told it clears it."""
        self.watchdog: Watchdog = Watchdog(settings.grace, lambda: self.in_flight, self._log)
        self._beside: Companions | None = None
        self._hurried = self._paused = False
        self.gave_up: str = ""
        self._pauses = PauseWatch(self._handlers, self._heed_pauses, self._log)

    async def run(self) -> ExitCode:
        """Work until stopped. Raises `Unreachable` at the start, and whatever the lifespan raises."""
        link = await first_link(self._endpoint)
        await self._app.publish_to(self._endpoint)
        try:
            async with self._lifespan() as state:
                if self._processes is not None:
                    await self._processes.begin()
                await self._consume(link, state)
        finally:
            if self._processes is not None:
                await self._processes.close()
            await link.close()
            await self._app.close()
            self.watchdog.leave()
        return self._exit_code()

    def drain(self, why: str) -> None:
        """Stop reading, finish what is in flight within the grace, release the rest."""
        if not self._stop_wanted.is_set():
            grace_s = self._settings.grace.total_seconds()
            self._log.info("worker.draining", why=why, in_flight=self.in_flight, grace_s=grace_s, pid=os.getpid())
            self.watchdog.watch()
            self._why_draining = why
            self._stop_wanted.set()
            self.changed.set()
            for consumer in self._consumers:
                consumer.drain(self._settings.grace)

    def give_up(self, why: str) -> None:
        """Drain, and end as a failure: going on would do harm."""
        if not self.gave_up:
            self.gave_up = why
            self._log.error("worker.gives_up", why=why)
            self.drain("it gives up")

    def hurry(self) -> None:
        """Interrupt the handlers and release their entries now."""
        self._hurried = True
        self._log.warning("worker.interrupted", in_flight=self.in_flight, pid=os.getpid())
        self._stop_wanted.set()
        self.changed.set()
        for consumer in self._consumers:
            consumer.hurry()

    def toggle_pause(self) -> None:
        """Take no new entries, or go on; what is in flight goes on either way."""
        self.pause(not self._paused)

    def pause(self, wanted: bool) -> None:
        """As `toggle_pause`, said by what is wanted; saying it twice changes nothing."""
        if wanted is self._paused:
            return
        self._paused = wanted
        self.changed.set()
        self._log.info("worker.paused" if self._paused else "worker.resumed", in_flight=self.in_flight)
        for consumer in self._consumers:
            consumer.pause() if self._paused else consumer.resume()

    def _heed_pauses(self, paused: Mapping[str, Pause]) -> None:
        for consumer in self._consumers:
            consumer.gates.set_paused(paused)
        self.changed.set()

    def status(self) -> Status:
        """How this process is now. Called on its event loop."""
        started, draining = self.ready.is_set(), self._stop_wanted.is_set()
        troubled = self._troubled()
        able = started and self._connected and (not self._streams or len(troubled) < self._streams)
        return Status(
            started=started,
            connected=self._connected,
            reading=able and not self._paused and not draining and not self._isolation.lasts_long,
            draining=draining,
            why_draining=self._why_draining,
            gave_up=bool(self.gave_up),
            paused=self._paused,
            in_flight=self.in_flight,
            deliveries=self._delivered,
            memory_bytes=resident_bytes(),
            troubled=troubled,
            waits_for=next((claim.waits_for for claim in self._claims if claim.waits_for), ""),
            solitary=self._isolation.lasts_long,
            trimmed=sum(consumer.trimmed for consumer in self._consumers),
            held_back=() if self._beside is None else self._beside.trimmer.held_back,
            paused_handlers=tuple(sorted(self._pauses.paused)),
            resting_handlers=tuple(sorted(name for consumer in self._consumers for name in consumer.gates.resting)),
        )

    @property
    def is_draining(self) -> bool:
        """Whether it has been told to end."""
        return self._stop_wanted.is_set()

    @property
    def in_flight(self) -> int:
        """How many entries this process holds."""
        return sum(consumer.in_flight for consumer in self._consumers)

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[Mapping[str, Any]]:
        if self._app.lifespan is None:
            yield {}
            return
        async with self._app.lifespan(self._app) as state:
            yield {} if state is None else state

    async def _consume(self, link: Link, state: Mapping[str, Any]) -> None:
        bindings = bindings_of(self._handlers, self._app.on_group_lost, self._log, self._app.retentions)
        check_memory(self._settings)
        self._streams = sum(map(len, bindings.values()))
        self._consumers = [self._consumer(group, of_group, link, state) for group, of_group in bindings.items()]
        self._claims = [consumer.claim for consumer in self._consumers if consumer.claim is not None]
        if not await claim_all(self._claims, link, self._stop_wanted):
            return
        await self._pauses.learn(link, self._stop_wanted)
        for consumer in self._consumers if self._paused else ():
            consumer.pause()
        self._beside = beside = Companions(
            self._app, self._endpoint, link, bindings.values(), state, self._pauses, self.consumer, self._log
        )
        async with asyncio.TaskGroup() as tasks:
            for consumer in self._consumers:
                tasks.create_task(consumer.run())
            parts = (self._announce(beside), self._watch_connection(link), *watch_limits(self._settings, self.drain))
            watchers = [tasks.create_task(part) for part in (*parts, *beside.parts())]
            if self._settings.burst:
                watchers.append(
                    tasks.create_task(watch_for_the_end(link, [b for of in bindings.values() for b in of], self, self._log))
                )
            await self._stop_wanted.wait()
            for watcher in watchers:
                watcher.cancel()

    def _consumer(self, group: str, bindings: Sequence[Binding], link: Link, state: Mapping[str, Any]) -> Consumer:
        handlers = {handler.name: handler for binding in bindings for handler in binding.handlers}
        limits = {name: concurrency_of(handler, self._settings, self._ceiling) for name, handler in handlers.items()}
        threads = sum(limits[name] for name, handler in handlers.items() if handler.executor == "thread")
        executor = Executor(self._app.middlewares, state, self._app.encode_for_commit, threads, self._processes)
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
            ceiling=self._ceiling,
            give_up=self.give_up,
            named=self._settings.consumer is not None,
        )
        return Consumer(plan, link, executor, self._count, self._log)

    async def _announce(self, beside: Companions) -> None:
        for begun in (*(consumer.reads for consumer in self._consumers), *beside.began):
            await begun.wait()
        self.ready.set()
        self.changed.set()
        troubled = self._troubled()
        self._log.info(
            "worker.ready",
            redis=str(self._endpoint),
            handlers=[handler.name for handler in self._handlers],
            version=VERSION,
            pid=os.getpid(),
            **({"not_yet": troubled} if troubled else {}),
        )

    def _troubled(self) -> tuple[str, ...]:
        return tuple(stream for consumer in self._consumers for stream in consumer.troubled_streams)

    async def _watch_connection(self, link: Link) -> None:
        """Ask the server whether it is there, where nothing else does: a reader that waits cannot tell a quiet one from a dead one."""
        while True:
            before = self._connected
            self._connected = link.was_heard(1.5 * BEAT.total_seconds()) or await is_there(link)
            if self._connected is not before:
                self.changed.set()
            await asyncio.sleep(BEAT.total_seconds())

    def _count(self, ended: int) -> None:
        before, most = self._delivered, self._settings.max_deliveries
        self._delivered += ended
        if most is not None and before < most <= self._delivered:
            # Outside of the delivery's own context, whose facts are not the drain's.
            asyncio.get_running_loop().call_soon(self.drain, "max-deliveries reached", context=Context())

    def _exit_code(self) -> ExitCode:
        unfinished = sum(consumer.left_pending for consumer in self._consumers)
        interrupted = sum(consumer.interrupted for consumer in self._consumers)
        code = exit_code(hurried=self._hurried, gave_up=bool(self.gave_up), unfinished=any(one.was_late for one in self._consumers))
        self._log.info(
            "worker.stopped",
            deliveries=self._delivered,
            interrupted=interrupted,
            left_pending=unfinished,
            exit_code=int(code),
            pid=os.getpid(),
        )
        return code
