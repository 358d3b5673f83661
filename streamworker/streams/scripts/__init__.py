"""The steps that must be atomic, as Lua. Each says its keys, arguments and answer in its first lines.

One rule for all that settle: check the fence, then write what the server can refuse, acknowledge last, because an error ends a script
but undoes nothing (https://redis.io/docs/latest/develop/programmability/eval-intro/).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from hashlib import sha1
from importlib.resources import files

from redis.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from streamworker.errors import ConnectionLost, ServerError, StreamWorkerError
from streamworker.streams.connections import Endpoint
from streamworker.streams.faults import translate
from streamworker.streams.link import Link
from streamworker.streams.wire import Argument, Reply

FENCED = ("settle_commit", "settle_retry", "settle_release", "settle_dead_letter", "recount")
COUNTING = ("renew", "reclaim", "reconcile")
PRELUDES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(FENCED, ("book", "ids", "witness", "retire", "fence")),
    **dict.fromkeys(COUNTING, ("book", "witness")),
    "pardon": ("book",),
    "ack_and_delete": ("ids", "retire"),
    "trim": ("ids",),
    "listen": ("ids",),
}
"""What stands in front of which scripts."""

ON_REAL_TIME = frozenset({"reclaim"})
"""What compares the server's clock with idle times, which no test can move."""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script by its text; run by its digest, and sent whole when the server has forgotten it."""

    source: bytes
    digest: str

    async def run(self, link: Link, keys: Sequence[str], arguments: Sequence[Argument], *, within: float = 5.0) -> Reply:
        """Run it over `link`; its reply may take `within` seconds. Raises `ConnectionLost` or `ServerError`."""
        wanted = on_virtual_time(self) if link.endpoint.virtual_time else self
        try:
            return await link.call("EVALSHA", wanted.digest, len(keys), *keys, *arguments, within=within)
        except ServerError as error:
            if error.code != "NOSCRIPT":
                raise
        return await link.call("EVAL", wanted.source, len(keys), *keys, *arguments, within=within)


class BlockingLink:
    """A connection for a thread that has no loop, opened when needed and closed after any trouble; it runs scripts by their text."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._connection: AbstractConnection | None = None

    def run(self, wanted: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        """Run a script. Raises `ConnectionLost` or `ServerError`."""
        wanted = on_virtual_time(wanted) if self.virtual_time else wanted
        return self._call("EVAL", wanted.source, len(keys), *keys, *arguments)

    @property
    def virtual_time(self) -> bool:
        """Whether a test moves the server's time."""
        return self._endpoint.virtual_time

    def call(self, *command: Argument) -> Reply:
        """Send a command. Raises `ConnectionLost`, which says whether it may have run, or `ServerError`."""
        return self._call(*command)

    def call_many(self, packed: Sequence[bytes]) -> list[Reply]:
        """Send packed commands; answers each one's reply, or its error, `ConnectionLost` included."""
        replies: list[Reply] = []
        try:
            connection = self._opened()
        except StreamWorkerError as error:
            return [error] * len(packed)
        try:
            connection.send_packed_command(packed, check_health=False)  # type: ignore[no-untyped-call]
            while len(replies) < len(packed):
                try:
                    replies.append(connection.read_response(disable_decoding=True))
                except ResponseError as error:
                    replies.append(translate(error))
        except (RedisError, OSError) as error:
            self.close()
            fault = translate(error)
            replies += [fault if isinstance(fault, ConnectionLost) else ConnectionLost(str(fault))] * (len(packed) - len(replies))
        return replies

    def is_quiet(self) -> bool:
        """Whether the connection can be used on: nothing has come that nobody asked for, such as its end."""
        if self._connection is None:
            return True
        try:
            return not self._connection.can_read(timeout=0)
        except (RedisError, OSError):
            return False

    def wait_for(self, longest: timedelta) -> None:
        """Give each reply so much time, from a new connection on."""
        self.close()
        self._timeout = longest.total_seconds()

    def check(self) -> None:
        """Find out whether the server answers. Raises `ConnectionLost` or `ServerError`."""
        self._call("PING")

    def _call(self, *command: Argument) -> Reply:
        try:
            connection = self._opened()
            connection.send_command(*command)  # type: ignore[no-untyped-call]
            return connection.read_response(disable_decoding=True)
        except (RedisError, OSError) as error:
            self.close()
            raise translate(error) from error
        except BaseException:
            self.close()  # or the next caller would be given this one's reply
            raise

    def _opened(self) -> AbstractConnection:
        if self._connection is None:
            connection = self._endpoint.blocking_connection(self._timeout)
            try:
                connection.connect()  # type: ignore[no-untyped-call]
            except (RedisError, OSError) as error:
                fault = self._endpoint.explain(error)
                raise ConnectionLost(str(fault), may_have_run=False) if isinstance(fault, ConnectionLost) else fault from error
            self._connection = connection
        return self._connection

    def close(self) -> None:
        """End the connection; a later run opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()  # type: ignore[no-untyped-call]


@cache
def script(name: str) -> Script:
    """The script `name`.lua of this package, with its preludes in front."""
    return _joined(*map(_text, (*PRELUDES.get(name, ()), name)))


@cache
def on_virtual_time(wanted: Script) -> Script:
    """The same script, to which the server's time is what a test has made it."""
    if wanted in map(script, ON_REAL_TIME):
        return wanted
    return _joined(_text("virtual_time"), wanted.source)


def _text(name: str) -> bytes:
    return files(__name__).joinpath(f"{name}.lua").read_bytes()


def _joined(*parts: bytes) -> Script:
    source = b"\n".join(parts)
    return Script(source, sha1(source, usedforsecurity=False).hexdigest())
