"""Writes entries for a program, inside a worker or outside of one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from streamworker.codecs import Codec
from streamworker.delivery import Outgoing
from streamworker.errors import EncodeError
from streamworker.streams import publishing
from streamworker.streams.connections import Endpoint
from streamworker.streams.keys import tag
from streamworker.streams.wire import Link

CHUNK = 500
"""Entries per write of `publish_many`, so that a long list neither fills the socket's buffers nor memory."""


class Publisher:
    """Encodes and adds entries over a connection of its own, opened when first needed, one for each event loop that asks.

    `endpoint` is called at the first connection, so that a program may be imported before its environment is complete.
    """

    def __init__(self, codec: Codec, endpoint: Callable[[], Endpoint]) -> None:
        self._codec = codec
        self._endpoint = endpoint
        self._link: Link | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def publish(self, outgoing: Outgoing) -> str:
        """Add one entry; answers its id. Raises `ConnectionLost` (it may have been written or not) or `ServerError` (it was not)."""
        return await publishing.add(self._connected(), outgoing)

    async def publish_many(self, entries: Iterable[Outgoing]) -> list[str]:
        """Add entries in order, pipelined; answers their ids. Raises an `ExceptionGroup` when some could not be added."""
        listed = list(entries)
        replies: list[str | Exception] = []
        for start in range(0, len(listed), CHUNK):
            replies += await publishing.add_many(self._connected(), listed[start : start + CHUNK])
        ids = [reply for reply in replies if isinstance(reply, str)]
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        if errors:
            raise ExceptionGroup(f"{len(errors)} of {len(listed)} entries were not added, as far as is known", errors)
        return ids

    async def close(self) -> None:
        """End the connection; a later publish opens a new one."""
        link, self._link = self._link, None
        if link is not None and self._loop is asyncio.get_running_loop():
            await link.close()

    def encode(
        self,
        stream: str,
        body: Any,
        *,
        type: str | None = None,  # noqa: A002  # the word that users know
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        max_length: int | None = None,
    ) -> Outgoing:
        """The entry for `body`; the options are those of `PublishOptions`. Raises `EncodeError` when it cannot be one."""
        if not isinstance(stream, str) or not stream:
            raise EncodeError(f"a stream's name is a non-empty string, not {stream!r}")
        try:
            stream.encode()
        except UnicodeEncodeError:
            raise EncodeError("the stream's name holds half a surrogate pair, which is not text") from None
        tag(stream)
        if max_length is not None and (
            isinstance(max_length, bool) or not isinstance(max_length, int) or not 1 <= max_length < 2**63
        ):
            raise EncodeError(f"max_length is a whole number of at least 1, or None to keep all, not {max_length!r}")
        written = {} if headers is None else dict(headers)
        written |= {name: value for name, value in (("type", type), ("key", key)) if value is not None}
        return Outgoing(stream, self._codec.encode(body, written), max_length)

    def _connected(self) -> Link:
        loop = asyncio.get_running_loop()
        if self._link is None or self._loop is not loop:
            self._link, self._loop = Link(self._endpoint()), loop
        return self._link
