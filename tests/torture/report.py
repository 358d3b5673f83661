"""What the runs have shown: a table in the terminal, as Markdown for the documentation, as JSON for tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.torture.checker import Figures
from tests.torture.run import Result

HEAD = (
    "fault",
    "runs",
    "entries",
    "injected",
    "lost",
    "forgotten by the server",
    "duplicates",
    "causes",
    "slowest redelivery",
    "slowest recovery",
)


def one_line(result: Result) -> str:
    """A run, as progress."""
    of = result.figures
    lost = f"lost {of.lost}" if of.drained else "not drained"
    said = f"{of.published} entries, {result.fired} faults, {lost}, duplicates {of.duplicates}/{of.causes}"
    return f"{'FAILED' if result.violations else 'ok    '} {result.fault} on {result.server}: {said}, {result.seconds:.1f} s"


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """A row for each fault, in the order in which they were first run, and one for all."""
    names = list(dict.fromkeys(result.fault for result in results))
    found = [_row(name, [result for result in results if result.fault == name]) for name in names]
    return [*found, _row("all", results)] if len(found) > 1 else found


def table(results: Sequence[Result]) -> str:
    """Aligned with spaces."""
    lines = [HEAD, *rows(results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(_placed(cell, width, number) for number, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )


def markdown(results: Sequence[Result]) -> str:
    """As a page wants it."""
    lines = [HEAD, ("---", *("---:" for _ in HEAD[1:])), *rows(results)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_json(results: Sequence[Result]) -> str:
    """Every run, with its violations."""
    return json.dumps([asdict(result) for result in results], indent=1)


def write(file: Path, results: Sequence[Result]) -> None:
    """Put these in the file, whole: whoever reads it meanwhile has the last ones."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_text(as_json(results))
    fresh.replace(file)


def read(file: Path) -> list[Result]:
    """What was written."""
    return [Result(**{**one, "figures": Figures(**one["figures"])}) for one in json.loads(file.read_text())]


def _placed(cell: str, width: int, number: int) -> str:
    return cell.rjust(width) if number else cell.ljust(width)


def _row(name: str, results: Sequence[Result]) -> tuple[str, ...]:
    of = [result.figures for result in results]
    slowest = max((one.worst_redelivery for one in of), default=0.0)
    recovery = max((one.worst_recovery for one in of), default=0.0)
    sums = [len(results), sum(one.published for one in of), sum(result.fired for result in results)]
    sums += [sum(getattr(one, what) for one in of) for what in ("lost", "forgotten", "duplicates", "causes")]
    return (name, *(f"{number:,}" for number in sums), *(f"{seconds:.1f} s" if seconds else "-" for seconds in (slowest, recovery)))
