"""The tables of what a worker does beside its handlers."""

from __future__ import annotations

from rich.console import Console

from streamworker.app import StreamWorker
from streamworker.cli.showing import counted, print_rows


def print_companions(app: StreamWorker, *, console: Console | None = None) -> str:
    """Print the schedules; answers how many there are, for the end of a sentence. Nothing where there is none."""
    if not app.schedules:
        return ""
    columns = ("SCHEDULE", "WHEN", "STREAM", "MISSED")
    rows = ((schedule.name, str(schedule.ticks), schedule.stream, schedule.missed) for schedule in app.schedules)
    print_rows(columns, rows, fold=columns, console=Console() if console is None else console)
    return f", {counted(len(app.schedules), 'schedule')}"
