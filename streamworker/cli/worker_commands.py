"""`run`, `dev` and `check`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamworker.cli.failing import sentences_for_errors
from streamworker.cli.options import RedisUrl
from streamworker.cli.root import app as cli
from streamworker.program import Program

if TYPE_CHECKING:
    from streamworker.app import StreamWorker
    from streamworker.supervisor.leash import Leash

Target = Annotated[
    str, typer.Argument(metavar="APP", envvar="STREAMWORKER_APP", help="module:attribute, module, or a file's path.")
]
Workers = Annotated[int | None, typer.Option("--workers", "-w", help="How many processes; above 1 with a supervisor. Default: 1.")]
Concurrency = Annotated[int | None, typer.Option("--concurrency", "-c", help="Deliveries in flight per handler. Default: 10.")]
MaxConcurrency = Annotated[int | None, typer.Option(help="Handlers running at once in a process, over all. Default: no limit.")]
InFlightBytes = Annotated[
    str | None, typer.Option(help="About how many bytes of entries to hold at a time, such as 64MB. Default: 64MB.")
]
Only = Annotated[list[str] | None, typer.Option("--handler", help="Run only this handler; may be repeated.")]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", help="Run all handlers but this; may be repeated.")]
Consumer = Annotated[str | None, typer.Option(help="This process's name in its groups; must be unique. Default: host-pid-random.")]
Burst = Annotated[bool, typer.Option("--burst", help="Exit with 0 when nothing is undelivered, pending or waiting for a retry.")]
Grace = Annotated[str | None, typer.Option(help="How long handlers may finish when told to stop. Default: 25s.")]
MaxDeliveries = Annotated[int | None, typer.Option(help="Drain and exit after so many deliveries.")]
MaxRuntime = Annotated[str | None, typer.Option(help="Drain and exit after so long, such as 1h.")]
MaxMemory = Annotated[str | None, typer.Option(help="Drain and exit when the process holds so much, such as 512MB.")]
HealthAddr = Annotated[str | None, typer.Option(help="HOST:PORT of the health endpoints, auto or off. Default: auto.")]
LogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error. Default: info.")]
DevLogLevel = Annotated[str | None, typer.Option(help="debug, info, warning or error.")]
LogFormat = Annotated[str | None, typer.Option(help="auto, console or json. Default: auto.")]
Loop = Annotated[str | None, typer.Option(help="auto, asyncio or uvloop. Default: auto.")]
Factory = Annotated[bool, typer.Option("--factory", help="APP is a function that returns the StreamWorker.")]
AppDir = Annotated[str, typer.Option(help="Where to look for the module.")]


@cli.command()
def run(  # a command's options
    target: Target,
    redis_url: RedisUrl = None,
    workers: Workers = None,
    concurrency: Concurrency = None,
    max_concurrency: MaxConcurrency = None,
    in_flight_bytes: InFlightBytes = None,
    handler: Only = None,
    exclude: Exclude = None,
    consumer: Consumer = None,
    burst: Burst = False,
    grace: Grace = None,
    max_deliveries: MaxDeliveries = None,
    max_runtime: MaxRuntime = None,
    max_memory: MaxMemory = None,
    health_addr: HealthAddr = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    loop: Loop = None,
    factory: Factory = False,
    app_dir: AppDir = ".",
) -> None:
    """Run a worker: read, handle, acknowledge, retry, set aside, until it is told to stop."""
    flags = {
        "redis_url": redis_url,
        "workers": workers,
        "concurrency": concurrency,
        "max_concurrency": max_concurrency,
        "in_flight_bytes": in_flight_bytes,
        "handlers": tuple(handler) if handler else None,
        "exclude": tuple(exclude) if exclude else None,
        "consumer": consumer,
        "burst": True if burst else None,
        "grace": grace,
        "max_deliveries": max_deliveries,
        "max_runtime": max_runtime,
        "max_memory": max_memory,
        "health_addr": health_addr,
        "log_level": log_level,
        "log_format": log_format,
        "loop": loop,
    }
    _run(Program(target, factory, app_dir), flags)


def _run(program: Program, flags: dict[str, Any]) -> None:
    """In this process, or in several, each of which comes here again on its supervisor's leash."""
    from streamworker.cli.processes import leave
    from streamworker.settings import workers_wanted
    from streamworker.supervisor.messages import VARIABLE

    if VARIABLE in os.environ:
        _run_on_leash(program, flags)
    with sentences_for_errors():
        if workers_wanted(os.environ, flags) > 1:
            from streamworker.cli.supervising import supervise

            leave(supervise(flags))
    _run_here(program, flags)


