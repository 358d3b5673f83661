"""`acl`: the least rights of each role."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from streamworker.admin.acl import Role, Server
from streamworker.cli.failing import sentences_for_errors
from streamworker.cli.root import app as cli


class Form(StrEnum):
    """How the rules are shown."""

    TEXT = "text"
    JSON = "json"


RoleOption = Annotated[Role, typer.Option("--role", help="Who connects.")]
Streams = Annotated[list[str], typer.Option("--stream", metavar="NAME", help="A stream; may be repeated.")]
Groups = Annotated[list[str] | None, typer.Option("--group", metavar="NAME", help="A consumer group; may be repeated.")]
Targets = Annotated[
    list[str] | None, typer.Option("--publishes-to", metavar="STREAM", help="A stream that a worker's handlers publish to.")
]
Writes = Annotated[
    list[str] | None,
    typer.Option("--writes-to", metavar="KEY", help="A key of a worker's transactions; a * at the end stands for any rest."),
]
Retains = Annotated[bool, typer.Option("--retention", help="The worker's program has a Retention: it trims its streams.")]
Name = Annotated[str | None, typer.Option("--user", metavar="NAME", help="The user's name; streamworker-ROLE unless told.")]
ServerOption = Annotated[
    Server, typer.Option("--server", help="6.2: without rights to read or write alone. 7.0: also Valkey. 8.2: with XACKDEL.")
]
OutputForm = Annotated[Form, typer.Option("--output", "-o", help="text: a line for redis-cli; json: the rules one by one.")]


@cli.command()
def acl(
    role: RoleOption,
    stream: Streams,
    group: Groups = None,
    publishes_to: Targets = None,
    writes_to: Writes = None,
    retention: Retains = False,
    user: Name = None,
    server: ServerOption = Server.REDIS_7_0,
    output: OutputForm = Form.TEXT,
) -> None:
    """Print the least ACL of a worker, publisher, dashboard or admin; asks no server."""
    from streamworker.admin.acl import least_user
    from streamworker.cli.printing import print_json
    from streamworker.cli.showing import say

    with sentences_for_errors():
        groups, targets = [] if group is None else group, [] if publishes_to is None else publishes_to
        writes = [] if writes_to is None else writes_to
        found = least_user(
            role, stream, groups, name=user, publishes_to=targets, writes_to=writes, retention=retention, server=server
        )
    if output is Form.JSON:
        print_json({"user": found.name, "role": found.role, "rules": found.rules})
    else:
        typer.echo(found.line)
    say("write the password in place of PASSWORD, or #HASH with its SHA-256 in place of >PASSWORD; then give the line to redis-cli")
