"""Where the server is, and raw connections to it.

redis-py does the socket, TLS, authentication and RESP; its clients, pools and retries are left out on purpose. A silent re-send of
XREADGROUP leaves entries pending that nobody has seen, and one of XADD writes an entry twice, so this project decides about every
second try itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio.connection as asynchronous
import redis.connection as blocking
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamworker.errors import SetupError

CONNECT_SECONDS = 5.0
"""How long a connection may take until it is ready for commands, authentication included."""

_OVERRIDDEN = ("decode_responses", "protocol", "socket_timeout", "retry_on_timeout", "max_connections", "health_check_interval")
"""What a URL's query may not change: replies are bytes in RESP2 shape, and every wait and retry is ours."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server by its URL (`redis://`, `rediss://`, `unix://`), and the name that CLIENT LIST shows for our connections."""

    url: str = field(repr=False)
    client_name: str | None = None

    def __str__(self) -> str:
        return redacted(self.url)

    def connection(self) -> asynchronous.AbstractConnection:
        """A new asyncio connection, not yet connected. Raises `SetupError` when the URL is wrong."""
        kind, options = self._options(asynchronous)
        return kind(**options, socket_timeout=None)  # type: ignore[no-any-return]

    def blocking_connection(self, timeout: float) -> blocking.AbstractConnection:
        """A new blocking connection, not yet connected; connecting, and then each reply, may take `timeout` seconds."""
        kind, options = self._options(blocking)
        return kind(**options | {"socket_timeout": timeout, "socket_connect_timeout": timeout})  # type: ignore[no-any-return]

    def _options(self, module: Any) -> tuple[Any, dict[str, Any]]:
        try:
            options: dict[str, Any] = dict(module.parse_url(self.url))
        except ValueError as error:
            # The library's text may quote the URL with its password, so only the rule is repeated.
            raise SetupError(
                f"cannot use {redacted(self.url)} as Redis URL: write redis://host:port/0, rediss://… for TLS, or unix:///path"
            ) from (None if self._has_secret else error)
        for name in _OVERRIDDEN:
            options.pop(name, None)
        kind = options.pop("connection_class", module.Connection)
        options |= {"decode_responses": False, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
        options.setdefault("socket_connect_timeout", CONNECT_SECONDS)
        options.setdefault("client_name", self.client_name)
        return kind, options

    @property
    def _has_secret(self) -> bool:
        return "@" in self.url


def redacted(url: str) -> str:
    """The URL without user, password and query, fit for logs and errors."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "<unreadable URL>"
    secret = "***@" if "@" in parts.netloc else ""
    return f"{parts.scheme}://{secret}{host}{port}{parts.path}"
