"""`dlq replay` and `dlq discard`: say what is meant, ask, do it with a progress bar, stop in good order, say what was done."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streamworker.admin.bulk import Step, Tally, carry_out
from streamworker.admin.dead_letters import PAGE, DeadLetterEntry, DeadLetters, Wanted
from streamworker.admin.groups import stream_exists
from streamworker.cli.dead_letters import complete_id, not_there, opened, print_rows_of, wanted
from streamworker.cli.options import Output
from streamworker.cli.session import Session, session
from streamworker.cli.showing import counted, say
from streamworker.errors import ConnectionLost, ServerError, SetupError
from streamworker.observe.printing import printable
from streamworker.streams.faults import Remedy, remedy_for
from streamworker.worker.exits import ExitCode

SAMPLES = 3
GOES_ON = "; the same command goes on with the rest"

_RATE = re.compile(r"([0-9]{1,9})/(s|m|h)")
_PER = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1)}


@dataclass(frozen=True, slots=True)
class Action:
    """What is done with dead letters, in the words of its questions and reports."""

    question: str
    doing: str
    done: str


REPLAY = Action("Replay {count}, to group {group} only?", "replaying", "replayed")
DISCARD = Action("Delete {count} of group {group} for good?", "discarding", "discarded")


@dataclass(frozen=True, slots=True)
class Order:
    """What the user typed."""

    stream: str
    group: str | None
    ids: Sequence[str]
    all: bool
    reason: str | None
    error: str | None
    rate: str | None
    dry_run: bool
    yes: bool


@dataclass(frozen=True, slots=True)
class Meant:
    """What the order comes to: how many, and where they are: the ones named, or all that match up to the newest of now."""

    letters: DeadLetters
    count: int
    missing: int
    named: list[DeadLetterEntry]
    filter: Wanted
    until: str | None

    async def pages(self) -> AsyncIterator[Sequence[DeadLetterEntry]]:
        """All that are meant, oldest first."""
        if self.named:
            yield self.named
        elif self.until is not None:
            async for page in self.letters.walk(self.filter, until=self.until):
                yield page


def deal_with(action: Action, order: Order, redis_url: str | None) -> None:
    """Do what was ordered. Raises `typer.Exit` when not all of it was done."""
    with session(redis_url, order.stream, order.group, role="admin") as to:
        code = _deal_with(to, action, order)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


def interval_of(rate: str) -> timedelta:
    """The time between two steps at a rate such as `50/s`. Raises `SetupError`."""
    found = _RATE.fullmatch(rate.strip())
    if found is None or int(found[1]) == 0:
        raise SetupError(f"--rate {rate!r} is not a rate: write it as 50/s, 30/m or 1000/h")
    return _PER[found[2]] / int(found[1])


def _deal_with(to: Session, action: Action, order: Order) -> ExitCode:
    _check(order)
    interval = None if order.rate is None else interval_of(order.rate)
    letters = to.run(opened(to.link, order.stream, order.group))
    if action is REPLAY:
        to.run(stream_exists(to.link, letters.keys.retry))
    meant = to.run(_meant(letters, order))
    incomplete = ExitCode.FAILURE if meant.missing else ExitCode.DONE
    if meant.count == 0:
        say(f"no dead letters to be {action.done} in group {letters.group} on {order.stream}")
        return incomplete
    if order.dry_run:
        to.run(_show_samples(to, action, meant))
        return incomplete
    if not order.yes and not _confirmed(action, meant):
        say("nothing was changed")
        return ExitCode.FAILURE
    return max(incomplete, _do(to, action, meant, interval))


def _check(order: Order) -> None:
    narrowed = order.reason is not None or order.error is not None
    if order.ids and (order.all or narrowed):
        raise SetupError("ids are given, and --all, --reason or --error too: leave one of them out")
    if not (order.ids or order.all or narrowed):
        raise SetupError("say which dead letters: their ids, --reason, --error, or --all")
    if not (order.yes or order.dry_run or sys.stdin.isatty()):
        raise SetupError("there is no terminal to ask on: add --yes, or --dry-run to see what would be done")


async def _meant(letters: DeadLetters, order: Order) -> Meant:
    which = wanted(order.reason, order.error)
    if not order.ids:
        until = await letters.newest_id()
        count = 0 if until is None else await letters.count(which, until=until)
        return Meant(letters, count, 0, [], which, until)
    named: list[DeadLetterEntry] = []
    missing = 0
    for dead_letter_id in dict.fromkeys(map(complete_id, order.ids)):
        letter = await letters.find(dead_letter_id)
        if letter is None:
            missing += 1
            say(not_there(letters, dead_letter_id))
        else:
            named.append(letter)
    return Meant(letters, len(named), missing, named, which, None)


def _confirmed(action: Action, meant: Meant) -> bool:
    question = action.question.format(count=counted(meant.count, "dead letter"), group=meant.letters.group)
    return typer.confirm(printable(question), err=True)


async def _show_samples(to: Session, action: Action, meant: Meant) -> None:
    async for page in meant.pages():
        await print_rows_of(to.link, page[:SAMPLES], Output.AUTO)
        break
    say(f"{counted(meant.count, 'dead letter')} would be {action.done} in group {meant.letters.group}; nothing was changed")


def _do(to: Session, action: Action, meant: Meant, interval: timedelta | None) -> ExitCode:
    tally = Tally()
    step: Step = meant.letters.replay if action is REPLAY else meant.letters.discard
    try:
        stopped = to.run(_carry_out(action, meant, step, tally, interval))
    except (ConnectionLost, ServerError) as error:
        goes_on = isinstance(error, ConnectionLost) or remedy_for(error) is not Remedy.CONFIGURE
        say(f"stopped: {_sum(action, tally, meant.count)}{GOES_ON if goes_on else ''}")
        raise
    for dead_letter_id, damage in tally.examples:
        say(f"skipped {dead_letter_id}: {damage}")
    if stopped:
        say(f"stopped: {_sum(action, tally, meant.count)}{GOES_ON}")
        return ExitCode.INTERRUPTED
    typer.echo(_sum(action, tally, meant.count))
    return ExitCode.FAILURE if tally.refused else ExitCode.DONE


async def _carry_out(action: Action, meant: Meant, step: Step, tally: Tally, interval: timedelta | None) -> bool:
    """Do it; true when Ctrl-C ended it early."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    small = meant.count <= PAGE and interval is None
    loop.add_signal_handler(signal.SIGINT, stop.set)
    try:
        with Progress(*columns, console=console, transient=True, disable=small or not console.is_terminal) as progress:
            bar = progress.add_task(action.doing, total=meant.count)
            pages = meant.pages()
            await carry_out(
                pages, step, tally, interval=interval, stop=stop, progressed=lambda: progress.update(bar, completed=tally.seen)
            )
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return stop.is_set() and tally.seen < meant.count


def _sum(action: Action, tally: Tally, count: int) -> str:
    parts = [f"{tally.done:,} of {count:,} {action.done}"] if tally.done != count else [f"{tally.done:,} {action.done}"]
    if tally.gone:
        parts.append(f"{tally.gone:,} gone meanwhile")
    if tally.refused:
        parts.append(f"{tally.refused:,} skipped, because they cannot be {action.done}")
    return ", ".join(parts)
