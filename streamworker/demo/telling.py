"""Puts the story on: starts the workers, lets things happen, counts, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from streamworker.demo.ledger import Ledger
from streamworker.demo.story import LOOK_AGAIN, Count, Story, Stuck
from streamworker.demo.workers import Worker
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link

STREAM = "orders"
CONSUMERS = ("worker-1", "worker-2")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far things are: `workers` by name with their state."""

    published: int
    count: Count
    workers: dict[str, str]


Show = Callable[[Snapshot], None]


async def tell(endpoint: Endpoint, *, private: bool, entries: int, rate: float, show: Show) -> Count:
    """Run the demo on the server at `endpoint`; on one that is not `private`, under a name nobody else uses. `show` is kept informed.

    Raises `Stuck` with the end of the workers' logs when it does not come to its end.
    """
    stream = STREAM if private else f"streamworker-demo-{token_hex(4)}"
    link = Link(endpoint)
    with tempfile.TemporaryDirectory(prefix="streamworker-demo-") as name:
        folder = Path(name)
        story = Story(link, stream, Ledger(folder), entries, rate)
        try:
            with _two_workers(endpoint.url, stream, folder) as workers:
                try:
                    return await _happen(story, workers, show)
                except Stuck as stuck:
                    logs = "\n".join(f"{worker.name}: {worker.log[-2000:]}" for worker in workers)
                    raise Stuck(f"{stuck}\n{logs}") from None
        finally:
            await story.clean_up(CONSUMERS)
            await link.close()


async def _happen(story: Story, workers: list[Worker], show: Show) -> Count:
    victim, survivor = workers
    watching = asyncio.create_task(_keep_showing(story, workers, show))
    try:
        await story.workers_are_ready(workers)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(story.publish())
            tasks.create_task(story.kill_while_it_works(victim))
        await story.is_finished()
        await asyncio.to_thread(survivor.drain)
        show(await _look(story, workers))
        return await story.count()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _keep_showing(story: Story, workers: list[Worker], show: Show) -> None:
    while True:
        show(await _look(story, workers))
        await asyncio.sleep(2 * LOOK_AGAIN.total_seconds())


async def _look(story: Story, workers: list[Worker]) -> Snapshot:
    return Snapshot(story.published, await story.count(), {worker.name: worker.state for worker in workers})


@contextmanager
def _two_workers(url: str, stream: str, folder: Path) -> Iterator[list[Worker]]:
    workers = [Worker(name, url, stream, folder) for name in CONSUMERS]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
