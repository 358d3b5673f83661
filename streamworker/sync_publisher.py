"""Writes entries for programs without an event loop: Django, Flask, scripts. Threads may share it, and it may be used on after a fork."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, Self, Unpack

from streamworker.codecs import Codec
from streamworker.errors import ConnectionLost, NotConfirmed, ServerError, StreamWorkerError
from streamworker.outgoing import check_stream, encode_many, encode_outgoing
from streamworker.posting import Durability, Posting, Posts, SendOptions, chunks, split, weights_of
from streamworker.streams import publishing
from streamworker.streams.connections import Endpoint
from streamworker.streams.packing import pack
from streamworker.streams.scripts import BlockingLink
from streamworker.streams.wire import Reply

CHUNK = 500
CHUNK_BYTES = 2**18
REPLY_SECONDS = 10.0
TRIES = 3
"""Of an entry with a dedupe id, which no number of tries can write twice within its window."""


class SyncPublisher:
    """Adds entries over blocking connections: one for each thread that publishes at this moment, kept for the next that does.

    After a fork the child opens its own. `with` closes those that are idle at its end; a later publish opens new ones.
    """

    def __init__(self, codec: Codec, endpoint: Callable[[], Endpoint]) -> None:
        self._codec = codec
        self._endpoint = endpoint
        # No lock, which a fork in another thread's hands would leave held for ever: a deque's append and pop are atomic.
        self._idle: deque[tuple[int, BlockingLink]] = deque()
        self._idmp = True

    def publish(self, stream: str, body: Any, **options: Unpack[SendOptions]) -> str:
        """Add an entry; answers its id, or the handle of what is scheduled. Options and errors are those of `StreamWorker.publish`."""
        entry, ways = split(options)
        posting = Posts(**ways).of(encode_outgoing(self._codec, stream, body, **entry))
        with self._link(posting.durability) as link:
            entry_id = self._persist(link, posting)
            if posting.durability is not None:
                _confirm(link, posting.durability, [entry_id])
        return entry_id

    def publish_many(
        self, stream: str, bodies: Iterable[Any], *, dedupe_ids: Sequence[str] | None = None, **options: Unpack[SendOptions]
    ) -> list[str]:
        """Add many entries in order, pipelined; all are encoded before the first is sent. As `StreamWorker.publish_many`."""
        postings = list(encode_many(self._codec, stream, bodies, dedupe_ids, options))
        if not postings:
            return []
        durability = postings[0].durability
        outcomes: dict[int, Reply] = {}
        todo = list(range(len(postings)))
        with self._link(durability) as link:
            for _ in range(TRIES if postings[0].dedupe_id is not None else 1):
                self._send(link, postings, todo, outcomes)
                todo = [position for position in todo if isinstance(outcomes[position], ConnectionLost)]
                if not todo:
                    break
            ids = publishing.sorted_out(postings, outcomes)
            if durability is not None:
                _confirm(link, durability, ids)
        return ids

    def cancel(self, stream: str, handle: str) -> bool:
        """Take back what was published with `delay` or `at`; false when it is in its stream by now, or was taken back before."""
        check_stream(stream)
        step = publishing.cancel_step(stream, handle)
        with self._link(None) as link:
            try:
                return bool(link.run(step.script, step.keys, step.arguments))
            except StreamWorkerError as error:
                raise publishing.explained(error, stream) from error

    def close(self) -> None:
        """End the idle connections."""
        with suppress(IndexError):
            while True:
                self._idle.pop()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _link(self, durability: Durability | None) -> Iterator[BlockingLink]:
        """A connection for this thread alone; checked before anything is written where it is to confirm what is."""
        link = self._idle_link()
        if durability is not None:
            link.wait_for(durability.timeout + timedelta(seconds=REPLY_SECONDS))
            try:
                link.call(*publishing.rehearsal(durability))
            except ServerError as error:
                raise publishing.cannot_confirm(error) from error
            except ConnectionLost as lost:
                raise publishing.explained(ConnectionLost(str(lost), may_have_run=False), "") from lost
        try:
            yield link
        except BaseException:
            # Ctrl-C between a command and its reply: the next user of the connection would read that one.
            link.close()
            raise
        if durability is not None:
            link.close()  # its time-out is another one
        else:
            self._idle.append((os.getpid(), link))

    def _idle_link(self) -> BlockingLink:
        while self._idle:
            try:
                process, link = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if process == os.getpid() and link.is_quiet():
                return link
            link.close()  # in a child it closes the child's copy, and the parent's goes on
        return BlockingLink(self._endpoint(), REPLY_SECONDS)

    def _persist(self, link: BlockingLink, posting: Posting) -> str:
        doubt = False
        for left in reversed(range(TRIES if posting.dedupe_id is not None else 1)):
            try:
                return publishing.read_reply(posting, self._write(link, posting))
            except ConnectionLost as lost:
                doubt = doubt or lost.may_have_run
                if not left:
                    raise publishing.explained(ConnectionLost(str(lost), may_have_run=doubt), posting.outgoing.stream) from lost
            except ServerError as error:
                raise publishing.explained(error, posting.outgoing.stream) from error
        raise AssertionError

    def _write(self, link: BlockingLink, posting: Posting) -> Reply:
        command = publishing.command_or_step(posting, idmp=self._idmp)
        if isinstance(command, publishing.Step):
            return link.run(command.script, command.keys, command.arguments)
        try:
            return link.call(*command)
        except ServerError as error:
            if posting.dedupe_id is None or not publishing.knows_no_idmp(error):
                raise
        self._idmp = False
        return self._write(link, posting)

    def _send(self, link: BlockingLink, postings: Sequence[Posting], todo: Sequence[int], outcomes: dict[int, Reply]) -> None:
        alone = 0
        if not postings[todo[0]].is_plain:
            # Shows what the server knows, and teaches it the script, before many are sent that need it.
            alone = 1
            outcomes[todo[0]] = self._outcome(link, postings[todo[0]])
        rest = todo[alone:]
        for span in chunks(weights_of([postings[position] for position in rest]), most=CHUNK, most_bytes=CHUNK_BYTES):
            positions = rest[span.start : span.stop]
            said = {"idmp": self._idmp, "virtual_time": link.virtual_time}
            packed = [pack(publishing.command_of(postings[position], **said)) for position in positions]
            for position, reply in zip(positions, link.call_many(packed), strict=True):
                again = publishing.has_forgotten(reply)
                outcomes[position] = self._outcome(link, postings[position]) if again else reply
            if isinstance(outcomes[positions[-1]], ConnectionLost):
                lost = ConnectionLost(str(outcomes[positions[-1]]), may_have_run=False)
                outcomes |= dict.fromkeys(rest[span.stop :], lost)
                return

    def _outcome(self, link: BlockingLink, posting: Posting) -> Reply:
        try:
            return self._write(link, posting)
        except (ConnectionLost, ServerError) as error:
            return error


def _confirm(link: BlockingLink, durability: Durability, ids: list[str]) -> None:
    try:
        reply = link.call(*publishing.confirmation(durability))
    except (ConnectionLost, ServerError) as error:
        raise NotConfirmed(publishing.unconfirmed(durability, len(ids), str(error)), ids) from error
    if not publishing.is_confirmed(durability, reply):
        raise NotConfirmed(publishing.unconfirmed(durability, len(ids), None), ids)
