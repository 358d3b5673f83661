"""Asks by an entry, and waits for the reply in a stream of this process's own, beside the stream that is asked."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from streamworker.codecs import Codec, Decoder
from streamworker.delivery import Outgoing
from streamworker.entries import Fields, read_headers
from streamworker.errors import ConnectionLost, NoReply, ServerError, StreamWorkerError
from streamworker.streams import asking
from streamworker.streams.connections import Endpoint
from streamworker.streams.faults import Remedy, remedy_for
from streamworker.streams.keys import reply_key
from streamworker.streams.link import Link
from streamworker.streams.publishing import explained

PAUSE_SECONDS = 0.25
"""After a connection was lost that replies come over; nobody waits for longer than his timeout anyway."""


class Requester:
    """The requests of one program, anew for each event loop that asks. `endpoint` is called at the first one."""

    def __init__(self, endpoint: Callable[[], Endpoint]) -> None:
        self._endpoint = endpoint
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mailboxes: dict[str, _Mailbox] = {}
        self._decoders: dict[Any, Decoder] = {}

    def decoder(self, codec: Codec, annotation: Any) -> Decoder:
        """What reads replies of this type; made once for each, because that takes long. Raises `SetupError`."""
        try:
            return self._decoders[annotation]
        except KeyError:
            made = self._decoders[annotation] = codec.decoder(annotation)
            return made
        except TypeError:  # an annotation that cannot be a key, such as one with a list in it
            return codec.decoder(annotation)

    def reply_to(self, stream: str) -> str:
        """Where the replies to what is asked of `stream` go."""
        return self._mailbox(stream).key

    async def ask(self, outgoing: Outgoing, correlation_id: str, within: timedelta) -> Fields:
        """Add the entry and wait for its reply. Raises `NoReply`, and what `publish` raises."""
        mailbox = self._mailbox(outgoing.stream)
        limit = asyncio.timeout(within.total_seconds())
        try:
            async with limit, mailbox.place:
                reply = mailbox.expect(correlation_id)
                await mailbox.send(outgoing, within)
                return await reply
        except TimeoutError:
            if not limit.expired():
                raise
            seconds = f"{within.total_seconds():g} s"
            raise NoReply(
                f"stream {outgoing.stream!r} has sent no reply within {seconds}; the request may still be handled"
            ) from None
        finally:
            mailbox.forget(correlation_id)

    async def close(self) -> None:
        """End the connections, and delete the streams of the replies."""
        mailboxes, self._mailboxes = self._mailboxes, {}
        if self._loop is asyncio.get_running_loop():
            for mailbox in mailboxes.values():
                await mailbox.close()

    def _mailbox(self, stream: str) -> _Mailbox:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._mailboxes, self._loop = {}, loop
        if stream not in self._mailboxes:
            self._mailboxes[stream] = _Mailbox(reply_key(stream, secrets.token_hex(8)), self._endpoint())
        return self._mailboxes[stream]


class _Mailbox:
    """Where the replies from one stream arrive: read while somebody waits, over a connection of its own, because that blocks."""

    def __init__(self, key: str, endpoint: Endpoint) -> None:
        self.key = key
        self._commands, self._reads = Link(endpoint), Link(endpoint)
        self._waiting: dict[str, asyncio.Future[Fields]] = {}
        self._last_id = "0-0"
        self._reading: asyncio.Task[None] | None = None
        self._was_used = False
        self._places = asyncio.Semaphore(asking.MOST_REPLIES)

    @property
    def place(self) -> asyncio.Semaphore:
        """What is held while a reply is waited for: there are no more places than replies that the stream keeps."""
        return self._places

    def expect(self, correlation_id: str) -> asyncio.Future[Fields]:
        """The reply of this name, when it comes."""
        future: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self._waiting[correlation_id] = future
        return future

    async def send(self, outgoing: Outgoing, within: timedelta) -> None:
        """Add a request. Never twice, for that could have it handled twice."""
        self._was_used = True
        try:
            await asking.ask(self._commands, outgoing, self.key, within=within)
        except StreamWorkerError as error:
            raise explained(error, outgoing.stream) from error
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read())

    def forget(self, correlation_id: str) -> None:
        """Nobody waits for it any more."""
        future = self._waiting.pop(correlation_id, None)
        if future is not None:
            future.cancel()

    async def close(self) -> None:
        """Leave nothing behind, as far as the server can be reached."""
        for correlation_id in list(self._waiting):
            self.forget(correlation_id)
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._was_used:
            with suppress(ConnectionLost, ServerError):  # then it expires
                await asking.forget(self._commands, self.key)
        await self._reads.close()
        await self._commands.close()

    async def _read(self) -> None:
        """Hand out replies while somebody waits for one."""
        while self._waiting:
            try:
                replies = await asking.replies(self._reads, self.key, after=self._last_id)
            except ConnectionLost:
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            except StreamWorkerError as error:
                if not isinstance(error, ServerError) or remedy_for(error) is Remedy.CONFIGURE:
                    self._fail(error)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            for entry in replies:
                self._last_id = entry.id
                future = self._waiting.get(read_headers(entry.fields).get("correlation_id", ""))
                if future is not None and not future.done():
                    future.set_result(entry.fields)

    def _fail(self, error: StreamWorkerError) -> None:
        code = error.code if isinstance(error, ServerError) else "ERR"
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ServerError(code, f"the request was sent, but its reply cannot be read: {error}"))
