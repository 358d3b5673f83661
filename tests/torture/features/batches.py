"""A batch has a verdict for each of its entries: what failed is retried and set aside by itself, and what went well is acknowledged and
committed once, however the worker ends in the midst of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from random import Random

import redis

from streamworker import BatchContext, Delivery, Reject, StreamWorker
from tests.torture.exactness import exactly_once
from tests.torture.faults.base import Fault, again_and_again, one_of
from tests.torture.faults.network import drop_replies
from tests.torture.faults.processes import kill, roll, take_over_and_leave
from tests.torture.feature import Feature
from tests.torture.history import History, Plan, Rules, Violation
from tests.torture.ledger import Work, note
from tests.torture.load import STREAM, a_moment
from tests.torture.scene import Scene

TARGET = "batch-out"
LOOK_SECONDS = 0.05
MIX = {"batch": 60.0, "batch-fails-once": 20.0, "batch-fails": 8.0, "batch-reject": 8.0, "ok": 10.0}
SILENT = {"batch-silent": 80.0, "batch-fails-once": 20.0}
"""Mostly such as publish nothing, so that they are acknowledged together."""


KINDS = ("batch", "batch-long", "batch-silent", "batch-fails-once", "batch-fails", "batch-reject")


@dataclass(frozen=True)
class OfOne:
    """What the ledger asks of a context, for one entry of a batch."""

    delivery: Delivery


def handlers(app: StreamWorker) -> None:
    """Publish for each entry, and fail those that are to fail."""

    @app.batch_handler(STREAM, type="batch", max_size=8, max_wait=timedelta(milliseconds=60), concurrency=3)
    async def batch(bodies: list[Work], ctx: BatchContext) -> None:
        story = Story(bodies, ctx)
        for position in range(len(bodies)):
            story.tell("started", position)
        try:
            until = asyncio.get_running_loop().time() + max(body.seconds for body in bodies)
            while (left := until - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(min(left, LOOK_SECONDS))
                story.leave_out(ctx.lost)  # a batch goes on for the others, so its handler has to look
        except asyncio.CancelledError:
            story.leave_out(range(len(bodies)))
            raise
        for position in set(range(len(bodies))) - story.left_out:
            story.tell("failed" if decide(ctx, position, bodies[position]) else "done", position)


class Story:
    """What is told of one batch, entry by entry."""

    def __init__(self, bodies: list[Work], ctx: BatchContext) -> None:
        self._bodies = bodies
        self._ctx = ctx
        self.left_out: set[int] = set()

    def tell(self, event: str, position: int) -> None:
        note(event, self._bodies[position], OfOne(self._ctx.deliveries[position]))

    def leave_out(self, positions: Iterable[int]) -> None:
        for position in set(positions) - self.left_out:
            self.left_out.add(position)
            self.tell("cancelled", position)


def decide(ctx: BatchContext, position: int, body: Work) -> bool:
    """Say of one entry what its plan asks for; answers whether it fails."""
    if body.kind != "batch-silent":
        ctx.publish(position, TARGET, {"number": body.number})
    if body.kind == "batch-reject":
        ctx.fail(position, Reject("no"))
    elif ctx.deliveries[position].attempt <= body.failures:
        ctx.fail(position, ValueError("no"))
    else:
        return False
    return True


def a_batch(lease: float, random: Random) -> Plan:
    """It goes well."""
    return Plan("batch", a_moment(random))


def a_long_one(lease: float, random: Random) -> Plan:
    """It keeps its batch for longer than a lease."""
    return Plan("batch-long", lease * random.uniform(1.2, 1.8))


def a_silent_one(lease: float, random: Random) -> Plan:
    """It goes well, and publishes nothing."""
    return Plan("batch-silent", a_moment(random))


def a_failure(lease: float, random: Random) -> Plan:
    """It goes well the second time."""
    return Plan("batch-fails-once", a_moment(random), failures=1)


def a_dead_one(lease: float, random: Random) -> Plan:
    """It never goes well."""
    return Plan("batch-fails", a_moment(random), failures=99, ends="exhausted")


def a_rejected_one(lease: float, random: Random) -> Plan:
    """It is set aside at once."""
    return Plan("batch-reject", a_moment(random), ends="rejected")


def fields(number: int, plan: Plan) -> Mapping[str, str]:
    """By their type they find their handler."""
    return {"_type": "batch"}


def collect(admin: redis.Redis) -> tuple[int, ...]:
    """The numbers of what was published, as it lies there."""
    return tuple(int(found[b"number"]) for _, found in admin.xrange(TARGET))


def batches_commit_exactly(history: History, rules: Rules) -> Iterator[Violation]:
    """I21: what a batch publishes for an entry is there once if that entry succeeded, and not at all if it alone did not."""
    publishing = {kind for kind in KINDS if kind != "batch-silent"}
    return exactly_once("I21", "commits from batches", Counter(history.collected.get("batches", ())), publishing, history)


def take_out(scene: Scene) -> None:
    """Entries that run in a batch, and none that waits to run alone, are claimed by another consumer."""
    take_over_and_leave(scene, deliveries=1)


FEATURE = Feature(
    "batches",
    handlers,
    {
        "batch": a_batch,
        "batch-long": a_long_one,
        "batch-silent": a_silent_one,
        "batch-fails-once": a_failure,
        "batch-fails": a_dead_one,
        "batch-reject": a_rejected_one,
    },
    fields,
    collect,
    (batches_commit_exactly,),
    (
        Fault(
            "kill -9 in the midst of batches",
            again_and_again(kill, 0.9, least=4),
            mix=MIX,
            events=one_of("entries.reclaimed"),
            rules={"restart": 3.0},  # a dead worker leaves dozens, each of which takes steps on the server before it runs alone
        ),
        Fault("rolling restart of batches", again_and_again(roll, 0.2, least=3), mix=MIX, events=one_of("worker.draining")),
        Fault("entries taken out of batches", take_out, mix={**MIX, "batch-long": 4.0}, events=one_of("lease.lost")),
        Fault("reply lost: XACK of batches", drop_replies("XACK"), mix=SILENT, workers=2, proxied="all"),
        Fault("reply lost: settle_commit of batches", drop_replies("settle_commit"), mix=MIX, workers=2, proxied="all"),
    ),
)
