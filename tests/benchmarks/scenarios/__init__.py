"""Every scenario by its name: what is compared, and under which title."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.benchmarks.contest import Entrant, World
from tests.benchmarks.scenarios import growth, handlers, idle, latency, publishing, throughput


@dataclass(frozen=True)
class Scenario:
    """A name for `--only`, a title for the report, and who takes part."""

    name: str
    title: str
    entrants: Callable[[World], list[Entrant]]


ALL = (
    Scenario("throughput", "Throughput: a backlog of orders, a handler that does nothing", throughput.entrants),
    Scenario("batch", "Handlers that take a batch", throughput.batches),
    *(Scenario(f"latency-{pace}", f"Latency at {pace:,} entries/s", partial(latency.entrants, pace)) for pace in (200, 2000)),
    *(
        Scenario(f"sleeping-{number}", f"Handlers that sleep 10 ms, {number:,} at once", partial(handlers.sleeping, number))
        for number in (100, 1000)
    ),
    Scenario("threads", "Handlers in threads", handlers.threads),
    Scenario("price", "What the guarantees cost", handlers.price),
    Scenario("commit", "Handlers that publish with the acknowledgement", handlers.commit),
    Scenario("publishing", "Publishing", publishing.entrants),
    Scenario("streams", "Many streams in one process", growth.streams),
    Scenario("backlog", "A large backlog", growth.backlog),
    Scenario("stale", "Many entries of a dead consumer", growth.stale),
    Scenario("parked", "Many retries that are not due", growth.parked),
    Scenario("consumers", "Many consumers in the group", growth.consumers),
    Scenario("processes", "Several processes", growth.processes),
    Scenario("idle", "Nothing to do", idle.entrants),
)
