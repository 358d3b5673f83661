"""`streamworker bench`: what a worker does here, against this server."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from streamworker.cli.failing import sentences_for_errors
from streamworker.cli.options import Lines, LinesForm, RedisUrl
from streamworker.cli.root import app as cli


class CodecName(StrEnum):
    """How the entries are written."""

    FIELDS = "fields"
    JSON = "json"


Entries = Annotated[int, typer.Option(min=1_000, max=10_000_000, help="How many entries to publish and to handle.")]
Concurrency = Annotated[int, typer.Option("--concurrency", "-c", min=1, max=100_000, help="Deliveries in flight.")]
Size = Annotated[int, typer.Option(min=0, max=1_000_000, help="Characters that each entry carries beside its number.")]
Codec = Annotated[CodecName, typer.Option("--codec", help="fields: each key becomes a field; json: all of it in one field.")]
Pace = Annotated[int, typer.Option(min=1, max=10_000, help="Single entries in a second, for the latency.")]
Loop = Annotated[str, typer.Option(help="auto, asyncio or uvloop.")]


@cli.command()
def bench(
    entries: Entries = 100_000,
    concurrency: Concurrency = 100,
    size: Size = 100,
    codec: Codec = CodecName.FIELDS,
    pace: Pace = 200,
    loop: Loop = "auto",
    output: LinesForm = Lines.AUTO,
    redis_url: RedisUrl = None,
) -> None:
    """Measure throughput and latency against a server, in a stream that is made for it and deleted at the end."""
    import asyncio
    import os

    from streamworker.bench.ending import ended_by_signals
    from streamworker.bench.trial import Plan, measure
    from streamworker.cli.bench_screen import Bars, show_figures
    from streamworker.cli.running import loop_factory
    from streamworker.cli.session import repair_of
    from streamworker.observe.logging import configure
    from streamworker.settings import Settings
    from streamworker.worker.exits import ExitCode

    rights = "it takes a user that may do all to its own keys: '~streamworker-bench-*' '~{streamworker-bench-*' +@all"
    with sentences_for_errors(repair_of(redis_url), rights=rights):
        where = {name: value for name, value in os.environ.items() if "REDIS_URL" in name}
        settings = Settings.load(where, {"redis_url": redis_url, "concurrency": concurrency, "loop": loop}, {})
        configure("warning", "auto")
        plan = Plan(settings, entries, size, codec.value, pace)
        with Bars() as bars, asyncio.Runner(loop_factory=loop_factory(settings.loop)) as runner:
            figures = runner.run(ended_by_signals(measure(plan, bars.show)))
        if figures is None:
            raise typer.Exit(ExitCode.INTERRUPTED)
        show_figures(figures, output)