def _run_on_leash(program: Program, flags: dict[str, Any]) -> None:
    from streamworker.observe.descriptions import describe
    from streamworker.supervisor.leash import Leash

    leash = Leash.taken_from(os.environ)
    try:
        _run_here(program, flags, leash)
    except (typer.Exit, SystemExit):
        raise
    except Exception as error:
        leash.say(describe(error))
        raise


def _run_here(program: Program, flags: dict[str, Any], leash: Leash | None = None) -> None:
    from streamworker.cli.processes import leave
    from streamworker.cli.running import run_worker
    from streamworker.loading import load_app

    say = None if leash is None else leash.say
    with sentences_for_errors(say=say):
        application = load_app(program.target, factory=program.factory, app_dir=program.app_dir)
        settings = application.settings(flags)
    if application.says_where_redis_is and flags["redis_url"] is not None and (leash is None or leash.number == 1):
        typer.echo("Note: the program's own redis_url= wins over --redis-url, which is not used.", err=True)
    with sentences_for_errors(_repair(application, flags["redis_url"], program.target), say):
        code = run_worker(application, settings, leash)
    leave(code)


@cli.command()
def dev(
    target: Target,
    redis_url: RedisUrl = None,
    concurrency: Concurrency = None,
    log_level: DevLogLevel = "debug",
    factory: Factory = False,
    app_dir: AppDir = ".",
) -> None:
    """Run a worker for development: finds or starts a server, and logs every delivery."""
    from rich.console import Console

    from streamworker.cli.companion_tables import print_companions
    from streamworker.cli.handler_table import print_handlers
    from streamworker.cli.processes import leave
    from streamworker.cli.running import run_worker
    from streamworker.embedded import resolve_server
    from streamworker.loading import load_app

    with sentences_for_errors():
        application = load_app(target, factory=factory, app_dir=app_dir)
        flags: dict[str, Any] = {"concurrency": concurrency, "log_level": log_level, "log_format": "console", "health_addr": "off"}
        given = _url_given(application, redis_url)
        with resolve_server(given, allow_local=True) as server:
            # The URL of somebody else's server may hold a password; whoever gave it knows it.
            hint = f"\nfor other terminals:  export REDIS_URL={server.url}" if given is None else ""
            typer.echo(f"{server.note}{hint}", err=True)
            settings = application.settings(flags | {"redis_url": server.url})
            print_handlers(application, settings, application.handlers, console=Console(stderr=True))
            print_companions(application, console=Console(stderr=True))
            code = run_worker(application, settings)
    leave(code)


@cli.command()
def check(target: Target, factory: Factory = False, app_dir: AppDir = ".") -> None:
    """Print handlers, schedules and listeners with their streams and policies; touches no server. Exits with 2 when something is wrong."""
    from streamworker.cli.companion_tables import print_bounds, print_companions
    from streamworker.cli.handler_table import print_handlers
    from streamworker.cli.showing import counted
    from streamworker.loading import load_app
    from streamworker.worker.choosing import choose_handlers

    with sentences_for_errors():
        application = load_app(target, factory=factory, app_dir=app_dir)
        settings = application.settings()
        chosen = choose_handlers(application.handlers, settings, may_be_none=application.works_without_handlers)
        print_handlers(application, settings, chosen)
        print_bounds(application, chosen)
        beside = print_companions(application)
        streams = {stream for handler in chosen for stream in handler.streams}
        groups = {handler.group for handler in chosen}
        typer.echo(
            f"ok: {counted(len(chosen), 'handler')}, {counted(len(streams), 'stream')}, {counted(len(groups), 'group')}{beside}"
        )


def _repair(application: StreamWorker, flag: str | None, target: str) -> str:
    """Who named the server that does not answer, and how to have one of one's own."""
    from streamworker.settings import from_environment

    private = "For a private server on this machine: "
    if application.says_where_redis_is:
        return f" (the program's redis_url= names it). {private}take that out, and streamworker dev {target}"
    if flag is not None:
        return f" (--redis-url names it). {private}streamworker dev {target}"
    if "redis_url" in from_environment(os.environ):
        return f" (the environment names it). {private}env -u REDIS_URL -u STREAMWORKER_REDIS_URL streamworker dev {target}"
    return f". Name one with --redis-url or REDIS_URL. {private}streamworker dev {target}"


def _url_given(application: StreamWorker, flag: str | None) -> str | None:
    """The server that the program, the flag or the environment names; `None` when nobody does."""
    from streamworker.settings import from_environment

    if application.says_where_redis_is:
        return application.settings().redis_url.get_secret_value()
    return flag if flag is not None else from_environment(os.environ).get("redis_url")
