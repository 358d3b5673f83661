"""The tables of what a worker does beside its handlers, and of what bounds these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from streamworker.app import StreamWorker
from streamworker.cli.pausing import describe_rate, describe_switch
from streamworker.cli.showing import counted, print_rows
from streamworker.handlers import Handler
from streamworker.retention import Retention
from streamworker.settings import format_duration


def print_companions(app: StreamWorker, *, console: Console | None = None) -> str:
    """Print schedules and listeners; answers how many there are, for the end of a sentence. Nothing where there are none."""
    out = Console() if console is None else console
    schedules = [(schedule.name, str(schedule.ticks), schedule.stream, schedule.missed) for schedule in app.schedules]
    listeners = [(listener.name, listener.stream, listener.start) for listener in app.listeners]
    return _table(("SCHEDULE", "WHEN", "STREAM", "MISSED"), schedules, out) + _table(
        ("LISTENER", "STREAM", "START"), listeners, out
    )


def print_bounds(app: StreamWorker, handlers: Iterable[Handler], *, console: Console | None = None) -> None:
    """Print what holds these handlers back, and what goes from which stream. Nothing where nothing does."""
    out = Console() if console is None else console
    held = [
        (one.name, describe_rate(one.rate_limit) or "-", describe_switch(one.kill_switch) or "-")
        for one in handlers
        if one.rate_limit is not None or one.kill_switch is not None
    ]
    kept = [(stream, _describe_retention(of)) for stream, of in sorted(app.retentions.items()) if not of.keeps_all]
    _table(("HANDLER", "RATE LIMIT", "KILL SWITCH"), held, out)
    _table(("STREAM", "RETENTION"), kept, out)


def _describe_retention(retention: Retention) -> str:
    parts = ["deleted when acked"] if retention.delete_when_acked else []
    if retention.max_age is not None:
        parts.append(f"up to {format_duration(retention.max_age)}")
    if retention.max_length is not None:
        parts.append(f"up to {retention.max_length} entries")
    return ", ".join(parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], out: Console) -> str:
    if not rows:
        return ""
    print_rows(columns, rows, fold=columns, console=out)
    return f", {counted(len(rows), columns[0].lower())}"
