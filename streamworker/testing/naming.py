"""What a test may name of an app: its handlers, and the streams that somebody reads. What there is not is answered with what there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamworker.app import StreamWorker
from streamworker.errors import SetupError
from streamworker.handlers import name_of


def check_stream(app: StreamWorker, stream: str) -> None:
    """See that somebody reads it. Raises `LookupError`."""
    if not any(stream in handler.streams for handler in app.handlers) and all(stream != one.stream for one in app.listeners):
        raise LookupError(f"no handler reads stream {stream!r}: {who_reads(app)}")


def name_of_handler(app: StreamWorker, handler: str | Callable[..., Any]) -> str:
    """The name of a handler that is given by it, or as the function. Raises `LookupError`."""
    for known in app.handlers:
        if handler in (known.name, known.function):
            return known.name
    name = handler if isinstance(handler, str) else name_of(handler)
    raise LookupError(f"there is no handler {name!r}: {who_reads(app)}")


def who_reads(app: StreamWorker) -> str:
    """Who reads what, as half a sentence. Raises `SetupError` where nobody reads anything."""
    readers = [(handler.name, handler.streams) for handler in app.handlers]
    readers += [(listener.name, (listener.stream,)) for listener in app.listeners]
    if not readers:
        raise SetupError("the app has no handlers: import the modules that register them before the test begins")
    return ", ".join(f"{name} reads {' and '.join(map(repr, streams))}" for name, streams in readers)
