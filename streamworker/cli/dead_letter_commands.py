"""`dlq`: a group's dead letters by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from streamworker.cli.options import Group, Lines, LinesForm, Output, OutputForm, RedisUrl, Stream
from streamworker.cli.root import app as cli

dlq: typer.Typer = typer.Typer(
    name="dlq", help="Look at a group's dead letters, give them back to the group, or delete them.", no_args_is_help=True
)
cli.add_typer(dlq)

One = Annotated[str, typer.Argument(metavar="ID", help="The dead letter's own id, as ls shows it.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="The dead letters' own ids, as ls shows them.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Only those set aside for this reason, such as exhausted.")]
Error = Annotated[str | None, typer.Option("--error", metavar="TEXT", help="Only those whose error contains this, in any case.")]
Most = Annotated[int, typer.Option("-n", min=1, help="How many, the newest ones.")]
Before = Annotated[str | None, typer.Option("--before", metavar="ID", help="Only those older than this dead letter.")]
All = Annotated[bool, typer.Option("--all", help="All of the group's dead letters.")]
Rate = Annotated[str | None, typer.Option("--rate", metavar="N/s", help="No more than so many, such as 50/s or 30/m.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many are meant, and show three of them.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dlq.command()
def ls(
    stream: Stream,
    group: Group = None,
    reason: Reason = None,
    error: Error = None,
    count: Most = 50,
    before: Before = None,
    output: OutputForm = Output.AUTO,
    redis_url: RedisUrl = None,
) -> None:
    """List the newest dead letters, oldest of them first."""
    from streamworker.cli.dead_letters import opened, print_page, wanted
    from streamworker.cli.session import session

    with session(redis_url, stream, group, role="dashboard") as to:
        letters = to.run(opened(to.link, stream, group))
        to.run(print_page(to.link, letters, wanted(reason, error), count, before, output))


@dlq.command()
def show(
    stream: Stream, dead_letter_id: One, group: Group = None, output: LinesForm = Lines.AUTO, redis_url: RedisUrl = None
) -> None:
    """Show all of one dead letter: how it ended, its headers and fields, the traceback."""
    from streamworker.cli.dead_letters import opened, print_one
    from streamworker.cli.session import session

    with session(redis_url, stream, group, role="dashboard") as to:
        letters = to.run(opened(to.link, stream, group))
        found = to.run(print_one(letters, dead_letter_id, output))
    if not found:
        raise typer.Exit(1)


@dlq.command()
def replay(  # a command's options
    stream: Stream,
    ids: Ids = None,
    all_: All = False,
    reason: Reason = None,
    error: Error = None,
    group: Group = None,
    rate: Rate = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    redis_url: RedisUrl = None,
) -> None:
    """Give dead letters back to their group, and to no other; their attempts count anew."""
    from streamworker.cli.replaying import REPLAY, Order, deal_with

    order = Order(stream, group, [] if ids is None else ids, all_, reason, error, rate, dry_run, yes)
    deal_with(REPLAY, order, redis_url)


@dlq.command()
def discard(  # a command's options
    stream: Stream,
    ids: Ids = None,
    all_: All = False,
    reason: Reason = None,
    error: Error = None,
    group: Group = None,
    rate: Rate = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    redis_url: RedisUrl = None,
) -> None:
    """Delete dead letters for good."""
    from streamworker.cli.replaying import DISCARD, Order, deal_with

    order = Order(stream, group, [] if ids is None else ids, all_, reason, error, rate, dry_run, yes)
    deal_with(DISCARD, order, redis_url)
