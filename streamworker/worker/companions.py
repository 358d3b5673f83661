"""What a worker process does beside consuming: it adds what is scheduled, ticks and listens."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from streamworker.app import StreamWorker
from streamworker.streams.wire import Link
from streamworker.worker.bindings import Binding
from streamworker.worker.scheduler import Scheduler
from streamworker.worker.ticker import Ticker


def companions(app: StreamWorker, link: Link, bindings: Iterable[Sequence[Binding]], log: Any) -> list[Coroutine[Any, Any, None]]:
    """What runs until the drain begins."""
    tickers = [Ticker(schedule, link, log).run() for schedule in app.schedules]
    return [Scheduler(link, bindings, log).run(), *tickers]
