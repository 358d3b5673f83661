"""Bugs that the checker must see: each is patched into a copy of the package, and a named fault is run with it.

A patch that does not apply any more fails, so that it is brought up to date with the code.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.torture import faults
from tests.torture.fleet import ROOT
from tests.torture.run import Order, Result, run
from tests.torture.scene import Canary

ENTRIES = 300
TRIES = 3
"""Chance may spare a bug once."""


@dataclass(frozen=True)
class Bug:
    """What to replace in which file of the package, and the fault under which it must be caught."""

    name: str
    file: str
    old: str
    new: str
    fault: str


BUGS = (
    Bug(
        "a renewal without the fence takes entries back from their new owner",
        "streams/scripts/renew.lua",
        "if pending[1] and pending[1][2] == consumer and pending[1][4] == tonumber(ARGV[position + 1]) then",
        "if pending[1] then",
        "entries taken over",
    ),
    Bug(
        "the entry is acknowledged before its dead letter is written",
        "streams/scripts/settle_dead_letter.lua",
        "local command = { 'XADD', KEYS[2] }",
        "acknowledge()\nlocal command = { 'XADD', KEYS[2] }",
        "wrong type: dlq",
    ),
    Bug(
        "a consumer is deleted without a look at what it has pending",
        "streams/scripts/forget_consumer.lua",
        "if redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])[1] then return 0 end",
        "",
        "TERM while nothing can be given back",
    ),
    Bug(
        "reconciling takes up what is in flight as well",
        "streams/scripts/reconcile.lua",
        "if not held[id] then",
        "if true then",
        "CLIENT KILL in a loop",
    ),
    Bug(
        "a vanished group is made again at the end of its stream",
        "worker/bindings.py",
        "return min(places, key=order_of)",
        'return "$"',
        "XGROUP DESTROY",
    ),
    Bug(
        "an entry is acknowledged before its handler runs",
        "worker/consumer.py",
        "        outcome = await self._outcome(trip)\n",
        "        from streamworker.streams import settling\n"
        "        await settling.ack(self._link, trip.delivery.group, [trip.delivery.lease])\n"
        "        outcome = await self._outcome(trip)\n",
        "kill -9 of workers",
    ),
)


def patched(bug: Bug, folder: Path) -> Path:
    """A copy of the package with this bug; answers the folder it lies in. Raises `LookupError` where the patch does not apply."""
    copy = folder / "streamworker"
    shutil.copytree(ROOT / "streamworker", copy, ignore=shutil.ignore_patterns("__pycache__"))
    file = copy / bug.file
    text = file.read_text()
    if text.count(bug.old) != 1:
        raise LookupError(f"the seeded bug does not apply any more, so bring it up to date: {bug.name!r} in {bug.file}")
    file.write_text(text.replace(bug.old, bug.new))
    return folder


def uncaught(programs: Mapping[str, Path], seed: int, jobs: int) -> list[str]:
    """Run each bug under its fault until it is caught; answers those that were not."""
    canary = Canary()
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda bug: _is_caught(bug, programs, seed, canary), BUGS))
    return [bug.name for bug, caught in zip(BUGS, found, strict=True) if not caught]


def _is_caught(bug: Bug, programs: Mapping[str, Path], seed: int, canary: Canary) -> bool:
    name, binary = next(iter(programs.items()))
    for attempt in range(TRIES):
        with tempfile.TemporaryDirectory(prefix="torture-bug-") as folder:
            order = Order(faults.named(bug.fault), name, binary, ENTRIES, seed + attempt, package_root=patched(bug, Path(folder)))
            result = run(order, canary)
        if evidence := evidence_in(result):
            print(f"caught  {bug.name} ({bug.fault}, {result.seconds:.0f} s): {evidence[:200]}", flush=True)
            return True
    print(f"MISSED  {bug.name} ({bug.fault}, {TRIES} tries)", flush=True)
    return False


def evidence_in(result: Result) -> str:
    """The violation that gives a bug away; a harness that failed, or a fault that never fired, gives away nothing."""
    return next((one for one in result.violations if not one.startswith(("harness", "vacuous"))), "")
