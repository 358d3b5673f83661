"""Options that several commands share. Imports nothing that takes time."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Output(StrEnum):
    """How a command shows what it read; `auto` is a table on a terminal, JSON lines elsewhere."""

    AUTO = "auto"
    TABLE = "table"
    JSON = "json"


class Lines(StrEnum):
    """How a command shows entries; `auto` is text on a terminal, JSON lines elsewhere."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


def warned_of_secret(url: str | None) -> str | None:
    """The URL as it is; where it holds a password, standard error says who else can read it, once for a supervisor and its children."""
    import os

    from streamworker.streams.urls import holds_secret
    from streamworker.supervisor.messages import VARIABLE

    if url is not None and VARIABLE not in os.environ and holds_secret(url):
        typer.echo(
            "Note: everybody on this machine can see the password among the arguments: set STREAMWORKER_REDIS_URL_FILE", err=True
        )
    return url


RedisUrl = Annotated[
    str | None,
    typer.Option("--redis-url", "-u", help="Where Redis is; else STREAMWORKER_REDIS_URL or REDIS_URL.", callback=warned_of_secret),
]
Stream = Annotated[str, typer.Argument(metavar="STREAM", help="The stream's name.")]
Group = Annotated[str | None, typer.Option("--group", help="The consumer group; may be left out where the stream has only one.")]
OutputForm = Annotated[Output, typer.Option("--output", "-o", help="auto is a table on a terminal, JSON lines elsewhere.")]
LinesForm = Annotated[Lines, typer.Option("--output", "-o", help="auto is text on a terminal, JSON lines elsewhere.")]
