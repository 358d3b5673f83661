"""A read that is ended on purpose, as by a drain, takes along nothing that was just being given to it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.torture.faults.base import Fault, one_of
from tests.torture.faults.processes import roll
from tests.torture.feature import Feature
from tests.torture.history import History, Rules, Violation
from tests.torture.proxy import Shape
from tests.torture.scene import Scene

LATE_SECONDS = 0.04
PROMPT_SECONDS = 0.85
"""Less than the lease of one second that an entry waits for whose delivery was lost, and much more than a delivery over that line."""


def entries_start_promptly(history: History, rules: Rules) -> Iterator[Violation]:
    """I14: an entry that nothing on record has kept starts within `prompt` of its publication; what a reader drops waits for its lease."""
    first: dict[int, float] = {}
    for run in history.runs:
        first[run.number] = min(run.started, first.get(run.number, run.started))
    for entry in history.published:
        waited = first.get(entry.number, entry.completed) - entry.completed
        kept = any(one.begin <= entry.completed + waited and one.end >= entry.completed for one in history.disturbances)
        if waited > rules.prompt + rules.slack and not kept:
            yield Violation(
                "I14", f"entry {entry.number} started {waited:.2f} s after it was published, the bound is {rules.prompt:g} s"
            )


def roll_over_a_slow_line(scene: Scene) -> None:
    """Replies are late, so that at any moment some entry is on its way to a worker that is being told to go."""
    shape = scene.the_proxy.shape("to_client", Shape(delay=LATE_SECONDS))
    for _ in scene.while_loaded(0.2, least=3):
        roll(scene)
    scene.the_proxy.shape("to_client", None)
    if not shape.fired:
        raise AssertionError("no reply was late")


FEATURE = Feature(
    "reading",
    invariants=(entries_start_promptly,),
    faults=(
        Fault(
            "rolling restart over a slow line",
            roll_over_a_slow_line,
            mix={"ok": 1.0},
            proxied="all",
            seconds=5.0,
            events=one_of("worker.draining"),
            rules={"prompt": PROMPT_SECONDS},
        ),
    ),
)
