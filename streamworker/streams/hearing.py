"""What redis-py knows of a connection and does not tell: the bytes that come in, and which replies are here already.

Both look into private parts of it, so both do without where they are not as expected: then only speed, or patience, is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection

from streamworker.streams.parsing import NOT_YET, Parser


def on_bytes(connection: AbstractConnection, heard: Callable[[bytes], bool]) -> None:
    """Call `heard` with whatever bytes come in; what it answers true for is not given to redis-py, which then only hears of the end."""
    reader = getattr(connection, "_reader", None)
    if not isinstance(reader, asyncio.StreamReader):
        return  # a server inside this process, as some tests have it, is never silent
    feed = reader.feed_data

    def feed_data(data: Any) -> None:
        if not heard(data):
            feed(data)

    reader.feed_data = feed_data  # type: ignore[method-assign]


def feeder(connection: AbstractConnection) -> Callable[[bytes], None] | None:
    """What gives bytes to the connection's parser, whose replies `replies_here` takes; `None` where only redis-py can."""
    parser = getattr(connection, "_parser", None)
    feed: Callable[[bytes], None] | None = getattr(getattr(parser, "_reader", None), "feed", None)
    known = isinstance(parser, Parser) or _what_says_none() is not None
    return feed if known else None


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
