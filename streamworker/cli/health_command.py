"""`health`, for people; `entry` answers a container's probe without any of this."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from streamworker.cli.root import app as cli


class Probe(StrEnum):
    """What is asked."""

    LIVEZ = "livez"
    READYZ = "readyz"
    STARTUPZ = "startupz"


Addr = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Where the worker's health endpoints are. Default: 127.0.0.1:8080.")
]
Which = Annotated[Probe, typer.Option(help="What to ask.")]


@cli.command()
def health(addr: Addr = None, probe: Which = Probe.LIVEZ) -> None:
    """Ask the worker in this container how it is: exit with 0 when it is well, else with 1. For Docker's HEALTHCHECK and exec probes."""
    from streamworker.cli.probing import ask

    raise typer.Exit(ask(addr, probe.value))
