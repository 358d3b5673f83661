"""The `streamworker` command itself, without its commands: these register themselves with it."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from streamworker.version import VERSION


class _PlainlySpoken(TyperGroup):
    """Says what is wrong with a value, or missing, in the words of the settings."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            from streamworker.settings import in_plain_words

            if getattr(error.param, "envvar", None) == "STREAMWORKER_APP" and not error.message:
                error.message = "Name it, or set STREAMWORKER_APP."
            else:
                error.message = in_plain_words(error.message)
            raise


app: typer.Typer = typer.Typer(
    cls=_PlainlySpoken,
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
