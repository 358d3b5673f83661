"""What happens to workers: killed, frozen, robbed of an entry, named alike, replaced, told to go while nothing can be given back."""

from __future__ import annotations

import time
from dataclasses import replace
from math import inf

from redis.exceptions import RedisError

from tests.torture.faults.base import Fault, again_and_again, one_of
from tests.torture.fleet import until
from tests.torture.history import NEW_ATTEMPTS, OLD_ATTEMPTS, Disturbance
from tests.torture.load import GROUP, PLAIN, STREAM
from tests.torture.scene import USER, Scene

THIEF = "thief"
LONG_ONES = {**PLAIN, "long": 30.0}


def kill(scene: Scene) -> None:
    """SIGKILL. That it died is seen by whoever looks after the processes."""
    worker = scene.fleet.any_ready(scene.random)
    scene.fleet.kill(worker)
    scene.fired += 1


def stop_and_continue(scene: Scene) -> None:
    """SIGSTOP for longer than a lease, as a paused virtual machine or a swapping one does, then SIGCONT."""
    worker = scene.fleet.any_ready(scene.random)
    with scene.hit("stop", workers=[worker], freezes=True, heals=False):
        worker.freeze(True)
        scene.pause(scene.lease * scene.random.uniform(1.3, 2.2))
        worker.freeze(False)


def take_over(scene: Scene, deliveries: float = inf) -> None:
    """Another consumer claims entries that are being run, as an operator or a foreign program may. Their workers must let go.

    Only those that were delivered so often at most: the thief counts as one who died, and three of them alone are the end of an entry.
    """
    try:
        pending = scene.admin.xpending_range(STREAM, GROUP, "-", "+", 50)
    except RedisError:
        return
    held = [row for row in pending if row["consumer"] != THIEF.encode() and row["times_delivered"] <= deliveries]
    # The oldest are those that run longest.
    for row in held[:2]:
        entry_id = row["message_id"].decode()
        if scene.admin.xclaim(STREAM, GROUP, THIEF, 0, [entry_id]):
            now = time.monotonic()
            scene.disturbances.append(Disturbance("taken", now, now, takes=entry_id))
            scene.fired += 1


def take_over_and_leave(scene: Scene, deliveries: float = inf) -> None:
    """Again and again; in the end nothing is left with the thief, and its name goes."""
    again_and_again(lambda scene: take_over(scene, deliveries), 0.4)(scene)
    until(lambda: not scene.admin.xpending_range(STREAM, GROUP, "-", "+", 1, THIEF), 20, "all is taken back from the thief")
    scene.admin.xgroup_delconsumer(STREAM, GROUP, THIEF)


def roll(scene: Scene) -> None:
    """A rolling restart: a new worker, then TERM to an old one. Nothing may run twice, so nothing is put on record."""
    scene.fleet.replace(scene.fleet.any_ready(scene.random))
    scene.fired += 1


def roll_to_the_new_version(scene: Scene) -> None:
    """A rollout: each old worker in turn is replaced by one that knows one type more and makes more attempts."""
    old = [worker for worker in scene.fleet.ready_ones() if not worker.recipe.environment]
    for worker in old:
        scene.pause(1.0)
        scene.fleet.replace(worker, replace(worker.recipe, environment={"TORTURE_VERSION": "new"}))
        scene.fired += 1
    scene.loader.finished.wait()


def take_the_name(scene: Scene) -> None:
    """A second process with the consumer name of the first: it must go, and disturb nothing. After a kill the name is to be had again."""
    owner = scene.fleet.any_ready(scene.random)
    impostor = scene.fleet.start(owner.recipe, ready=False, kept_up=False)
    until(lambda: not impostor.is_alive(), 15, "the second process of one name ends by itself")
    scene.fired += 1
    if scene.random.random() < 0.5:
        scene.fleet.kill(owner)
        scene.pause(0.3)
        scene.fleet.any_ready(scene.random)


def drain_while_nothing_can_be_given_back(scene: Scene) -> None:
    """TERM with a short grace while XADD is forbidden: what is interrupted cannot be released, and stays pending under a name that goes."""
    for _ in scene.while_loaded(0.5):
        scene.until_busy()
        leaving = scene.fleet.any_ready(scene.random)
        with scene.hit("XADD forbidden"):
            scene.admin.execute_command("ACL", "SETUSER", USER, "-xadd")
            scene.fleet.retire(leaving)
            scene.admin.execute_command("ACL", "SETUSER", USER, "+xadd")
        scene.fleet.start(leaving.recipe)


FAULTS = (
    Fault("kill -9 of workers", again_and_again(kill, 0.9, least=4), events=one_of("entries.reclaimed")),
    Fault("SIGSTOP of workers", again_and_again(stop_and_continue, 0.3), mix=LONG_ONES, events=one_of("lease.lost")),
    Fault("entries taken over", take_over_and_leave, mix=LONG_ONES, events=one_of("lease.lost")),
    Fault("rolling restart", again_and_again(roll, 0.2, least=3), events=one_of("worker.draining")),
    Fault(
        "rollout of a new version",
        roll_to_the_new_version,
        mix={**PLAIN, "new": 15.0},
        rules={"max_attempts": frozenset(range(OLD_ATTEMPTS, NEW_ATTEMPTS + 1))},
        events=one_of("delivery.retrying"),
    ),
    Fault(
        "one consumer name for two",
        again_and_again(take_the_name, 0.3),
        workers=1,
        seconds=5.0,
        options=("--consumer", "same"),
        rules={"crash_codes": frozenset({1, 2})},
        events=one_of("worker.ready"),
    ),
    Fault(
        "TERM while nothing can be given back",
        drain_while_nothing_can_be_given_back,
        mix={**PLAIN, "long": 12.0},
        options=("--grace", "200ms"),
        rules={"exit_codes": frozenset({0, 4})},
        events=one_of("release.failing"),
    ),
)
