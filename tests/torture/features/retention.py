"""Streams that workers empty or bound lose nothing, and rob no group that lags behind, of whatever framework."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import redis

from streamworker import Retention, StreamWorker
from tests.torture.faults import processes
from tests.torture.faults.base import Fault, Strike, again_and_again, one_of
from tests.torture.faults.network import drop_replies
from tests.torture.feature import Feature
from tests.torture.fleet import until
from tests.torture.history import History, Rules, Violation
from tests.torture.load import PLAIN, STREAM, Mix
from tests.torture.scene import Scene, a_client

VARIABLE, LAGGING, MISSED, LENGTH = "TORTURE_RETENTION", "lagging", "retention:missed", "retention:length"
BOUND = 50
RETENTIONS = {
    "emptied": Retention(delete_when_acked=True),
    "bounded": Retention(max_length=BOUND, max_age=timedelta(seconds=2)),
}
MIX: Mix = {**PLAIN, "commit": 30.0}


def handlers(app: StreamWorker) -> None:
    """Only in faults of this feature: the stream is everybody's."""
    if retention := os.environ.get(VARIABLE):
        app.stream(STREAM, dict[str, str], retention=RETENTIONS[retention])


class Laggard:
    """Another framework's only consumer: it reads a few at a time, takes long, and acknowledges plainly, some out of order."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._client = a_client(scene.server.url)
        self._client.xgroup_create(STREAM, LAGGING, id="$", mkstream=True)
        [group] = [one for one in self._client.xinfo_groups(STREAM) if one["name"] == LAGGING.encode()]
        self._begins_after = _order_of(group["last-delivered-id"].decode())
        self._seen: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="torture-laggard", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        kept: list[tuple[bytes, int]] = []
        loaded = given = True
        while loaded or given:
            loaded = not self._scene.loader.finished.is_set()
            given = self._given_any(kept)
            if len(kept) > 30:
                self._acknowledge(kept[10:])
                del kept[10:]
            self._scene.pause(0.5 if loaded else 0.01)
        self._acknowledge(kept)

    def _given_any(self, kept: list[tuple[bytes, int]]) -> bool:
        reply = self._client.xreadgroup(LAGGING, "slow", {STREAM: ">"}, count=20)
        kept += [(entry_id, int(fields[b"number"])) for entry_id, fields in (reply[0][1] if reply else ())]
        return bool(reply)

    def _acknowledge(self, kept: list[tuple[bytes, int]]) -> None:
        """What it has had to the end; had one gone before, another consumer could not have taken it over."""
        self._seen |= {number for entry_id, number in kept if self._client.xrange(STREAM, entry_id, entry_id)}
        if kept:
            self._client.xack(STREAM, LAGGING, *(entry_id for entry_id, _ in kept))

    def end(self) -> None:
        """Once it has had all: note what it has missed, and go."""
        self._thread.join(120)
        later = [one for one in self._scene.loader.published if one.id and _order_of(one.id) > self._begins_after]
        if missed := [one.number for one in later if one.number not in self._seen]:
            self._client.rpush(MISSED, *missed)
        self._client.xgroup_destroy(STREAM, LAGGING)


def _order_of(entry_id: str) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split("-")))


def beside_a_laggard(strike: Strike, most: int) -> Strike:
    """Do it while another group lags behind, and see that the stream gets as short as it should once that has gone."""

    def inject(scene: Scene) -> None:
        laggard = Laggard(scene)
        try:
            strike(scene)
        finally:
            scene.loader.finished.wait(120)
            laggard.end()
        _note_length(scene, most)

    return inject


def _note_length(scene: Scene, most: int) -> None:
    until(lambda: not scene.what_is_left(), 60, "all is handled")
    with suppress(AssertionError):  # it is noted as it is
        until(lambda: scene.admin.xlen(STREAM) <= most, 20, "the stream is short")
    scene.admin.set(LENGTH, f"{scene.admin.xlen(STREAM)} {most}")


def collect(admin: redis.Redis) -> tuple[tuple[int, ...], tuple[int, int] | None]:
    """What the laggard has missed, and how long the stream was in the end, and may have been; `None` where it was not looked at."""
    noted = admin.get(LENGTH)
    missed = tuple(int(number) for number in admin.lrange(MISSED, 0, -1))
    if noted is None:
        return missed, None
    length, most = map(int, noted.split())
    return missed, (length, most)


def nobody_is_robbed(history: History, rules: Rules) -> Iterator[Violation]:
    """I29: a group that lags is given every entry, and the stream gets as short as its retention says once all groups are done."""
    missed, lengths = history.collected.get("retention", ((), None))
    if missed:
        yield Violation(
            "I29", f"{len(missed)} entries were removed before another group was given them, the first are {missed[:5]}"
        )
    if lengths is not None and lengths[0] > lengths[1]:
        yield Violation("I29", f"the stream has kept {lengths[0]} entries that nobody needs, where it may keep {lengths[1]}")


def _a_fault(name: str, strike: Strike, retention: str, **settings: object) -> Fault:
    most = 0 if retention == "emptied" else BOUND
    environments = ({VARIABLE: retention},)
    return Fault(name, beside_a_laggard(strike, most), mix=MIX, environments=environments, **settings)  # type: ignore[arg-type]


FEATURE = Feature(
    "retention",
    handlers,
    collect=collect,
    invariants=(nobody_is_robbed,),
    faults=(
        _a_fault(
            "retention: kill -9", again_and_again(processes.kill, 0.9, least=3), "emptied", events=one_of("entries.reclaimed")
        ),
        _a_fault("retention: SIGSTOP", again_and_again(processes.stop_and_continue, 1.0), "emptied", events=one_of("lease.lost")),
        _a_fault("retention: kill -9 beside bounds", again_and_again(processes.kill, 0.9, least=3), "bounded"),
        _a_fault("retention: reply lost: ack_and_delete", drop_replies("ack_and_delete"), "emptied", workers=2, proxied="all"),
        _a_fault("retention: reply lost: settle_retry", drop_replies("settle_retry"), "emptied", workers=2, proxied="all"),
        _a_fault("retention: reply lost: trim", drop_replies("trim", step=1), "bounded", workers=2, proxied="all", seconds=6.0),
    ),
)
