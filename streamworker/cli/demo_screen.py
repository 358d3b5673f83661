"""What the demo shows while it runs, and its summary."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Self

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from streamworker.demo.story import Count
from streamworker.demo.telling import Snapshot

STATE_STYLES = {"starting": "dim", "working": "green", "killed": "bold red"}


class Screen:
    """Two bars and a line of figures, drawn anew with each snapshot; on standard error, so that the summary can be piped.

    Away from a terminal there are no bars, but a line whenever a worker's state has changed.
    """

    def __init__(self, entries: int) -> None:
        self._bars = Progress(TextColumn("{task.description:<10}"), BarColumn(40), MofNCompleteColumn(), auto_refresh=False)
        self._published = self._bars.add_task("published", total=entries)
        self._settled = self._bars.add_task("settled", total=entries)
        self._figures = Text()
        self._console = Console(stderr=True)
        self._live = Live(Group(self._bars, self._figures), console=self._console, refresh_per_second=10)
        self._told: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Draw this."""
        count = snapshot.count
        if not self._console.is_terminal:
            self._tell(snapshot)
            return
        self._bars.update(self._published, completed=snapshot.published)
        self._bars.update(self._settled, completed=count.handled + count.dead_letters)
        figures = Text(f"pending {count.pending:<4} retried {count.retried:<4} reclaimed {count.reclaimed:<4} ")
        figures.append(f"dead letters {count.dead_letters:<4}")
        for name, state in snapshot.workers.items():
            figures.append(f" {name} ").append(state, STATE_STYLES.get(state, "yellow"))
        self._live.update(Group(self._bars, figures), refresh=True)

    def _tell(self, snapshot: Snapshot) -> None:
        if snapshot.workers == self._told:
            return
        self._told = snapshot.workers
        count = snapshot.count
        workers = ", ".join(f"{name} {state}" for name, state in snapshot.workers.items())
        typer.echo(f"{workers}: {snapshot.published} published, {count.handled + count.dead_letters} settled", err=True)


def print_summary(count: Count) -> None:
    """Print the count on standard output, and what it means."""
    out = Console(highlight=False, soft_wrap=True)
    out.print(
        f"published {count.published}   handled {count.handled}   retried {count.retried}   "
        f"reclaimed {count.reclaimed}   dead letters {count.dead_letters}   lost {count.lost}",
        style="bold green" if count.closes else "bold red",
    )
    out.print(f"handled twice {count.handled_twice} (a kill between a handler's end and its acknowledgement does that)")
    if count.p95 is not None:
        out.print(f"published to handler start, 95th percentile: {count.p95 / timedelta(milliseconds=1):.1f} ms")
    if count.closes:
        out.print("\nEvery entry was handled or set aside, though a worker was killed with SIGKILL in the middle of its work.")
        out.print("Next: write a handler in app.py, then  streamworker dev app.py")
    else:
        out.print("\nThe count does not close: this is a bug, please report it with the lines above.")
