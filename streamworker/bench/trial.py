"""One run against a server: publish a backlog, let a worker take it, then send single entries and see how long they take.

Everything lies under names of its own, which are deleted at the end, however that comes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic, perf_counter, process_time
from typing import Literal, TypeVar

from streamworker.app import StreamWorker
from streamworker.bench.ending import whole
from streamworker.bench.figures import Figures, Spread
from streamworker.bench.tally import Parcel, Tally
from streamworker.errors import ConnectionLost, ServerError, StreamWorkerError
from streamworker.settings import Settings
from streamworker.streams import inspecting
from streamworker.streams.connections import Endpoint
from streamworker.streams.keys import keys_of
from streamworker.streams.link import Link
from streamworker.worker.process import WorkerProcess

Result = TypeVar("Result")
Show = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""

GROUP = "bench"
ROUND_TRIPS = 200
LOT = 500
SINGLES_FOR = timedelta(seconds=3)
LOOK_AGAIN = timedelta(milliseconds=100)
GONE_AFTER = timedelta(hours=2)
"""When the server forgets the backlog by itself, in case this process is killed and cannot delete it."""


class WorkerEnded(StreamWorkerError):
    """The worker has ended before its work."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do: so many entries that carry `size` characters each, then single ones at `pace` a second."""

    settings: Settings
    entries: int
    size: int
    codec: Literal["fields", "json"]
    pace: int

    @property
    def singles(self) -> int:
        """How many single entries are sent."""
        return max(1, round(self.pace * SINGLES_FOR.total_seconds()))


async def measure(plan: Plan, show: Show) -> Figures:
    """Do it. Raises `ConnectionLost`, `ServerError`, or `Unreachable` and `Refused` as a worker does."""
    endpoint = Endpoint(plan.settings.read_redis_url, client_name="streamworker:bench")
    stream = f"streamworker-bench-{secrets.token_hex(6)}"
    tally = Tally(plan.entries, plan.singles)
    app = StreamWorker(group=GROUP, codec=plan.codec)
    app.handler(stream, timeout=timedelta(seconds=30), name="bench")(tally.handle)
    await app.publish_to(endpoint)
    link = Link(endpoint)
    try:
        round_trip = await _round_trip(link, show)
        published = await _publish(app, link, stream, plan, show)
        async with _working(app, plan.settings) as worker:
            await _first(worker, _watched(tally, plan, show))
            await _first(worker, _send_singles(app, stream, tally, plan, show))
    finally:
        with suppress(ConnectionLost, ServerError):
            await _delete(link, stream)
        await link.close()
        await app.close()
    return Figures(
        entries=plan.entries,
        size=plan.size,
        codec=plan.codec,
        concurrency=plan.settings.concurrency,
        pace=plan.pace,
        round_trip=round_trip,
        published_rate=plan.entries / published[0],
        published_cpu_us=published[1] / plan.entries * 1e6,
        handled_rate=plan.entries / tally.seconds,
        handled_cpu_us=tally.cpu_seconds / plan.entries * 1e6,
        latency=Spread.of(tally.latencies),
    )


async def _round_trip(link: Link, show: Show) -> Spread:
    """How long a command takes that does nothing."""
    took = []
    await inspecting.greet(link)
    for number in range(ROUND_TRIPS):
        began = perf_counter()
        await inspecting.greet(link)
        took.append(perf_counter() - began)
        show("round trips", number + 1, ROUND_TRIPS)
    return Spread.of(took)


async def _publish(app: StreamWorker, link: Link, stream: str, plan: Plan, show: Show) -> tuple[float, float]:
    """Fill the backlog; answers seconds, and seconds of CPU."""
    load = "x" * plan.size
    await app.publish(stream, Parcel(number=0, load=load))
    with suppress(ServerError):  # a user without that right has it deleted at the end all the same
        await inspecting.expire(link, stream, GONE_AFTER)
    began = (monotonic(), process_time())
    for start in range(1, plan.entries, LOT):
        lot = [Parcel(number=number, load=load) for number in range(start, min(plan.entries, start + LOT))]
        await whole(app.publish_many(stream, lot))
        show("publishing", start + len(lot), plan.entries)
    return monotonic() - began[0], process_time() - began[1]


@asynccontextmanager
async def _working(app: StreamWorker, settings: Settings) -> AsyncIterator[asyncio.Task[object]]:
    """A worker that works; its task ends with the `async with` block."""
    process = WorkerProcess(app, settings)
    task: asyncio.Task[object] = asyncio.create_task(process.run())
    try:
        yield task
        process.drain("the benchmark is over")
    except BaseException:
        process.hurry()
        raise
    finally:
        with suppress(StreamWorkerError):
            await task


async def _first(worker: asyncio.Task[object], work: Awaitable[Result]) -> Result:
    """The work's result. Raises what ended the worker, if that comes first."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait((worker, working), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        worker.result()
        raise WorkerEnded("the worker has ended before its work: its log lines above say why")
    finally:
        working.cancel()


async def _watched(tally: Tally, plan: Plan, show: Show) -> None:
    """Wait for the end of the backlog."""
    while not tally.backlog_is_done.is_set():
        show("handling", tally.handled, plan.entries)
        with suppress(TimeoutError):
            await asyncio.wait_for(tally.backlog_is_done.wait(), LOOK_AGAIN.total_seconds())
    show("handling", plan.entries, plan.entries)


async def _send_singles(app: StreamWorker, stream: str, tally: Tally, plan: Plan, show: Show) -> None:
    """Send entries at an even pace, and wait until all are handled."""
    load = "x" * plan.size
    began = monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(plan.singles):
            await asyncio.sleep(max(0.0, began + number / plan.pace - monotonic()))
            tasks.create_task(whole(app.publish(stream, Parcel(number=number, sent=monotonic(), load=load))))
            show("latency", number + 1, plan.singles)
    await tally.all_is_done.wait()


async def _delete(link: Link, stream: str) -> None:
    """Leave nothing behind."""
    await inspecting.delete_keys(link, keys_of(stream, GROUP).all)
