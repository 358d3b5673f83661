"""Replies of RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/) in plain Python, for where hiredis is not installed.

redis-py's own parser awaits each element of a reply, and begins again at the front of it whenever bytes are missing. This one reads what is
here in one loop, and goes on where it stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from redis._parsers.base import AsyncBaseParser
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import InvalidResponse

NOT_YET: Final = object()
"""What `gets` gives while no whole reply is here."""

_TEXT, _ERROR, _NUMBER, _BYTES, _LIST = b"+-:$*"


class Replies:
    """Takes bytes as they come and gives whole replies, as `hiredis.Reader` does; an error is given, not raised.

    `error` makes an exception of an error's text. Raises `InvalidResponse` for what is no RESP2.
    """

    __slots__ = ("_at", "_buffer", "_chunks", "_error", "_items", "_left", "_outer", "_size", "_wanted")

    def __init__(self, error: Callable[[str], Exception]) -> None:
        self._error = error
        self._buffer, self._at = b"", 0
        self._chunks: list[bytes] = []
        self._size, self._wanted = 0, 1
        self._items: list[Any] = []
        self._left = 0
        self._outer: list[tuple[list[Any], int]] = []

    def feed(self, data: bytes) -> None:
        """These bytes have come."""
        self._chunks.append(data)
        self._size += len(data)

    def has_data(self) -> bool:
        """Whether part of a reply is here."""
        return self._size > 0 or bool(self._outer)

    def gets(self) -> Any:
        """The next reply, with texts as bytes; `NOT_YET` while it is not here as a whole."""
        if self._size < self._wanted:
            return NOT_YET
        if self._chunks:
            self._buffer = b"".join((self._buffer[self._at :], *self._chunks))
            self._at = 0
            self._chunks.clear()
        try:
            return self._parse()
        except ValueError:
            raise InvalidResponse("what the server sent is no RESP2: a size or a number is none") from None

    def _parse(self) -> Any:
        buffer, at, items, left = self._buffer, self._at, self._items, self._left
        find, outer = buffer.find, self._outer
        value: Any
        while (end := find(b"\r\n", at)) >= 0:
            kind, line, after = buffer[at], buffer[at + 1 : end], end + 2
            if kind == _BYTES and (size := int(line)) >= 0:
                start, after = after, after + size + 2
                if after > len(buffer):
                    return self._stop(at, items, left, after - at)
                value = buffer[start : after - 2]
            elif kind == _LIST and (size := int(line)) > 0:
                outer.append((items, left))
                items, left, at = [], size, after
                continue
            else:
                value = self._short(kind, line)
            at = after
            while outer:
                items.append(value)
                left -= 1
                if left:
                    break
                value = items
                items, left = outer.pop()
            else:
                self._stop(at, items, left, 1)
                return value
        return self._stop(at, items, left, len(buffer) - at + 1)

    def _short(self, kind: int, line: bytes) -> Any:
        """What has no bytes beyond its line."""
        if kind == _NUMBER:
            return int(line)
        if kind == _TEXT:
            return line
        if kind == _ERROR:
            return self._error(line.decode(errors="replace"))
        if kind in (_BYTES, _LIST):
            return [] if kind == _LIST and int(line) == 0 else None
        raise InvalidResponse(f"what the server sent is no RESP2: an element begins with byte {kind}")

    def _stop(self, at: int, items: list[Any], left: int, wanted: int) -> object:
        """Go on here when so many bytes are there from here on."""
        self._at, self._items, self._left, self._wanted = at, items, left, wanted
        self._size = len(self._buffer) - at
        return NOT_YET


class Parser(AsyncBaseParser):
    """What redis-py's connection reads with, in place of its own."""

    __slots__ = ("_incoming", "_reader")

    def __init__(self, socket_read_size: int) -> None:
        super().__init__(socket_read_size)
        self._connected = False

    def on_connect(self, connection: Any) -> None:
        """Begin anew, with this connection's bytes."""
        self._incoming: asyncio.StreamReader = connection._reader  # noqa: SLF001  # where redis-py's own parsers find it
        self._reader = Replies(self.parse_error)
        self._connected = True

    def on_disconnect(self) -> None:
        """Nothing more is read."""
        self._connected = False

    async def can_read(self) -> bool:
        """Whether something is here that was not read, or the end."""
        return self._reader.has_data() or self._incoming.at_eof()

    async def can_read_destructive(self) -> bool:
        """The same, by its older name."""
        return await self.can_read()

    async def read_response(self, disable_decoding: bool = False) -> Any:  # noqa: ARG002  # nothing is ever decoded here
        """The next reply. Raises `ConnectionError` at the end, and where the server ends the connection with its answer."""
        while self._connected:
            reply = self._reader.gets()
            if reply is not NOT_YET:
                if isinstance(reply, LostConnection):
                    raise reply
                return reply
            data = await self._incoming.read(self._read_size)
            if not data:
                break
            self._reader.feed(data)
        raise LostConnection("Connection closed by server.")
