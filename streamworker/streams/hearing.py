"""What redis-py knows of a connection and does not tell: when bytes come in, and which replies are here already.

Both look into private parts of it, so both do without where they are not as expected: then only speed, or patience, is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection

from streamworker.streams.parsing import NOT_YET, Parser


def on_bytes(connection: AbstractConnection, heard: Callable[[], None]) -> None:
    """Call `heard` whenever bytes come in, a reply's first ones as well as its last; redis-py tells of whole replies only."""
    reader = getattr(connection, "_reader", None)
    if not isinstance(reader, asyncio.StreamReader):
        return  # a server inside this process, as some tests have it, is never silent
    feed = reader.feed_data

    def feed_data(data: Any) -> None:
        heard()
        feed(data)

    reader.feed_data = feed_data  # type: ignore[method-assign]


def replies_here(connection: AbstractConnection) -> Callable[[], Any]:
    """What takes the next reply that is here as a whole, or gives `NOT_YET`; an error is given, not raised.

    redis-py's own way to a reply costs several times what it takes to read one, and many come together.
    """
    parser = getattr(connection, "_parser", None)
    gets: Callable[..., Any] | None = getattr(getattr(parser, "_reader", None), "gets", None)
    if isinstance(parser, Parser) and gets is not None:
        return gets
    none_yet = _what_says_none()
    if gets is None or none_yet is None:
        return lambda: NOT_YET

    def take() -> Any:
        reply = gets(False)
        return NOT_YET if reply is none_yet else reply

    return take


def _what_says_none() -> object | None:
    try:
        from redis._parsers.hiredis import NOT_ENOUGH_DATA
    except ImportError:
        return None
    return NOT_ENOUGH_DATA
