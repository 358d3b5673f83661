"""`python -m tests.benchmarks.gate`: no change may make the paths that matter dearer by more than a bound without saying so.

Counts the instructions that a worker executes for an entry, in this tree and in the commit that it comes from, with valgrind's cachegrind
(https://valgrind.org/docs/manual/cg-manual.html): a count hardly depends on what else the machine does, as a time would. Each path is run
with few and with many entries; the difference, divided, is an entry's, and what is left is the start's.

A change that is dearer on purpose says why in a commit message: a line `Dearer: because …`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.places import CONTENDERS, ROOT, NotHere
from tests.benchmarks.stage import Failed, Stage, stage

FEW, MANY = 1_000, 8_000
BOUND = 1.10
"""What this tree may need, as a multiple of what the other needs; counts of the same tree differ by less than one percent."""
SLOWEST = 600.0
"""Seconds for one run: valgrind is some fifty times slower than the processor."""
VALGRIND = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]


@dataclass(frozen=True)
class Route:
    """One of the paths that matter: what is run, and what it is asked."""

    name: str
    asked: dict[str, Any]
    publishes: bool = False

    def command(self, stage: Stage, count: int) -> list[str]:
        """The program, which ends by itself after so many entries."""
        if self.publishes:
            return [sys.executable, str(CONTENDERS / "publishing.py")]
        options = ["-u", stage.url, "--loop", "asyncio", "--log-level", "warning", "--max-deliveries", str(count)]
        return [sys.executable, "-m", "streamworker", "run", f"{CONTENDERS / 'ours.py'}:app", *options]


ROUTES = (
    Route("handle, json", {"codec": "json"}),
    Route("handle, fields", {"codec": "fields"}),
    Route("handle and publish", {"codec": "json", "does": "commit"}),
    Route("publish, 100 at once", {"codec": "json", "who": "streamworker", "way": "at once", "uvloop": False}, publishes=True),
)


@dataclass(frozen=True)
class Count:
    """Instructions for an entry, and for the start and the end of the process."""

    entry: float
    rest: float


def main(words: Sequence[str]) -> int:
    """0 when this tree is within the bound, or nothing can be said; 1 when it is not."""
    asked = _arguments(words)
    try:
        if shutil.which("valgrind") is None:
            raise NotHere("valgrind is not installed")
        base = _base(asked.base)
        with _tree_of(base) as other:
            ours, theirs = _count_both(asked.tree.resolve(), other)
    except NotHere as reason:
        print(f"gate: passed without a comparison: {reason}")
        return 0
    print(f"gate: instructions, in thousands for an entry and in millions for start and end; {base[:12]} against this tree")
    dearer = [line for line in _lines(ours, theirs, asked.bound) if line.endswith("DEARER")]
    if not dearer:
        return 0
    reason = _reason(base)
    print(
        f"gate: {'dearer on purpose: ' + reason if reason else 'too dear; profile it, or say why in a commit message: Dearer: …'}"
    )
    return 0 if reason else 1


def _lines(ours: dict[str, Count], theirs: dict[str, Count], bound: float) -> list[str]:
    lines = []
    for name in ours:
        pairs = (
            (name, 1e3, theirs[name].entry, ours[name].entry),
            (f"{name}: start and end", 1e6, theirs[name].rest, ours[name].rest),
        )
        for what, unit, before, now in pairs:
            ratio = now / before
            lines.append(f"{what:<36}{before / unit:>10.1f}{now / unit:>10.1f}{ratio:>8.3f}  {'DEARER' if ratio > bound else 'ok'}")
            print(lines[-1])
    return lines


def _count_both(ours: Path, theirs: Path) -> tuple[dict[str, Count], dict[str, Count]]:
    """Both trees on one server, as many at a time as there are cores."""
    with stage("redis", pinned=False) as on, ThreadPoolExecutor(os.cpu_count()) as pool:
        for path in ROUTES:
            for count in (FEW, MANY):
                if not path.publishes:
                    on.stock(path.asked["codec"], count)
        jobs = {
            (tree, path.name, count): pool.submit(_instructions, on, tree, path, count)
            for path in ROUTES
            for tree in (ours, theirs)
            for count in (FEW, MANY)
        }
        try:
            counted = {job: future.result() for job, future in jobs.items() if job[0] == ours}
        except Failed as failure:
            raise SystemExit(f"gate: this tree does not come to its end: {failure}") from failure
        try:
            counted |= {job: future.result() for job, future in jobs.items() if job[0] == theirs}
        except Failed as failure:
            raise NotHere(f"the other tree cannot be measured with this suite: {failure}") from failure
    first, second = ({path.name: _split(counted, tree, path.name) for path in ROUTES} for tree in (ours, theirs))
    return first, second


def _split(counted: dict[tuple[Path, str, int], int], tree: Path, name: str) -> Count:
    few, many = counted[tree, name, FEW], counted[tree, name, MANY]
    entry = (many - few) / (MANY - FEW)
    return Count(entry, few - FEW * entry)


def _instructions(on: Stage, tree: Path, path: Route, count: int) -> int:
    """What one run of a path executes."""
    stream = f"gate-{tree.name}-{path.name}-{count}" if path.publishes else on.stock(path.asked["codec"], count)
    with on.group(stream) as group:
        asked = {"stream": stream, "group": group, "count": count, "concurrency": 100, **path.asked}
        with on.contender([*VALGRIND, *path.command(on, count)], asked, [tree], {"PYTHONHASHSEED": "0"}) as contender:
            contender.next("begins", SLOWEST)
            contender.next("ends", SLOWEST)
            contender.wait(SLOWEST)
            said = contender.output()
    found = re.search(r"I\s+refs:\s+([\d,]+)", said)
    if found is None:
        raise Failed(f"valgrind said nothing: {said[-500:]}")
    return int(found[1].replace(",", ""))


def _base(given: str | None) -> str:
    """The commit to compare with: the one given, or where this one left main, or the one before it where this is main. Raises `NotHere`."""
    if given is not None:
        return _git("rev-parse", "--verify", f"{given}^{{commit}}") or _no(f"there is no commit {given}")
    head = _git("rev-parse", "HEAD") or _no("this is no git repository")
    for main_branch in ("origin/main", "main"):
        base = _git("merge-base", "HEAD", main_branch)
        if base and base != head:
            return base
    return _git("rev-parse", "--verify", "HEAD^1") or _no("this clone does not hold the commit before this one")


def _reason(base: str) -> str:
    """Why it is dearer on purpose, if a commit message says so."""
    found = re.findall(r"^Dearer: *(\S.*)$", _git("log", "--format=%B", f"{base}..HEAD"), re.MULTILINE)
    return "; ".join(found)


@contextmanager
def _tree_of(commit: str) -> Iterator[Path]:
    """The package as it was in that commit."""
    with tempfile.TemporaryDirectory(prefix="gate-") as folder:
        archive = Path(folder) / "package.tar"
        if subprocess.run(
            ["git", "-C", str(ROOT), "archive", "-o", str(archive), commit, "streamworker"], capture_output=True
        ).returncode:
            raise NotHere(f"{commit[:12]} holds no package")
        tree = Path(folder) / "base"
        shutil.unpack_archive(archive, tree)
        yield tree


def _git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True).stdout.strip()


def _no(reason: str) -> str:
    raise NotHere(reason)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gate", description=__doc__)
    parser.add_argument("--base", help="the commit to compare with; where this one left main, or the one before it")
    parser.add_argument("--bound", type=float, default=BOUND, help=f"how much dearer this tree may be; {BOUND}")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the tree to measure; this one")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
