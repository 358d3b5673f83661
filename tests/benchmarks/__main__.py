"""`python -m tests.benchmarks`: measure this tree against loops written by hand, against its peers, and against its targets.

Every scenario runs its entrants in turns against one private server; what is compared is the ratio within a round.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests import servers
from tests.benchmarks import peers, report
from tests.benchmarks.contest import Measured, World, compete
from tests.benchmarks.places import ROOT, NotHere, Setup, installed
from tests.benchmarks.scenarios import ALL, Scenario
from tests.benchmarks.stage import Stage, stage
from tests.benchmarks.targets import TARGETS, judge_all, summary

SETUPS = ("3.13+speed", "3.11+speed", "3.11")
FULL_RUNS, QUICK_RUNS = 5, 3


def main(words: Sequence[str]) -> int:
    """Run what is asked for; 0 unless nothing could be run."""
    asked = _arguments(words)
    console = Console(stderr=True) if sys.stderr.isatty() else Console(stderr=True, width=160)
    chapters: list[report.Chapter] = []
    with stage(asked.server, not asked.unpinned) as its_stage:
        machine = report.machine(its_stage.name, asked.tree)
        console.print(", ".join(f"{name}: {value}" for name, value in machine.items()), highlight=False)
        for scenario in asked.only:
            for text in asked.python:
                chapter = _chapter(scenario, text, its_stage, asked, console)
                if chapter is not None:
                    report.show(chapter, console)
                    chapters.append(chapter)
    if asked.json is not None:
        asked.json.write_text(report.as_json(chapters, machine | {"environments": installed()}))
    if asked.markdown is not None:
        asked.markdown.write_text(report.markdown(chapters))
    judged = summary([judgement for chapter in chapters for judgement in chapter.judgements])
    print("targets: " + ", ".join(f"{number} {name}" for name, number in judged.items()))
    return 0 if chapters else 1


def _chapter(
    scenario: Scenario, setup: str, its_stage: Stage, asked: argparse.Namespace, console: Console
) -> report.Chapter | None:
    def say(sentence: str) -> None:
        console.print(sentence, highlight=False, markup=False)

    world = World(its_stage, Setup.of(setup), asked.tree.resolve(), asked.quick, asked.peers, say)
    try:
        with console.status(f"{scenario.name}: preparing Python {setup}"):
            its_stage.clear()
            _ = world.setup.python
            entrants = scenario.entrants(world)
    except NotHere as reason:
        console.print(f"{scenario.name} on Python {setup} is left out: {reason}", highlight=False)
        return None
    with _progress(console) as progress:
        task = progress.add_task(f"{scenario.name}, {setup}", total=len(entrants) * asked.runs)

        def told(name: str, measured: Measured | None, trouble: str) -> None:
            progress.advance(task)
            said = "  ".join(f"{key} {value:,.4g}" for key, value in measured.items()) if measured else f"failed: {trouble}"
            if measured is None or asked.verbose:
                progress.console.print(f"  {name:32} {said}", highlight=False, markup=False)

        standings = compete(entrants, asked.runs, told, asked.others)
    judgements = judge_all(scenario.name, setup, standings, TARGETS)
    return report.Chapter(scenario.name, scenario.title, setup, standings, judgements)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def _scenarios(text: str) -> list[Scenario]:
    names = text.split(",")
    chosen = [scenario for scenario in ALL if any(scenario.name.startswith(name) for name in names)]
    if not all(any(scenario.name.startswith(name) for scenario in ALL) for name in names):
        raise argparse.ArgumentTypeError(f"there are {', '.join(scenario.name for scenario in ALL)}")
    return chosen


def _peers(text: str) -> tuple[str, ...]:
    names = peers.names() if text == "all" else [] if text == "none" else text.split(",")
    if unknown := set(names).difference(peers.names()):
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(peers.names())}")
    return tuple(names)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the entries, three rounds")
    parser.add_argument(
        "--only", type=_scenarios, default=list(ALL), help="scenarios, or beginnings of their names, with commas between"
    )
    parser.add_argument("--runs", type=int, help=f"rounds: {FULL_RUNS}, quick {QUICK_RUNS}")
    parser.add_argument("--peers", type=_peers, help=f"all, none, or some of {', '.join(peers.names())}; all, quick none")
    parser.add_argument("--python", action="append", metavar="VERSION[+speed]", help=f"may be repeated; {', '.join(SETUPS)}")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the source tree to measure; this one")
    parser.add_argument("--server", default="redis", choices=sorted(servers.present()), help="a kind of server that is here")
    parser.add_argument("--unpinned", action="store_true", help="let server and contenders share the cores as they please")
    parser.add_argument(
        "--others", type=float, default=1000, metavar="PERCENT", help="repeat a run beside which others used more of a core"
    )
    parser.add_argument("--json", type=Path, help="write every run to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    parser.add_argument("-v", "--verbose", action="store_true", help="say every run as it ends")
    asked = parser.parse_args(words)
    asked.python = asked.python or list(SETUPS)
    asked.peers = _peers("none" if asked.quick else "all") if asked.peers is None else asked.peers
    asked.runs = asked.runs or (QUICK_RUNS if asked.quick else FULL_RUNS)
    return asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
