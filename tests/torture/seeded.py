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
class Edit:
    """What to replace in which file of the package."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Bug:
    """A bug by what it does, the fault under which it must be caught, by which invariants, and the edits that make it."""

    name: str
    fault: str
    breaks: frozenset[str]
    """The invariants by which it shows; others may be broken by chance, and prove nothing."""
    edits: tuple[Edit, ...]


BUGS = (
    Bug(
        "an exception in a lot counts as success",
        "lots: kill -9",
        frozenset({"I32"}),
        (
            Edit(
                "worker/plain.py",
                "  # whatever user code raises is an outcome\n            return at, Failed(error)",
                "\n            driver = steps()\n            send, stop = driver.send, at + 1\n            continue",
            ),
        ),
    ),
    Bug(
        "a renewal without the fence takes entries back from their new owner",
        "entries taken over",
        frozenset({"I3"}),
        (
            Edit(
                "streams/scripts/renew.lua",
                "if pending[1] and pending[1][2] == consumer and turn_of(pending[1][4]) == tonumber(ARGV[position + 1]) then",
                "if pending[1] then",
            ),
        ),
    ),
    Bug(
        "the entry is acknowledged before its dead letter is written",
        "wrong type: dlq",
        frozenset({"I1"}),
        (
            Edit(
                "streams/scripts/settle_dead_letter.lua",
                "local command = { 'XADD', KEYS[3] }",
                "acknowledge()\nlocal command = { 'XADD', KEYS[3] }",
            ),
        ),
    ),
    Bug(
        "a consumer is deleted without a look at what it has pending",
        "TERM while nothing can be given back",
        frozenset({"I1"}),
        (
            Edit(
                "streams/scripts/forget_consumer.lua",
                "if redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])[1] then return 0 end",
                "",
            ),
        ),
    ),
    Bug(
        "reconciling after a reconnect runs what is in flight once more",
        "CLIENT KILL in a loop",
        frozenset({"I2", "I3", "I13"}),
        (
            Edit("streams/scripts/reconcile.lua", "if not held[id] then", "if true then"),
            Edit("worker/intake.py", "        if held is lease:\n", "        if True:\n"),
        ),
    ),
    Bug(
        "a worker with an order reads on while what a dead one held is still out",
        "order: kill -9 of the only worker",
        frozenset({"I7"}),
        (Edit("worker/doubt.py", "self._inherited = not intake.order", "self._inherited = True"),),
    ),
    Bug(
        "permits that are granted together count as one",
        "flow: kill -9 under a rate limit",
        frozenset({"I22"}),
        (Edit("streams/scripts/permits.lua", "free = free + count * interval", "free = free + interval"),),
    ),
    Bug(
        "what a pause holds back spends an attempt",
        "flow: pauses",
        frozenset({"I5"}),
        (
            Edit(
                "policies.py",
                "return RetryLater(_bounded(after), delivery.history)",
                "return RetryLater(_bounded(after), replace(delivery.history, attempt=delivery.attempt + 1))",
            ),
        ),
    ),
    Bug(
        "a pause is seen by the processes that start after it only",
        "flow: pauses",
        frozenset({"I23"}),
        (Edit("worker/scheduler.py", "pauses.heed(looked.pauses)", "pass"),),
    ),
    Bug(
        "a kill switch never trips",
        "flow: a downstream that goes away",
        frozenset({"I6"}),
        (Edit("worker/kill_switch.py", "if len(self._results) < self._policy.after or", "if True or"),),
    ),
    Bug(
        "a vanished group is made again at the end of its stream",
        "XGROUP DESTROY",
        frozenset({"I1"}),
        (Edit("worker/bindings.py", "return min(places, key=order_of)", 'return "$"'),),
    ),
    Bug(
        "a blocked read is cut off, where it should be unblocked",
        "rolling restart over a slow line",
        frozenset({"I14"}),
        (
            Edit(
                "worker/reader.py",
                "        self._awake.set()\n        self.parked.nudge()\n",
                "        self._awake.set()\n        asyncio.ensure_future(self._link.close())\n",
            ),
        ),
    ),
    Bug(
        "what a handler wrote is sent beside the acknowledgement, and not in it",
        "effects: reply lost",
        frozenset({"I6"}),
        (
            Edit(
                "streams/settling.py",
                "arguments += [write.command, len(write.values), *write.values]",
                "await link.call(write.command, write.key, *write.values)",
            ),
            Edit("streams/settling.py", " + [write.key for write in writes]", ""),
        ),
    ),
    Bug(
        "a tick is published, and nobody remembers it",
        "kill: who ticks",
        frozenset({"I15"}),
        (Edit("streams/scripts/tick.lua", "redis.call('SET', KEYS[1], text(tick))\n", ""),),
    ),
    Bug(
        "a bounded stream is trimmed without a look at what its groups need",
        "retention: kill -9 beside bounds",
        frozenset({"I29"}),
        (
            Edit("streams/scripts/trim.lua", "local bound = is_before(guard, before) and guard or before", "local bound = before"),
            Edit("streams/scripts/trim.lua", "if is_before(guard, before) then before = guard end", ""),
            Edit("streams/scripts/trim.lua", "and is_before(id, guard) do", "do"),
        ),
    ),
    Bug(
        "what one group has acknowledged is deleted under another",
        "retention: kill -9",
        frozenset({"I29"}),
        (
            Edit("streams/scripts/retire.lua", "if not is_needed(id) then", "if true then"),
            Edit("streams/scripts/ack_and_delete.lua", "if ARGV[2] == '1' then", "if false then"),
        ),
    ),
    Bug(
        "what a batch handler says of single entries is not heeded",
        "kill -9 in the midst of batches",
        frozenset({"I21"}),
        (
            Edit(
                "worker/batch_carrier.py",
                "if outcome is not SUCCEEDED or not context.is_all_good or",
                "if outcome is not SUCCEEDED or",
            ),
        ),
    ),
    Bug(
        "a death of a handler's process is not counted",
        "processes that their entries kill",
        frozenset({"I31"}),
        (Edit("policies.py", "crashes=history.crashes + 1, crashes_alone", "crashes=history.crashes, crashes_alone"),),
    ),
    Bug(
        "an entry is acknowledged before its handler runs",
        "kill -9 of workers",
        frozenset({"I1"}),
        (
            Edit(
                "worker/carrier.py",
                "            outcome = self._executor.begin(delivery, handler)\n",
                "            self._acks.gather(delivery.lease)\n            outcome = self._executor.begin(delivery, handler)\n",
            ),
        ),
    ),
)


def patched(bug: Bug, folder: Path) -> Path:
    """A copy of the package with this bug; answers the folder it lies in. Raises `LookupError` where the patch does not apply."""
    copy = folder / "streamworker"
    shutil.copytree(ROOT / "streamworker", copy, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in bug.edits:
        file = copy / edit.file
        text = file.read_text()
        if text.count(edit.old) != 1:
            raise LookupError(f"the seeded bug does not apply any more, so bring it up to date: {bug.name!r} in {edit.file}")
        file.write_text(text.replace(edit.old, edit.new))
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
        if evidence := evidence_in(result, bug):
            print(f"caught  {bug.name} ({bug.fault}, {result.seconds:.0f} s): {evidence[:200]}", flush=True)
            return True
    print(f"MISSED  {bug.name} ({bug.fault}, {TRIES} tries)", flush=True)
    return False


def evidence_in(result: Result, bug: Bug) -> str:
    """The violation that gives this bug away. A run that did not drain, a broken harness, a fault that never fired give nothing away."""
    found = (one for one in result.violations if one.partition(":")[0] in bug.breaks and "did not drain" not in one)
    return next(found, "")
