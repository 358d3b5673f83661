"""What a worker process does beside consuming: it adds what is scheduled, ticks, listens and trims."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

from streamworker.app import StreamWorker
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link
from streamworker.worker.bindings import Binding
from streamworker.worker.listening import Listening
from streamworker.worker.pausing import PauseWatch
from streamworker.worker.scheduler import Scheduler
from streamworker.worker.ticker import Ticker
from streamworker.worker.trimmer import Trimmer


class Companions:
    """All of them; they end when the drain begins. `link` is shared, whoever blocks has a connection of its own to `endpoint`."""

    def __init__(
        self,
        app: StreamWorker,
        endpoint: Endpoint,
        link: Link,
        bindings: Iterable[Sequence[Binding]],
        state: Mapping[str, Any],
        pauses: PauseWatch,
        consumer: str,
        log: Any,
    ) -> None:
        self._scheduler = Scheduler(link, bindings, pauses, log)
        self._tickers = [Ticker(schedule, link, log) for schedule in app.schedules]
        self.listenings: list[Listening] = [Listening(listener, endpoint, state, log) for listener in app.listeners]
        self.trimmer: Trimmer = Trimmer.of(app, link, consumer, log)

    def parts(self) -> list[Coroutine[Any, Any, None]]:
        """What is to be run."""
        ticking, listening = [one.run() for one in self._tickers], [one.run() for one in self.listenings]
        return [self._scheduler.run(), self.trimmer.run(), *ticking, *listening]

    @property
    def began(self) -> list[asyncio.Event]:
        """What is awaited before the process counts as ready."""
        return [listening.began for listening in self.listenings]
