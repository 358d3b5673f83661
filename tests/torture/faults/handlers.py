"""What handlers do to their worker: hang, block it, raise what nobody expects, kill it."""

from __future__ import annotations

from tests.torture.faults.base import Fault, Strike, one_of
from tests.torture.history import Plan
from tests.torture.load import PLAIN, RAISING
from tests.torture.scene import Scene

POISONS = ("poison-exit", "poison-kill", "poison-segfault")
HOW_THEY_DIE = frozenset({66, -9, -11})


def in_the_load(*kinds: str) -> Strike:
    """The entries do it themselves; it fired as often as such entries were handled."""

    def inject(scene: Scene) -> None:
        scene.loader.finished.wait()
        numbers = {entry.number for entry in scene.loader.published if entry.plan.kind in kinds}
        scene.fired += len(numbers)

    return inject


def poison(scene: Scene) -> None:
    """One entry of each kind that kills whichever process runs it, among innocent ones."""
    for kind in POISONS:
        scene.until_busy()
        scene.loader.publish(Plan(kind, 0.05, ends="crashed", kills=True))
        scene.fired += 1
        scene.pause(0.3)
    scene.loader.finished.wait()


FAULTS = (
    Fault(
        "handlers that hang", in_the_load("hang"), mix={"ok": 60, "hang": 6, "hang-always": 3}, events=one_of("delivery.retrying")
    ),
    Fault("handlers that block the loop", in_the_load("block"), mix={**PLAIN, "block": 2.5}, seconds=5.0),
    Fault(
        "handlers that raise anything",
        in_the_load(*RAISING),
        mix={"ok": 60, **dict.fromkeys(RAISING, 3)},
        events=one_of("delivery.dead_lettered"),
    ),
    Fault(
        "poison",
        poison,
        mix={**PLAIN, "long": 2.0},
        rules={"crash_codes": HOW_THEY_DIE, "restart": 5.0},
        events=one_of("entries.reclaimed"),
    ),
)
