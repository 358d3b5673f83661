"""One connection that many callers share: commands of one loop turn leave in one write, replies are matched in order.

Nothing is ever sent twice here. A caller that is cancelled leaves its reply to be thrown away; the connection stays sound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from streamworker.errors import ConnectionLost, ServerError, StreamWorkerError
from streamworker.streams.connections import CONNECT_SECONDS, Endpoint
from streamworker.streams.faults import Remedy, remedy_for, translate
from streamworker.streams.hearing import feeder, on_bytes, replies_here
from streamworker.streams.packing import Argument as Argument
from streamworker.streams.packing import pack
from streamworker.streams.parsing import NOT_YET

Reply: TypeAlias = Any


@dataclass(slots=True)
class _Waiting:
    """A command whose reply has not come: who waits for it, since when (loop time), and how long the server may be silent.

    Or `count` commands that somebody waits for as one; then `replies` are those that have come so far.
    """

    future: asyncio.Future[Reply]
    since: float
    within: float
    count: int = 1
    replies: list[Reply] | None = None


class Wire:
    """A pipelined connection; after its first trouble it is `broken` for good, and every waiting caller gets `ConnectionLost`.

    Two tasks serve it, a writer and a reader; `close` ends them. Opened by `Wire.open`.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._outbox: list[bytes] = []
        self._wanted = asyncio.Event()
        self._waiting: deque[_Waiting] = deque()
        self._watchdog: asyncio.TimerHandle | None = None
        self.broken: ConnectionLost | None = None
        self._heard_at = self._loop.time()
        self._next_here, self._feed = replies_here(connection), feeder(connection)
        on_bytes(connection, self._hear)
        self._tasks = [self._loop.create_task(self._write()), self._loop.create_task(self._read())]

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Wire:
        """Connect and authenticate. Raises `ConnectionLost`, `ServerError` (refused) or `SetupError` (the URL is wrong)."""
        connection = endpoint.connection()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            await connection.disconnect(nowait=True)
            raise endpoint.explain(error) from error
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return cls(connection)

    def call(self, *command: Argument, within: float) -> asyncio.Future[Reply]:
        """Send a command; the future holds its reply, or the server's error as `ServerError`.

        `within` is how many seconds the server may be silent while it is this command's turn; after that the connection counts as dead.
        A reply that is on its way may take as long as it is large and the way is slow.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self.broken is not None:
            future.set_exception(ConnectionLost(str(self.broken), may_have_run=False))
            return future
        try:
            self._outbox.append(pack(command))
        except ValueError as error:
            # The command cannot be written at all, such as a name with half a surrogate pair; nothing was sent.
            future.set_exception(ServerError("ERR", f"this command cannot be sent: {type(error).__name__}"))
            return future
        self._await(_Waiting(future, self._loop.time(), within))
        return future

    def call_many(self, packed: Sequence[bytes], *, within: float) -> asyncio.Future[list[Reply]]:
        """Send commands that are packed already; the future holds their replies in order, errors as `ServerError` in their places.

        When the connection ends before the last one, the rest of them are `ConnectionLost`.
        """
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        if self.broken is not None:
            future.set_exception(ConnectionLost(str(self.broken), may_have_run=False))
        elif not packed:
            future.set_result([])
        else:
            self._outbox += packed
            self._await(_Waiting(future, self._loop.time(), within, len(packed), []))
        return future

    def _await(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._wanted.set()
        if self._watchdog is None:
            self._watchdog = self._loop.call_at(self._deadline, self._check_deadline)

    def was_heard(self, within: float) -> bool:
        """Whether the server has sent something in the last so many seconds."""
        return self._heard_at > self._loop.time() - within

    async def close(self) -> None:
        """End the connection; callers that still wait get `ConnectionLost`. Safe to call twice."""
        self._break(ConnectionLost("the connection was closed by us"))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.disconnect(nowait=True)

    async def _write(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            packed, self._outbox = self._outbox, []
            try:
                await self._connection.send_packed_command(packed, check_health=False)
            except (RedisError, OSError) as error:
                return self._break(translate(error))

    async def _read(self) -> None:
        """Take replies the way of redis-py: where there is no other, and to hear of the connection's end."""
        while self.broken is None:
            try:
                self._answer(await self._connection.read_response(disable_decoding=True))
            except (RedisError, OSError) as error:
                self._fail(error)
            self._answer_all()

    def _answer_all(self) -> None:
        """Hand on all replies that are here."""
        while self.broken is None and (reply := self._next_here()) is not NOT_YET:
            if isinstance(reply, RedisError):
                self._fail(reply)
            else:
                self._answer(reply)

    def _fail(self, error: RedisError | OSError) -> None:
        """An error in place of a reply, or of the connection."""
        fault = translate(error)
        if isinstance(fault, ServerError):
            self._answer(fault)
        # LOADING, NOAUTH: an answer, but redis-py ends the connection with it.
        if not isinstance(error, ResponseError) or (isinstance(fault, ServerError) and remedy_for(fault) is Remedy.RECONNECT):
            self._break(fault)

    def _answer(self, reply: Reply) -> None:
        """Hand the reply to the caller who waits longest. (An error nested in a reply is a value; only a whole reply is raised.)"""
        if not self._waiting:
            self._break(ConnectionLost("the server sent a reply that nobody asked for"))
            return
        waiting = self._waiting[0]
        if waiting.replies is not None:
            waiting.replies.append(reply)
            if len(waiting.replies) < waiting.count:
                return
            reply = waiting.replies
        self._waiting.popleft()
        future = waiting.future
        if future.done():
            return
        if isinstance(reply, StreamWorkerError):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _hear(self, data: bytes) -> bool:
        """Bytes have come; their replies are handed on at once where we can read them, and not a turn of the loop later."""
        self._heard_at = self._loop.time()
        if self._feed is None:
            return False
        try:
            self._feed(data)
            self._answer_all()
        except RedisError as error:
            self._fail(error)
        return True

    @property
    def _deadline(self) -> float:
        """Until when something must be heard."""
        first = self._waiting[0]
        return max(first.since, self._heard_at) + first.within

    def _check_deadline(self) -> None:
        self._watchdog = None
        if not self._waiting:
            return
        if (deadline := self._deadline) <= self._loop.time():
            self._break(ConnectionLost("the server did not answer in time"))
        else:
            self._watchdog = self._loop.call_at(deadline, self._check_deadline)

    def _break(self, error: StreamWorkerError) -> None:
        if self.broken is not None:
            return
        self.broken = error if isinstance(error, ConnectionLost) else ConnectionLost(str(error))
        if self._watchdog is not None:
            self._watchdog.cancel()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        for waiting in self._waiting:
            if waiting.future.done():
                continue
            lost = ConnectionLost(str(self.broken))
            if waiting.replies is None:
                waiting.future.set_exception(lost)
            else:
                waiting.future.set_result(waiting.replies + [lost] * (waiting.count - len(waiting.replies)))
        self._waiting.clear()
