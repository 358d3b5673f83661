"""New entries that run as a lot are done like all others, whatever becomes of their worker, their connection and their replies."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import redis
import structlog
from pydantic import BaseModel
from redis.exceptions import RedisError

from streamworker import StreamWorker
from tests.torture.faults import network, processes
from tests.torture.faults.base import Fault, Strike, again_and_again, one_of
from tests.torture.feature import Feature
from tests.torture.fleet import until
from tests.torture.history import History, Rules, Violation
from tests.torture.load import GROUP, PLAIN
from tests.torture.scene import Scene, a_client

VARIABLE, STREAM, NOTED = "TORTURE_LOTS", "lots", "lots:noted"
AT_ONCE, APART = 60, 0.15


class Number(BaseModel):
    """The body: what is to be noted."""

    number: int


def handlers(app: StreamWorker) -> None:
    """Only in faults of this feature. It takes nothing but the body, so what comes together is a lot."""
    if not os.environ.get(VARIABLE):
        return

    @app.handler(STREAM)
    async def note_it(body: Number) -> None:
        if body.number % 31 == 0:
            await asyncio.sleep(0.01)
        if body.number % 53 == 0:
            time.sleep(0.003)  # noqa: ASYNC251  # so that a slice ends within a lot
        if body.number % 47 == 0 and structlog.contextvars.get_contextvars()["attempt"] == 1:
            raise ValueError("again")
        _append(b"%d\n" % body.number)


def _append(line: bytes) -> None:
    file = os.open(f"{os.environ['TORTURE_LEDGER']}/{os.getpid()}.lots", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line)
    os.close(file)


class Publisher:
    """Adds many at once, again and again, as long as the others are loaded."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._client = a_client(scene.server.url)
        self.added: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="torture-lots", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        first = 0
        while not self._scene.loader.finished.is_set():
            with self._client.pipeline(transaction=False) as pipe:
                for number in range(first, first + AT_ONCE):
                    pipe.xadd(STREAM, {"number": number})
                with suppress(RedisError):
                    pipe.execute()
                    self.added |= set(range(first, first + AT_ONCE))
            first += AT_ONCE
            self._scene.pause(APART)

    def end(self) -> None:
        """Wait until all is done, if it gets done, and note how many were added, what is missing and what is left."""
        self._thread.join(120)
        with suppress(AssertionError):  # it is noted as it is
            until(lambda: not self._left(), 40, "lots are done")
        files = self._scene.fleet.folder.glob("*.lots")
        done = {int(line) for file in files for line in file.read_bytes().rpartition(b"\n")[0].split()}
        missing = sorted(self.added - done)
        self._scene.admin.set(NOTED, f"{len(self.added)} {len(missing)} {missing[0] if missing else -1} {self._left()}")

    def _left(self) -> int:
        keys = [f"{{{STREAM}}}:{part}:{GROUP}" for part in ("retry", "due", "parked")]
        waiting = self._client.xlen(keys[0]) + self._client.zcard(keys[1]) + self._client.hlen(keys[2])
        [group] = [one for one in self._client.xinfo_groups(STREAM) if one["name"] == GROUP.encode()]
        unread = self._client.xrange(STREAM, f"({group['last-delivered-id'].decode()}", "+", count=10)
        return int(group["pending"]) + waiting + len(unread)


def beside_lots(strike: Strike) -> Strike:
    """Do it while lots come in."""

    def inject(scene: Scene) -> None:
        publisher = Publisher(scene)
        try:
            strike(scene)
        finally:
            scene.loader.finished.wait(120)
            publisher.end()

    return inject


def collect(admin: redis.Redis) -> tuple[int, ...]:
    """How many entries were added, how many of them were never done, the first of these, and how many are left to be done."""
    noted = admin.get(NOTED)
    return () if noted is None else tuple(map(int, noted.split()))


def nothing_of_a_lot_is_lost(history: History, rules: Rules) -> Iterator[Violation]:
    """I32: whatever came in lots has succeeded in the end, and nothing of it is left pending or waiting."""
    noted = history.collected.get("lots", ())
    if not noted:
        return
    added, missing, first, left = noted
    if missing:
        yield Violation("I32", f"{missing} of {added} entries that came in lots were never done, the first is {first}")
    if left:
        yield Violation("I32", f"{left} entries of {added} that came in lots are left")


def _a_fault(name: str, strike: Strike, **settings: object) -> Fault:
    return Fault(f"lots: {name}", beside_lots(strike), mix=PLAIN, environments=({VARIABLE: "1"},), **settings)  # type: ignore[arg-type]


FEATURE = Feature(
    "lots",
    handlers,
    collect=collect,
    invariants=(nothing_of_a_lot_is_lost,),
    faults=(
        _a_fault("kill -9", again_and_again(processes.kill, 0.9, least=3), events=one_of("entries.reclaimed")),
        _a_fault("SIGSTOP", again_and_again(processes.stop_and_continue, 1.0), events=one_of("lease.lost")),
        _a_fault("rolling restart", again_and_again(processes.roll, 0.2, least=3)),
        _a_fault("cuts", again_and_again(network.cut, 0.4, least=3), workers=2, proxied="all"),
        _a_fault("reply lost: XREADGROUP BLOCK", network.drop_replies("XREADGROUP BLOCK"), workers=2, proxied="all"),
        _a_fault("reply lost: XACK", network.drop_replies("XACK"), workers=2, proxied="all"),
    ),
)
