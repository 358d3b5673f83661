"""The `streamworker` command itself, without its commands: these register themselves with it."""

from __future__ import annotations

import typer

from streamworker.version import VERSION

app: typer.Typer = typer.Typer(
    name="streamworker",
    help="A worker framework for Redis Streams consumer groups.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=True,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streamworker {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
) -> None:
    pass
