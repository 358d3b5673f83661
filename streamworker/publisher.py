"""Writes entries for a program, inside a worker or outside of one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

from streamworker.delivery import Outgoing
from streamworker.errors import ConnectionLost, NotConfirmed, ServerError, StreamWorkerError
from streamworker.posting import Durability, Posting, chunks, weights_of
from streamworker.streams import publishing
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link
from streamworker.streams.packing import pack
from streamworker.streams.wire import Reply, Wire

CHUNK = 500
CHUNK_BYTES = 2**20
"""How much one write of `publish_many` holds; two are on their way at once, so that a long list fills neither buffers nor memory."""

REPLY_SECONDS = 10.0
MANY_SECONDS = 30.0
PAUSES = (0.05, 0.25)
"""Before each further try of an entry with a dedupe id, which no number of tries can write twice within its window."""


class Publisher:
    """Adds entries over connections of its own, opened when first needed, anew for each event loop that asks.

    `endpoint` is called at the first connection, so that a program may be imported before its environment is complete. What asks for
    durability has a second connection: the server answers nothing else on it while it waits for replicas.
    """

    def __init__(self, endpoint: Callable[[], Endpoint]) -> None:
        self._endpoint = endpoint
        self._links: dict[bool, Link] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idmp = True
        self._virtual_time = False
        self._durable: set[tuple[int, bool]] = set()

    async def publish(self, posting: Posting) -> str:
        """Add one entry; answers its id. Raises `ConnectionLost`, `ServerError` (it was not written) or `NotConfirmed` (it was)."""
        if posting.durability is None:
            return (await self._persist(self._link(durable=False), posting))[0]
        link = self._link(durable=True)
        await self._check(link, posting.durability)
        entry_id, wire = await self._persist(link, posting)
        await self._confirm(wire, posting.durability, [entry_id])
        return entry_id

    async def publish_many(self, postings: Sequence[Posting]) -> list[str]:
        """Add entries in order, pipelined; answers their ids. Raises `PublishFailed` that knows which were not added."""
        if not postings:
            return []
        durability = postings[0].durability
        link = self._link(durable=durability is not None)
        if durability is not None:
            await self._check(link, durability)
        outcomes: dict[int, Reply] = {}
        todo = list(range(len(postings)))
        wire = None
        for pause in (*PAUSES, None):
            wire = await self._send(link, postings, todo, outcomes)
            todo = [position for position in todo if isinstance(outcomes[position], ConnectionLost)]
            if not todo or pause is None or postings[0].dedupe_id is None:
                break
            await asyncio.sleep(pause)
        ids = publishing.sorted_out(postings, outcomes)
        if durability is not None:
            await self._confirm(wire, durability, ids)
        return ids

    async def publish_packed(self, stream: str, commands: Sequence[bytes]) -> list[str]:
        """As `publish_many`, for plain entries of one stream, packed already: many postings at once would be much to keep."""
        replies: list[Reply] = []
        try:
            wire = await _connected(self._link(durable=False))
        except StreamWorkerError as error:
            replies = [error] * len(commands)
        else:
            async for _, landed in _flown(wire, list(map(len, commands)), lambda span: commands[span.start : span.stop]):
                replies += landed
        with suppress(AttributeError):
            return [reply.decode() for reply in replies]  # nothing but ids, nearly always
        return publishing.sorted_out([Posting(Outgoing(stream, []))] * len(commands), dict(enumerate(replies)))

    async def cancel(self, stream: str, handle: str) -> bool:
        """Take a scheduled entry away; false when it does not wait any more."""
        step = publishing.cancel_step(stream, handle)
        try:
            return bool(await step.script.run(self._link(durable=False), step.keys, step.arguments))
        except StreamWorkerError as error:
            raise publishing.explained(error, stream) from error

    async def close(self) -> None:
        """End the connections; a later publish opens new ones."""
        links, self._links = self._links, {}
        if self._loop is asyncio.get_running_loop():
            for link in links.values():
                await link.close()

    async def _persist(self, link: Link, posting: Posting) -> tuple[str, Wire]:
        """Write an entry, again only where it has a dedupe id; answers its id, and over which connection it went."""
        doubt = False
        for pause in (*PAUSES, None):
            try:
                wire = link.wire or await _connected(link)
                return publishing.read_reply(posting, await self._write(wire, posting)), wire
            except ConnectionLost as lost:
                doubt = doubt or lost.may_have_run
                if pause is None or posting.dedupe_id is None:
                    raise publishing.explained(ConnectionLost(str(lost), may_have_run=doubt), posting.outgoing.stream) from lost
                await asyncio.sleep(pause)
            except ServerError as error:
                raise publishing.explained(error, posting.outgoing.stream) from error
        raise AssertionError

    async def _write(self, wire: Wire, posting: Posting) -> Reply:
        """The server's answer; what it does not know, or has forgotten, is said in another way, for then nothing was written."""
        command = publishing.command_or_step(posting, idmp=self._idmp, virtual_time=self._virtual_time)
        try:
            if isinstance(command, tuple) and not isinstance(command, publishing.Step):
                return await wire.call(*command, within=REPLY_SECONDS)
            return await wire.call(*command.by_digest(), within=REPLY_SECONDS)
        except ServerError as error:
            if isinstance(command, publishing.Step):
                if publishing.has_forgotten(error):
                    return await wire.call(*command.whole(), within=REPLY_SECONDS)
            elif posting.dedupe_id is not None and publishing.knows_no_idmp(error):
                self._idmp = False
                return await self._write(wire, posting)
            raise

    async def _send(self, link: Link, postings: Sequence[Posting], todo: Sequence[int], outcomes: dict[int, Reply]) -> Wire | None:
        """Write these; each gets its outcome."""
        try:
            wire = await _connected(link)
        except StreamWorkerError as error:
            outcomes |= dict.fromkeys(todo, error)
            return None
        alone = 0
        if not postings[todo[0]].is_plain:
            # Shows what the server knows, and teaches it the script, before many are sent that need it.
            alone = 1
            outcomes[todo[0]] = await self._outcome(wire, postings[todo[0]])
        rest = todo[alone:]

        def packed(span: range) -> list[bytes]:
            said = {"idmp": self._idmp, "virtual_time": self._virtual_time}
            return [pack(publishing.command_of(postings[position], **said)) for position in rest[span.start : span.stop]]

        async for span, replies in _flown(wire, weights_of([postings[position] for position in rest]), packed):
            for position, reply in zip(rest[span.start : span.stop], replies, strict=True):
                again = publishing.has_forgotten(reply)
                outcomes[position] = await self._outcome(wire, postings[position]) if again else reply
        return wire

    async def _outcome(self, wire: Wire, posting: Posting) -> Reply:
        try:
            return await self._write(wire, posting)
        except (ConnectionLost, ServerError) as error:
            return error

    async def _check(self, link: Link, durability: Durability) -> None:
        """See that the server can confirm, before anything is written."""
        wanted = (durability.replicas, durability.fsync)
        if wanted in self._durable:
            return
        try:
            await (await _connected(link)).call(*publishing.rehearsal(durability), within=REPLY_SECONDS)
        except ConnectionLost as lost:
            raise publishing.explained(ConnectionLost(str(lost), may_have_run=False), "") from lost
        except ServerError as error:
            raise publishing.cannot_confirm(error) from error
        self._durable.add(wanted)

    async def _confirm(self, wire: Wire | None, durability: Durability, ids: list[str]) -> None:
        """Wait on the connection over which they were written: another one would confirm nothing."""
        try:
            if wire is None:
                raise ConnectionLost("the connection was lost")
            within = durability.timeout.total_seconds() + REPLY_SECONDS
            reply = await wire.call(*publishing.confirmation(durability), within=within)
        except (ConnectionLost, ServerError) as error:
            raise NotConfirmed(publishing.unconfirmed(durability, len(ids), str(error)), ids) from error
        if not publishing.is_confirmed(durability, reply):
            raise NotConfirmed(publishing.unconfirmed(durability, len(ids), None), ids)

    def _link(self, *, durable: bool) -> Link:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._links, self._loop = {}, loop
        link = self._links.get(durable)
        if link is None:
            link = self._links[durable] = Link(self._endpoint())
            self._virtual_time = link.endpoint.virtual_time
        return link


async def _connected(link: Link) -> Wire:
    try:
        return await link.connect()
    except ConnectionLost as lost:
        raise ConnectionLost(str(lost), may_have_run=False) from lost


async def _flown(
    wire: Wire, weights: Sequence[int], packed: Callable[[range], Sequence[bytes]]
) -> AsyncIterator[tuple[range, list[Reply]]]:
    """Write entries of these weights, two chunks in flight; gives the replies to each. After the connection has ended, nothing is sent."""
    flying: deque[tuple[range, asyncio.Future[list[Reply]]]] = deque()
    for span in chunks(weights, most=CHUNK, most_bytes=CHUNK_BYTES):
        if len(flying) == 2:
            first, replies = flying.popleft()
            yield first, await replies
        if wire.broken is not None:
            left = range(span.start, len(weights))
            break
        flying.append((span, wire.call_many(packed(span), within=MANY_SECONDS)))
    else:
        left = range(0)
    for span, replies in flying:
        yield span, await replies
    if left:
        yield left, [ConnectionLost(str(wire.broken), may_have_run=False)] * len(left)
