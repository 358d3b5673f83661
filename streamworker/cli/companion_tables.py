"""The tables of what a worker does beside its handlers."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from streamworker.app import StreamWorker
from streamworker.cli.showing import counted, print_rows


def print_companions(app: StreamWorker, *, console: Console | None = None) -> str:
    """Print schedules and listeners; answers how many there are, for the end of a sentence. Nothing where there are none."""
    out = Console() if console is None else console
    schedules = [(schedule.name, str(schedule.ticks), schedule.stream, schedule.missed) for schedule in app.schedules]
    listeners = [(listener.name, listener.stream, listener.start) for listener in app.listeners]
    return _table(("SCHEDULE", "WHEN", "STREAM", "MISSED"), schedules, out) + _table(
        ("LISTENER", "STREAM", "START"), listeners, out
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], out: Console) -> str:
    if not rows:
        return ""
    print_rows(columns, rows, fold=columns, console=out)
    return f", {counted(len(rows), columns[0].lower())}"
