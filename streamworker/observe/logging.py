"""How log lines look: for people on a terminal, as JSON elsewhere. Called by the command line only; a library configures nothing.

Every line, structlog's and the standard library's alike, goes to standard error through one handler
(https://www.structlog.org/en/stable/standard-library.html#rendering-using-structlog-based-formatters-within-logging).
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog

from streamworker.observe.descriptions import cap, trace
from streamworker.observe.printing import printable, printable_lines

LOGGER = "streamworker"

MOST_OF_A_VALUE = 2_000
"""Of a value that is neither text nor number."""

_OF_SEVERAL_LINES = ("exception", "stack")


def configure(level: str, form: str) -> None:
    """Send log lines of at least `level` to standard error as `console` or `json`; `auto` asks whether it is a terminal.

    Does nothing when the program has configured structlog itself.
    """
    if structlog.is_configured():
        return
    for_people = form == "console" or (form == "auto" and _at_a_terminal())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        *_details(for_people),
        structlog.processors.StackInfoRenderer(),
        # Without the frames' local variables and the text of validation errors: they hold the payload.
        structlog.processors.ExceptionRenderer(_described),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(for_people)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Its debug lines are about itself, such as which selector it uses.
    logging.getLogger("asyncio").setLevel(max(logging.INFO, root.level))


def _details(for_people: bool) -> list[Any]:
    """A person at a terminal knows the date and the program; a collector does not."""
    if for_people:
        return [structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)]
    return [structlog.stdlib.add_logger_name, structlog.processors.TimeStamper(fmt="iso", utc=True)]


def _renderers(for_people: bool) -> list[Any]:
    if for_people:
        return [_harmless, structlog.dev.ConsoleRenderer(colors=_wants_colours(), pad_event_to=22)]
    return [structlog.processors.JSONRenderer(default=_in_words)]


def _described(exc_info: Any) -> str:
    return trace(exc_info[1])


def _harmless(_logger: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The line with nothing in it that could steer a terminal: an error's text, or a consumer's name, may come from anybody."""
    return {printable(name): _harmless_value(name, value) for name, value in line.items()}


def _harmless_value(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return printable_lines(value) if name in _OF_SEVERAL_LINES else printable(value)
    if value is None or isinstance(value, int | float):
        return value
    return _Words(printable(_in_words(value)))


def _in_words(value: Any) -> str:
    """What is neither text nor number; never raises."""
    try:
        return cap(repr(value), MOST_OF_A_VALUE)
    except BaseException:  # noqa: BLE001  # a value that cannot be shown must not cost the line
        return f"<{type(value).__name__}>"


class _Words:
    """Words that stand for a value, and are shown without quotes as it would be."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __repr__(self) -> str:
        return self._words


def _wants_colours() -> bool:
    """https://no-color.org and its counterpart FORCE_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return _at_a_terminal() and os.environ.get("TERM") != "dumb"


def _at_a_terminal() -> bool:
    """Whether log lines go to one; a program may be started without any standard error."""
    return sys.stderr is not None and sys.stderr.isatty()
