"""Where the server is, and raw connections to it.

redis-py does the socket, TLS, authentication and RESP; its clients, pools and retries are left out on purpose. A silent re-send of
XREADGROUP leaves entries pending that nobody has seen, and one of XADD writes an entry twice, so this project decides about every
second try itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import redis.asyncio.connection as asynchronous
import redis.connection as blocking
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.utils import HIREDIS_AVAILABLE

from streamworker.errors import ConnectionLost, SetupError, StreamWorkerError
from streamworker.streams import tls
from streamworker.streams.faults import translate
from streamworker.streams.parsing import Parser
from streamworker.streams.urls import IGNORED, fault_of, has_misplaced_secret, redacted

CONNECT_SECONDS = 5.0
"""How long a connection may take until it is ready for commands, authentication included."""

_INTRODUCTIONS = ("driver_info", "lib_name", "lib_version")
"""What redis-py would tell by CLIENT SETINFO: a right that Redis 7.0 does not even know, for nothing that we need."""

_IN_PASSWORDS = "in a password, write characters such as / : @ ? # as %2F %3A %40 %3F %23"

_NOT_IN_NAMES = re.compile("[^!-~]")
"""What CLIENT SETNAME refuses: a consumer's name may hold it, and must not keep its worker out."""


class Endpoint:
    """A server by its URL (`redis://`, `rediss://`, `unix://`), and the name that CLIENT LIST shows for our connections.

    In place of the URL there may be something that reads it: it is read anew for each connection, so that a rotated password is taken
    up. While what it reads is no URL, or cannot be read, the last good one stands. The URL is shown without its secrets.
    With `virtual_time` the scripts take the time from a key, which a test moves (`rehearsing.py`).
    """

    def __init__(self, url: str | Callable[[], str], client_name: str | None = None, *, virtual_time: bool = False) -> None:
        self._source = url
        self._last_good: str | None = None
        self.client_name = client_name
        self.virtual_time = virtual_time

    @property
    def url(self) -> str:
        """The URL as it is now, secrets included. Raises `SetupError` when it cannot be read."""
        return self._source if isinstance(self._source, str) else self._source()

    def __str__(self) -> str:
        try:
            return redacted(self.url if self._last_good is None else self._last_good)
        except SetupError:
            return "<unreadable URL>"

    def __repr__(self) -> str:
        return f"Endpoint({str(self)!r}, client_name={self.client_name!r})"

    def connection(self) -> asynchronous.AbstractConnection:
        """A new asyncio connection, not yet connected. Raises `SetupError` when the URL is wrong."""
        reading = {} if HIREDIS_AVAILABLE else {"parser_class": Parser}
        return self._make(asynchronous, {"socket_timeout": None, **reading})  # type: ignore[no-any-return]

    def blocking_connection(self, timeout: float) -> blocking.AbstractConnection:
        """A new blocking connection, not yet connected; connecting, and then each reply, may take `timeout` seconds."""
        times = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        return self._make(blocking, times)  # type: ignore[no-any-return]

    def explain(self, error: Exception) -> StreamWorkerError:
        """What went wrong while connecting, in our words; where it looks like TLS on one side only, they say so."""
        fault = translate(error)
        if not isinstance(fault, ConnectionLost):
            return fault
        by_tls = str(self).startswith("rediss:")
        if isinstance(error, TimeoutError | RedisTimeoutError):
            hint = "; if it does not speak TLS on this port, write redis://…" if by_tls else ""
            return ConnectionLost(f"the server did not answer in time{hint}")
        if "reset by peer" in str(fault) or "closed by server" in str(fault) or isinstance(error, InvalidResponse):
            hint = (
                f"if it wants a client certificate, {tls.WANTS_ONE}"
                if by_tls
                else "if it speaks TLS on this port, write rediss://…"
            )
            return ConnectionLost(f"the server ended the connection at once; {hint}")
        return fault

    def _make(self, module: Any, more: dict[str, Any]) -> Any:
        try:
            url = self.url
            connection = self._connection_to(url, module, more)
        except SetupError:
            if self._last_good is None:
                raise
        else:
            self._last_good = url
            return connection
        try:
            return self._connection_to(self._last_good, module, more)
        except SetupError as error:  # it was good once: somebody changes a certificate's file just now
            raise ConnectionLost(str(error)) from None

    def _connection_to(self, url: str, module: Any, more: dict[str, Any]) -> Any:
        options = _options(url, module)
        kind = options.pop("connection_class", module.Connection)
        options |= {"decode_responses": False, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
        options.setdefault("socket_connect_timeout", CONNECT_SECONDS)
        if "rediss" in url[:7].lower():
            tls.check(options)
        name = options.get("client_name", self.client_name)
        options["client_name"] = None if name is None else _NOT_IN_NAMES.sub("_", name)
        try:
            connection = kind(**options | more)
        except (RedisError, TypeError, ValueError):
            # Such as ssl_… on redis://, or ssl_cert_reqs=perhaps.
            raise SetupError(f"an option in the query of {redacted(url)} does not fit: see the options of redis-py") from None
        for name in _INTRODUCTIONS:
            if hasattr(connection, name):
                setattr(connection, name, None)
        return connection


def _options(url: str, module: Any) -> dict[str, Any]:
    """The URL's parts as redis-py's options. Raises `SetupError`, in words of ours: the library's text may quote a password."""
    fault = fault_of(url)
    if fault is not None:
        hint = f"; {_IN_PASSWORDS}" if "@" in url.partition("@")[2] or redacted(url).endswith("***") else ""
        raise SetupError(f"cannot use {redacted(url)} as Redis URL: {fault}{hint}")
    try:
        if has_misplaced_secret(url):
            raise ValueError
        options: dict[str, Any] = dict(module.parse_url(url))
    except ValueError:
        raise SetupError(
            f"cannot use {redacted(url)} as Redis URL: write redis://host:port/0, rediss://… for TLS, or unix:///path; {_IN_PASSWORDS}"
        ) from None
    return {name: value for name, value in options.items() if name not in IGNORED}
