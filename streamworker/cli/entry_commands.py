"""`publish`, `tail` and `pending`: a stream by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from streamworker.cli.failing import sentences_for_errors
from streamworker.cli.options import Group, Lines, LinesForm, Output, OutputForm, RedisUrl, Stream
from streamworker.cli.root import app as cli

Pairs = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="The entry's fields, as they are.")]
Json = Annotated[
    str | None, typer.Option("--json", metavar="TEXT|-", help="A JSON object; - reads one, or one in each line, from stdin.")
]
Header = Annotated[list[str] | None, typer.Option("--header", metavar="KEY=VALUE", help="A header; may be repeated.")]
Type = Annotated[str | None, typer.Option("--type", help="The entry's type, by which handlers are told apart.")]
Codec = Annotated[str, typer.Option("--codec", help="fields: each key becomes a field; json: all of it in one field, data.")]
MaxLength = Annotated[int | None, typer.Option("--max-length", min=1, help="Trim the stream to about so many entries.")]
Key = Annotated[str | None, typer.Option("--key", help="The entry's ordering key, header _key.")]
Delay = Annotated[str | None, typer.Option("--delay", metavar="DURATION", help="Add it so much later, such as 5m.")]
At = Annotated[str | None, typer.Option("--at", metavar="TIME", help="Add it then: 2026-12-24T18:00:00Z.")]
DedupeId = Annotated[str | None, typer.Option("--dedupe-id", help="Add nothing when an entry of this id was added lately.")]
NoStream = Annotated[bool, typer.Option("--nomkstream", help="Add nothing when there is no such stream.")]
From = Annotated[
    str | None, typer.Option("--from", metavar="ID", help="Begin with this id; 0 is the first entry, $ the next one to come.")
]
Count = Annotated[int | None, typer.Option("-n", min=1, help="How many entries (10 unless told).")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with new entries until Ctrl-C.")]
Consumer = Annotated[str | None, typer.Option("--consumer", help="Only what this consumer holds.")]
Idle = Annotated[str | None, typer.Option("--idle", metavar="DURATION", help="Only what has been out for so long, such as 30s.")]
Most = Annotated[int, typer.Option("-n", min=1, help="How many rows.")]


@cli.command()
def publish(  # a command's options
    stream: Stream,
    fields: Pairs = None,
    json: Json = None,
    header: Header = None,
    type_: Type = None,
    codec: Codec = "fields",
    key: Key = None,
    delay: Delay = None,
    at: At = None,
    dedupe_id: DedupeId = None,
    nomkstream: NoStream = False,
    max_length: MaxLength = None,
    redis_url: RedisUrl = None,
) -> None:
    """Add an entry to a stream, and print its id, or the handle of what is to be added later."""
    from streamworker.cli.publishing import entries_to_add, headers_given, postings_of, send, when
    from streamworker.cli.session import session

    with sentences_for_errors():
        headers = headers_given([] if header is None else header, type_, key)
        entries = entries_to_add([] if fields is None else fields, json, codec, headers)
        ways = {"dedupe_id": dedupe_id, "nomkstream": nomkstream, **when(delay, at)}
        postings = postings_of(stream, entries, max_length, ways)
    with session(redis_url, stream, role="publisher") as to:
        to.run(send(to.link.endpoint, postings))


@cli.command()
def tail(
    stream: Stream,
    start: From = None,
    count: Count = None,
    follow: Follow = False,
    output: LinesForm = Lines.AUTO,
    redis_url: RedisUrl = None,
) -> None:
    """Show a stream's last entries, or those from an id on. Joins no group and changes nothing. Times are UTC."""
    from streamworker.cli.session import session
    from streamworker.cli.tailing import show_and_follow, show_some, start_id

    try:
        with session(redis_url, stream, role="dashboard") as to:
            first = None if start is None else start_id(start, follow=follow, count=count)
            if follow:
                to.run(show_and_follow(to.link, stream, first, 10 if count is None else count, output))
            else:
                to.run(show_some(to.link, stream, first, 10 if count is None else count, output))
    except KeyboardInterrupt:
        if not follow:
            raise


@cli.command()
def pending(
    stream: Stream,
    group: Group = None,
    consumer: Consumer = None,
    idle: Idle = None,
    count: Most = 50,
    output: OutputForm = Output.AUTO,
    redis_url: RedisUrl = None,
) -> None:
    """Show what a group has handed out and not got back: with whom it is, and for how long."""
    from streamworker.cli.pending_entries import show_pending
    from streamworker.cli.session import session
    from streamworker.settings import parse_duration

    with session(redis_url, stream, group, consumer, role="dashboard") as to:
        shortest = None if idle is None else parse_duration(idle)
        to.run(show_pending(to.link, stream, group, limit=count, consumer=consumer, idle=shortest, output=output))
