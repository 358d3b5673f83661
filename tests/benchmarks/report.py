"""What the suite says: tables for people, Markdown for the page, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.contest import Standing, Standings, ratios
from tests.benchmarks.targets import Judgement, summary

TITLES = {
    "rate": "entries/s",
    "promoted_s": "promoted/s",
    "p50_us": "p50 µs",
    "p99_us": "p99 µs",
    "max_us": "max µs",
    "commands_s": "commands/s",
    "cpu_percent": "CPU %",
    "worker_us": "worker CPU µs/entry",
    "server_us": "server CPU µs/entry",
    "server_busy": "server's CPU %",
    "rss_mb": "RSS MB",
    "commands": "commands/entry",
    "slow_commands": "commands above 10 ms",
    "reclaimed_s": "reclaimed/s",
    "start_ms": "start to first delivery ms",
    "others_busy": "others' CPU %",
}
"""Every measure in the order of the columns, and what stands above it."""


@dataclass(frozen=True)
class Chapter:
    """A scenario's outcome on one setup."""

    scenario: str
    title: str
    setup: str
    standings: Standings
    judgements: Sequence[Judgement]


def show(chapter: Chapter, console: Console) -> None:
    """Draw a chapter as it ends."""
    table = Table(title=f"{chapter.title} · Python {chapter.setup}", title_justify="left")
    head, rows = _table(chapter)
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for judgement in chapter.judgements:
        colour = {True: "green", False: "red", None: "yellow"}[judgement.reached]
        console.print(f"  [{colour}]{_verdict(judgement)}[/] {_said(judgement)}", highlight=False)


def markdown(chapters: Sequence[Chapter]) -> str:
    """All chapters, as the page has them."""
    parts = []
    for chapter in chapters:
        head, rows = _table(chapter)
        lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
        parts.append(f"### {chapter.title}, Python {chapter.setup}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    judged = [judgement for chapter in chapters for judgement in chapter.judgements]
    lines = [f"| {judgement.setup} | {_said(judgement)} | {_verdict(judgement)} |" for judgement in judged]
    parts.append("\n".join(["### Targets", "", "| Python | target | |", "|---|---|---|", *lines]))
    return "\n\n".join(parts) + "\n"


def as_json(chapters: Sequence[Chapter], machine: Mapping[str, Any]) -> str:
    """Every run, for programs."""
    return json.dumps(
        {
            "machine": machine,
            "chapters": [
                {
                    "scenario": chapter.scenario,
                    "setup": chapter.setup,
                    "entrants": {
                        name: {"runs": standing.runs, "medians": _medians(standing), "trouble": standing.trouble}
                        for name, standing in chapter.standings.items()
                    },
                    "targets": [
                        {"target": str(j.target), "relation": j.target.relation, "bound": j.target.bound, "value": j.value}
                        | {"rounds": j.values, "reached": j.reached, "why_not": j.why_not}
                        for j in chapter.judgements
                    ],
                }
                for chapter in chapters
            ],
            "targets": summary([judgement for chapter in chapters for judgement in chapter.judgements]),
        },
        indent=1,
    )


def machine(server: str, tree: Path) -> dict[str, Any]:
    """Where and on what was measured."""
    commit = subprocess.run(["git", "-C", str(tree), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {
        "server": server,
        "commit": commit.stdout.strip(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": os.getloadavg(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _table(chapter: Chapter) -> tuple[list[str], list[list[str]]]:
    standings = chapter.standings
    measures = [name for name in TITLES if any(standing.values(name) for standing in standings.values())]
    if not measures:
        return [chapter.scenario, "trouble"], [[name, _in_short(standing.trouble)] for name, standing in standings.items()]
    lead, first = measures[0], next(iter(standings))
    head = [chapter.scenario, TITLES[lead], f"to {first}", *(TITLES[name] for name in measures[1:])]
    return head, [[name, *_cells(of, measures, ratios(standings, lead, name, first))] for name, of in standings.items()]


def _cells(standing: Standing, measures: Sequence[str], to_first: Sequence[float]) -> Iterator[str]:
    if not any(standing.runs):
        yield _in_short(standing.trouble)
        return
    values = standing.values(measures[0])
    spread = f" ({_number(min(values))} to {_number(max(values))})" if len(values) > 1 else ""
    yield f"{_number(standing.middle(measures[0]))}{spread}"
    yield _number(median(to_first)) if to_first else ""
    for measure in measures[1:]:
        yield _number(standing.middle(measure))


def _medians(standing: Standing) -> dict[str, float | None]:
    return {measure: standing.middle(measure) for measure in TITLES if standing.values(measure)}


def _verdict(judgement: Judgement) -> str:
    return {True: "reached", False: "NOT reached", None: "not measured"}[judgement.reached]


def _said(judgement: Judgement) -> str:
    target = judgement.target
    goal = f"{target} {'≥' if target.relation == '>=' else '≤'} {_number(target.bound)}"
    if judgement.value is None:
        return f"{goal}: {_in_short(judgement.why_not)}"
    return f"{goal}: {_number(judgement.value)} ({_number(min(judgement.values))} to {_number(max(judgement.values))})"


def _in_short(trouble: str) -> str:
    return trouble.splitlines()[0][:120] if trouble else ""


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
