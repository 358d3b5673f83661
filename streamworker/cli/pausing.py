"""What `pause`, `resume` and `handlers` do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import typer

from streamworker.app import StreamWorker
from streamworker.cli.options import Output
from streamworker.cli.session import Session, session
from streamworker.cli.showing import for_people, print_rows
from streamworker.errors import SetupError
from streamworker.flow import KillSwitch, RateLimit
from streamworker.handlers import Handler
from streamworker.observe.printing import printable
from streamworker.pausing import handler_called
from streamworker.settings import format_duration
from streamworker.streams import gating
from streamworker.streams.gating import Pause


def pause_all(app: StreamWorker, names: Sequence[str] | None, reason: str, redis_url: str | None) -> None:
    """Pause the handlers of these names, or all, and say which."""
    with session(_url_of(app, redis_url), role="admin") as here:
        for handler in _chosen(app, names):
            place = (handler.streams[0], handler.group, handler.name)
            was_going = here.run(gating.pause(here.link, *place, " ".join(reason.split())))
            typer.echo(f"{printable(handler.name)}: {'paused' if was_going else 'was paused already'}")


def resume_all(app: StreamWorker, names: Sequence[str] | None, redis_url: str | None) -> None:
    """Resume the handlers of these names, or all, and say which."""
    with session(_url_of(app, redis_url), role="admin") as here:
        for handler in _chosen(app, names):
            was_paused = here.run(gating.resume(here.link, handler.streams[0], handler.group, handler.name))
            typer.echo(f"{printable(handler.name)}: {'resumed' if was_paused else 'was not paused'}")


def show_all(app: StreamWorker, output: Output, redis_url: str | None) -> None:
    """Print all handlers."""
    with session(_url_of(app, redis_url), role="dashboard") as here:
        paused = _paused(app, here)
    if for_people(output):
        columns = ("HANDLER", "STREAM", "GROUP", "STATE", "SINCE", "REASON", "RATE LIMIT", "KILL SWITCH")
        print_rows(columns, (_row(handler, paused.get(handler.name)) for handler in app.handlers), fold=columns)
        return
    for handler in app.handlers:
        typer.echo(json.dumps(_record(handler, paused.get(handler.name))))


def _paused(app: StreamWorker, here: Session) -> Mapping[str, Pause]:
    found: dict[str, Pause] = {}
    for handler in app.handlers:
        held = here.run(gating.paused(here.link, handler.streams[0], handler.group))
        if handler.name in held:
            found[handler.name] = held[handler.name]
    return found


def _chosen(app: StreamWorker, names: Sequence[str] | None) -> list[Handler]:
    if not app.handlers:
        raise SetupError("the app has no handlers: decorate a function with @app.handler")
    return app.handlers if names is None else [handler_called(app.handlers, name) for name in names]


def _url_of(app: StreamWorker, flag: str | None) -> str | None:
    """The program's own server, as for a worker; else the flag's."""
    return app.settings().redis_url.get_secret_value() if app.says_where_redis_is else flag


def _row(handler: Handler, pause: Pause | None) -> Sequence[object]:
    return (
        handler.name,
        " ".join(handler.streams),
        handler.group,
        "going on" if pause is None else "paused",
        None if pause is None else f"{pause.since:%Y-%m-%d %H:%M:%S}Z",
        None if pause is None else pause.reason,
        describe_rate(handler.rate_limit),
        describe_switch(handler.kill_switch),
    )


def _record(handler: Handler, pause: Pause | None) -> Mapping[str, object]:
    return {
        "handler": handler.name,
        "streams": handler.streams,
        "group": handler.group,
        "paused": pause is not None,
        "since": None if pause is None else pause.since.isoformat(),
        "reason": None if pause is None else pause.reason,
        "rate_limit": describe_rate(handler.rate_limit),
        "kill_switch": describe_switch(handler.kill_switch),
    }


def describe_rate(limit: RateLimit | None) -> str | None:
    """A rate limit in a few words."""
    return None if limit is None else f"{limit.count} per {format_duration(limit.per)}, burst {limit.burst}"


def describe_switch(switch: KillSwitch | None) -> str | None:
    """A kill switch in a few words."""
    return None if switch is None else f"at {switch.share:.0%} of {switch.after}, for {format_duration(switch.rest)}"
