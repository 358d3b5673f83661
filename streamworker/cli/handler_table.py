"""The table of what an application has registered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeGuard

from rich.console import Console
from rich.text import Text

from streamworker.app import StreamWorker
from streamworker.cli.showing import print_rows
from streamworker.handlers import Handler
from streamworker.observe.printing import printable
from streamworker.policies import Backoff, BatchLimits
from streamworker.settings import Settings, format_duration
from streamworker.streams.urls import redacted
from streamworker.worker.concurrency import concurrency_of


def print_handlers(app: StreamWorker, settings: Settings, handlers: Iterable[Handler], *, console: Console | None = None) -> None:
    """Print what is registered: streams, groups, types, policies."""
    out = Console() if console is None else console
    name = "" if app.name is None else f"{printable(app.name)}  "
    out.print(Text(f"{name}redis {redacted(settings.redis_url.get_secret_value())}  lease {format_duration(app.lease)}"))
    columns = ("HANDLER", "STREAM", "GROUP", "BODY", "CONC", "TIMEOUT", "RETRY")
    rows = (_handler_row(handler, settings, stream) for handler in handlers for stream in handler.streams)
    print_rows(columns, rows, fold=columns, console=out)


def _handler_row(handler: Handler, settings: Settings, stream: str) -> Sequence[object]:
    return (
        handler.name,
        stream,
        handler.group,
        _describe_body(handler),
        concurrency_of(handler, settings),
        "-" if handler.timeout is None else format_duration(handler.timeout),
        f"{handler.retry.max_attempts}, {_describe_backoff(handler.retry.backoff, handler.retry.max_attempts)}",
    )


def _describe_body(handler: Handler) -> str:
    """The body's type; the `_type` header and the codec where they are not the usual ones; how large its batches are."""
    annotation = handler.body_type
    name = annotation.__name__ if _is_plain_class(annotation) else str(annotation)
    kind = "" if handler.type is None else f" if {handler.type}"
    codec = "" if handler.codec.name == "fields" else f" ({handler.codec.name})"
    return f"{name}{kind}{codec}" if handler.batch is None else f"list[{name}]{kind}{codec}, {_describe_batch(handler.batch)}"


def _describe_batch(limits: BatchLimits) -> str:
    """How many entries in which time, and in how many bytes where that is limited."""
    size = "" if limits.max_bytes is None else f", {limits.max_bytes} bytes"
    return f"{limits.max_size} in {format_duration(limits.max_wait)}{size}"


def _is_plain_class(annotation: object) -> TypeGuard[type]:
    """A class, and not a generic such as `dict[str, str]`, whose name would hide its arguments."""
    return isinstance(annotation, type) and not hasattr(annotation, "__args__")


def _describe_backoff(backoff: Backoff, attempts: int) -> str:
    """The longest waits before the second and before the last attempt."""
    if attempts == 1:
        return "no retry"
    first, last = backoff.delay(1, 0.0), backoff.delay(attempts - 1, 0.0)
    return format_duration(first) if first == last else f"{format_duration(first)}..{format_duration(last)}"
