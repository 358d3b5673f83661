"""`python -m tests.benchmarks`: measure this tree against loops written by hand, against its peers, and against its targets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.contest import Measured, World, compete, ratios
from tests.benchmarks.places import ROOT, Setup
from tests.benchmarks.scenarios import throughput
from tests.benchmarks.stage import stage
from statistics import median


def main(words: Sequence[str]) -> int:
    asked = _arguments(words)
    def told(name: str, measured: Measured | None, trouble: str) -> None:
        print(f"  {name:30}", {k: round(v, 2) for k, v in measured.items()} if measured else trouble, flush=True)
    for text in asked.python:
        setup = Setup.of(text)
        with stage(asked.server, not asked.unpinned) as of:
            world = World(of, setup, asked.tree.resolve(), asked.quick)
            print(f"throughput on Python {setup}, {of.name}")
            standings = compete(throughput.entrants(world), asked.runs, told)
            for codec in ("json", "fields"):
                for other in ("by hand, json", f"by hand, {codec}", "C client, decodes nothing"):
                    r, c = (sorted(ratios(standings, m, f"streamworker, {codec}", other)) for m in ("rate", "worker_us"))
                    if r: print(f"streamworker, {codec} / {other}: rate {median(r):.2f} ({r[0]:.2f} to {r[-1]:.2f}), worker CPU {median(c):.2f}")
    return 0


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--python", action="append", metavar="VERSION[+speed]")
    parser.add_argument("--tree", type=Path, default=ROOT)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--server", default="redis")
    parser.add_argument("--unpinned", action="store_true")
    asked = parser.parse_args(words)
    asked.python = asked.python or ["3.13+speed"]
    return asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
