"""`python -m tests.benchmarks.budget`: where the time of a delivery goes, by module, in microseconds of CPU.

The worker drains a backlog while it looks at itself; what a module calls outside of the package is at its expense. Rows are the modules'
own first sentences.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from tests.benchmarks.contest import World
from tests.benchmarks.draining import command_of_ours
from tests.benchmarks.places import ROOT, NotHere, Setup
from tests.benchmarks.stage import stage

COUNT = 100_000
SHOWN_FROM = 0.01
"""The least share of a row; the rest is one row."""


def main(words: Sequence[str]) -> int:
    """Print the table."""
    asked = _arguments(words)
    with stage(asked.server, pinned=True) as its_stage:
        try:
            world = World(its_stage, Setup.of(asked.python), asked.tree.resolve(), False, (), print)
            seen, cpu_us = _sampled(world, asked.codec, asked.does, asked.runs)
        except NotHere as reason:
            print(reason)
            return 1
    print(f"Python {asked.python}, {asked.codec}: {cpu_us:.2f} µs of CPU per entry, {sum(seen.values())} samples\n")
    print("\n".join(table(seen, cpu_us, asked.tree)))
    return 0


def table(seen: Mapping[str, int], cpu_us: float, tree: Path) -> list[str]:
    """The rows in Markdown, dearest first."""
    total = sum(seen.values())
    rows = sorted(((count / total, name) for name, count in seen.items()), reverse=True)
    large = [(share, name, _sentence_of(name, tree)) for share, name in rows if share >= SHOWN_FROM]
    rest = 1 - sum(share for share, _, _ in large)
    lines = [f"| {share * cpu_us:.2f} | {share:.0%} | {name} | {sentence} |" for share, name, sentence in large]
    return ["| µs | | where | |", "|---:|---:|---|---|", *lines, f"| {rest * cpu_us:.2f} | {rest:.0%} | all the rest | |"]


def _sentence_of(module: str, tree: Path) -> str:
    parts = module.split(".")
    for path in (tree.joinpath(*parts).with_suffix(".py"), tree.joinpath(*parts, "__init__.py")):
        if path.exists():
            return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
    return ""


def _sampled(world: World, codec: str, does: str, runs: int) -> tuple[Counter[str], float]:
    """What all runs saw, and the middle of what an entry cost in a run that did not look."""
    seen: Counter[str] = Counter()
    costs = []
    its_stage = world.stage
    stream = its_stage.stock(codec, COUNT)
    for number in range(2 * runs):
        asked = {"stream": stream, "codec": codec, "does": does, "count": COUNT, "sampled": number % 2 == 1}
        with (
            its_stage.group(stream) as group,
            its_stage.contender(command_of_ours(world), {**asked, "group": group}, [world.tree]) as worker,
        ):
            worker.next("begins")
            told = worker.next("ends")
        if asked["sampled"]:
            seen.update(told["seen"])
        else:
            costs.append(told["cpu"] / told["count"] * 1e6)
    return seen, median(costs)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.budget", description=__doc__)
    parser.add_argument("--python", default="3.13+speed", metavar="VERSION[+speed]")
    parser.add_argument("--codec", default="json", choices=["json", "fields"])
    parser.add_argument("--does", default="nothing", choices=["nothing", "commit", "sleep", "block"], help="what the handler does")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--server", default="redis")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the source tree to measure; this one")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
