"""What commands print: tables for people, JSON lines for programs, and never a control character from an entry."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamworker.app import StreamWorker
from streamworker.handlers import Handler
from streamworker.policies import Backoff
from streamworker.settings import Settings, format_duration
from streamworker.streams.connections import redacted


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, console: Console | None = None) -> None:
    """Print rows under their columns; everything from outside is made harmless first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    (Console() if console is None else console).print(table)


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 stream`, `2 streams`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def print_json(record: Mapping[str, Any]) -> None:
    """Print one record as a line of JSON; ASCII only, so that nothing in it can steer a terminal."""
    print(json.dumps(record))  # noqa: T201  # this is the command's output


def printable(text: str) -> str:
    """The text with control characters, bidirectional marks and the like as escapes: a payload must not steer the terminal."""
    return "".join(_shown(character) for character in text)


def readable(value: bytes) -> str:
    """A field's name or value as text; what is not UTF-8 is shown as escapes."""
    return value.decode("utf-8", "backslashreplace")


def print_handlers(app: StreamWorker, settings: Settings, handlers: Iterable[Handler], *, console: Console | None = None) -> None:
    """Print what is registered: streams, groups, types, policies."""
    out = Console() if console is None else console
    name = "" if app.name is None else f"{printable(app.name)}  "
    out.print(Text(f"{name}redis {redacted(settings.redis_url.get_secret_value())}  lease {format_duration(app.lease)}"))
    columns = ("HANDLER", "STREAM", "GROUP", "BODY", "CONC", "TIMEOUT", "RETRY")
    print_table(columns, (_handler_row(handler, settings, stream) for handler in handlers for stream in handler.streams), console=out)


def _handler_row(handler: Handler, settings: Settings, stream: str) -> Sequence[object]:
    return (
        handler.name,
        stream,
        handler.group,
        _describe_body(handler),
        settings.concurrency if handler.concurrency is None else handler.concurrency,
        "-" if handler.timeout is None else format_duration(handler.timeout),
        f"{handler.retry.max_attempts}, {_describe_backoff(handler.retry.backoff, handler.retry.max_attempts)}",
    )


def _describe_body(handler: Handler) -> str:
    """The body's type; the `_type` header and the codec where they are not the usual ones."""
    annotation = handler.body_type
    name = annotation.__name__ if _is_plain_class(annotation) else str(annotation)
    kind = "" if handler.type is None else f" if {handler.type}"
    codec = "" if handler.codec.name == "fields" else f" ({handler.codec.name})"
    return f"{name}{kind}{codec}"


def _is_plain_class(annotation: object) -> TypeGuard[type]:
    """A class, and not a generic such as `dict[str, str]`, whose name would hide its arguments."""
    return isinstance(annotation, type) and not hasattr(annotation, "__args__")


def _describe_backoff(backoff: Backoff, attempts: int) -> str:
    """The longest waits before the second and before the last attempt."""
    if attempts == 1:
        return "no retry"
    first, last = backoff.delay(1, 0.0), backoff.delay(attempts - 1, 0.0)
    return format_duration(first) if first == last else f"{format_duration(first)}..{format_duration(last)}"


def _shown(character: str) -> str:
    # Cc and Cf hold the escapes, the bidi marks and the invisible joiners; Co, Cs and Cn have no agreed look; Zl and Zp break lines.
    if unicodedata.category(character) in {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}:
        return character.encode("unicode_escape").decode()
    return character
