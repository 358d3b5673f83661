"""What the benchmark shows while it runs, and its figures."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from streamworker.bench.figures import Figures, Spread
from streamworker.cli.options import Lines
from streamworker.cli.printing import print_json
from streamworker.cli.showing import for_people


class Bars:
    """A bar for each part, on standard error; drawn on a terminal only."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:<12}"), BarColumn(40), MofNCompleteColumn())
        console = Console(stderr=True)
        self._progress = Progress(*columns, console=console, transient=True, refresh_per_second=5, disable=not console.is_terminal)
        self._parts: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, part: str, done: int, total: int) -> None:
        """So much of a part is done."""
        if part not in self._parts:
            self._parts[part] = self._progress.add_task(part, total=total)
        self._progress.update(self._parts[part], completed=done)


def show_figures(figures: Figures, form: Lines) -> None:
    """Print them."""
    if not for_people(form):
        print_json(figures.record())
        return
    what = f"{figures.entries:,} entries"
    rows = [
        ("round trip", _spread(figures.round_trip)),
        ("publish", f"{what}, {figures.published_rate:,.0f}/s, {figures.published_cpu_us:.1f} µs of CPU each"),
        ("handle", f"{what}, {figures.handled_rate:,.0f}/s, {figures.handled_cpu_us:.1f} µs of CPU each"),
        ("latency", f"{_spread(figures.latency)}, from publish to handler at {figures.pace}/s"),
    ]
    for name, line in rows:
        typer.echo(f"{name:<12}{line}")


def _spread(spread: Spread) -> str:
    return f"p50 {spread.p50_ms:.2f} ms, p90 {spread.p90_ms:.2f} ms, p99 {spread.p99_ms:.2f} ms, max {spread.max_ms:.2f} ms"
