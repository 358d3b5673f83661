"""The worker of a test: the real one, on the test's time, and with ways to look at it that production needs not."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from streamworker.app import StreamWorker
from streamworker.delivery import Lease
from streamworker.handlers import Middleware
from streamworker.settings import Settings
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link
from streamworker.streams.listening import Place
from streamworker.testing.alarms import Alarms
from streamworker.worker.bindings import Binding
from streamworker.worker.carrier import Witness
from streamworker.worker.consumer import Consumer
from streamworker.worker.exits import ExitCode
from streamworker.worker.process import WorkerProcess
from streamworker.worker.watchdog import Watchdog

LEASE = timedelta(hours=1)
"""Of the worker in a test, in real time, so that nothing lapses while somebody looks at a breakpoint. What lapses in the test's time is
made to look as old as that."""


class Unarmed(Watchdog):
    """A watchdog that does not bite: the process that it would end is pytest's."""

    def _start(self, within: timedelta, code: ExitCode) -> None: ...


class RehearsedProcess(WorkerProcess):
    """A worker at `url` that tells `witness` of its deliveries."""

    def __init__(self, app: StreamWorker, settings: Settings, url: str, witness: Witness, alarms: Alarms) -> None:
        super().__init__(app, settings)
        self.watchdog: Watchdog = Unarmed(settings.grace, lambda: self.in_flight, self._log)
        app.schedules = []  # it does not keep them: the clock of the test does
        self._endpoint = Endpoint(url, client_name=self._endpoint.client_name, virtual_time=True)
        self._witness = witness
        self._alarms = alarms
        self.bindings: list[Binding] = []
        """What it reads."""

    def _consumer(self, group: str, bindings: Sequence[Binding], link: Link, state: Mapping[str, Any]) -> Consumer:
        consumer = super()._consumer(group, bindings, link, state)
        consumer.be_seen_by(self._witness)
        consumer.be_driven_by(self._alarms.seconds, self._alarms.call_later)
        self.bindings += bindings
        return consumer

    @property
    def at_rest(self) -> int:
        """How many of the entries in flight wait for a time of the test, or for a handler that is paused."""
        return sum(consumer.at_rest for consumer in self._consumers)

    async def heard_all(self, link: Link) -> list[Place] | None:
        """How far the listeners have heard, where that is everything; `None` where there is more. Asked over `link`."""
        listenings = [] if self._beside is None else self._beside.listenings
        places = [listening.place for listening in listenings]
        caught_up = [await listening.is_caught_up(link) for listening in listenings]
        return places if all(caught_up) else None

    async def learn_pauses(self, link: Link) -> None:
        """See which handlers are paused, and not only when it is time to."""
        await self._pauses.learn(link, self._stop_wanted)

    def is_held_up(self, stream: str, group: str) -> bool:
        """Whether what is in this stream is not read before the time of the test is moved, or a handler resumed."""
        return any(consumer.gates.holds_up(stream, group) for consumer in self._consumers)

    def lose(self, lease: Lease, why: str) -> None:
        """Interrupt the handler that runs under this lease, and leave the entry to whoever has it."""
        for consumer in self._consumers:
            consumer.lose(lease, why)

    def sweep(self) -> None:
        """Take over now what has lapsed."""
        for consumer in self._consumers:
            consumer.sweep()


def as_rehearsed(app: StreamWorker, state: Mapping[str, Any] | None, innermost: Middleware) -> StreamWorker:
    """The same program with a middleware more, and with `state`, where it is given, in place of what its lifespan yields."""
    double = copy.copy(app)
    double.lease = LEASE
    double.middlewares = [*app.middlewares, innermost]
    # What stands in for the state, is patched or is looked at by a debugger is here, and in no other process.
    double.handlers = [replace(one, executor="thread") if one.executor == "process" else one for one in app.handlers]

    @asynccontextmanager
    async def lifespan(_: StreamWorker) -> AsyncIterator[Mapping[str, Any] | None]:
        if state is not None or app.lifespan is None:
            yield state
            return
        async with app.lifespan(app) as real_state:
            yield real_state

    double.lifespan = lifespan
    return double
