"""Entries, ages and rows as people and programs read them; whatever comes from Redis is made harmless first."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamworker.cli.options import Lines, Output
from streamworker.cli.printing import readable
from streamworker.delivery import Entry, Fields
from streamworker.observe.printing import printable

MOST_CHARACTERS = 500
"""Of one value in a line for people; JSON has all of it."""


def for_people(form: Output | Lines) -> bool:
    """Whether to show a table or text, rather than JSON lines."""
    return form.value in ("table", "text") or (form.value == "auto" and sys.stdout.isatty())


def say(sentence: str) -> None:
    """Tell the user something that is not data, on standard error."""
    typer.echo(printable(sentence), err=True)


def print_rows(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    fold: Collection[str] = (),
    cut: str | None = None,
    console: Console | None = None,
) -> None:
    """Print rows under their columns. Where there is no room, the columns of `fold` are folded and `cut` loses its end; ids stay whole."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), expand=cut is not None)
    for column in columns:
        if column == cut:
            table.add_column(column, no_wrap=True, overflow="ellipsis", ratio=1, min_width=len(column))
        else:
            table.add_column(column, no_wrap=column not in fold, overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell is None else printable(str(cell))) for cell in row))
    (Console() if console is None else console).print(table)


def counted(count: int, noun: str) -> str:
    """A number with its noun: `1 dead letter`, `2,001 dead letters`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def in_short(duration: timedelta) -> str:
    """A duration at a glance: `350ms`, `4.1s`, `1m30s`, `2h5m`, `3d4h`."""
    seconds = max(0.0, duration.total_seconds())
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    for size, unit, smaller, small_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            large, rest = divmod(int(seconds), size)
            return f"{large}{unit}{rest // smaller}{small_unit}" if rest >= smaller else f"{large}{unit}"
    raise AssertionError("sixty seconds are a minute")


def added_at(entry_id: str) -> datetime | None:
    """When an entry was added, by the server's clock; `None` where somebody chose an id that is no time."""
    milliseconds = int(entry_id.partition("-")[0])
    try:
        moment = datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return moment if moment.year >= 2000 else None


def age_of(entry_id: str, now: datetime) -> timedelta | None:
    """How long ago an entry was added."""
    added = added_at(entry_id)
    return None if added is None else max(timedelta(0), now - added)


def milliseconds(duration: timedelta | None) -> int | None:
    """A duration for JSON."""
    return None if duration is None else round(duration / timedelta(milliseconds=1))


def moment_text(moment: datetime | None) -> str:
    """A moment as in `2026-11-22 10:19:43.485Z`: UTC, as in the log."""
    if moment is None:
        return "-"
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def entry_text(entry: Entry) -> str:
    """An entry as one line for people."""
    pairs = (f"{_text(name)}={_text(value)}" for name, value in zip(entry.fields[::2], entry.fields[1::2], strict=True))
    return f"{printable(entry.id)}  {moment_text(added_at(entry.id))}  {' '.join(pairs)}"


def fields_record(fields: Fields) -> dict[str, Any]:
    """Fields for JSON: text by name; where a name is there more than once, the list of its values."""
    values: dict[str, list[str]] = {}
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        values.setdefault(readable(name), []).append(readable(value))
    return {name: listed[0] if len(listed) == 1 else listed for name, listed in values.items()}


def _text(value: bytes) -> str:
    """A name or value in a line: cut where it is long, in quotes where its spaces would make it look like several."""
    text = readable(value[: 4 * MOST_CHARACTERS])
    shown = printable(text[:MOST_CHARACTERS])
    if len(text) > MOST_CHARACTERS or len(value) > 4 * MOST_CHARACTERS:
        shown += f"… ({len(value):,} bytes)"
    is_json = shown.startswith(("{", "["))
    return '"' + shown.replace('"', '\\"') + '"' if not shown or (" " in shown and not is_json) else shown
