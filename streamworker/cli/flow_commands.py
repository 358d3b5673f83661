"""`pause`, `resume` and `handlers`: what of an application may start, in all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from streamworker.cli.failing import sentences_for_errors
from streamworker.cli.options import Output, OutputForm, RedisUrl
from streamworker.cli.root import app as cli
from streamworker.cli.worker_commands import AppDir, Factory, Target

if TYPE_CHECKING:
    from streamworker.app import StreamWorker

Named = Annotated[list[str] | None, typer.Option("--handler", help="Only this handler; may be repeated. Default: all of them.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever looks at it later.")]


@cli.command()
def pause(  # a command's options
    target: Target,
    handler: Named = None,
    reason: Reason = "",
    redis_url: RedisUrl = None,
    factory: Factory = False,
    app_dir: AppDir = ".",
) -> None:
    """Let nothing of an app's handlers start any more, in any process, until it is resumed; what runs goes on."""
    from streamworker.cli.pausing import pause_all

    application = _load(target, factory, app_dir)
    pause_all(application, handler, reason, redis_url)


@cli.command()
def resume(
    target: Target, handler: Named = None, redis_url: RedisUrl = None, factory: Factory = False, app_dir: AppDir = "."
) -> None:
    """Let handlers that were paused go on, in all processes."""
    from streamworker.cli.pausing import resume_all

    application = _load(target, factory, app_dir)
    resume_all(application, handler, redis_url)


@cli.command()
def handlers(
    target: Target,
    output: OutputForm = Output.AUTO,
    redis_url: RedisUrl = None,
    factory: Factory = False,
    app_dir: AppDir = ".",
) -> None:
    """Print an app's handlers: which are paused, since when and why, and what else bounds how much of them starts."""
    from streamworker.cli.pausing import show_all

    application = _load(target, factory, app_dir)
    show_all(application, output, redis_url)


def _load(target: str, factory: bool, app_dir: str) -> StreamWorker:
    from streamworker.cli.loading import load_app

    with sentences_for_errors():
        return load_app(target, factory=factory, app_dir=app_dir)
