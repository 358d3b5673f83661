"""What stands in a Redis URL: the options of its query, and how it is shown without its secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_PARTS = frozenset({"username", "password", "host", "port", "db", "path", "connection_class", "client_name"})
_SOCKET = frozenset({"socket_connect_timeout", "socket_keepalive", "socket_read_size"})
_TLS = frozenset(
    {
        "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_certfile", "ssl_check_hostname", "ssl_cert_reqs", "ssl_ciphers",
        "ssl_keyfile", "ssl_min_version", "ssl_password",
    }
)  # fmt: skip

TAKEN = _PARTS | _SOCKET | _TLS
"""The options that count."""

IGNORED = frozenset(
    {"decode_responses", "protocol", "socket_timeout", "retry_on_timeout", "max_connections", "health_check_interval"}
)
"""What a URL's query may not change: replies are bytes in RESP2 shape, and every wait and retry is ours."""

_HOST = re.compile(r"[A-Za-z0-9_.:%-]*")
_DATABASE = re.compile(r"/?[0-9]{0,6}")
_SECRET = re.compile(r"://[^@]*:[^@]+@|[?&](ssl_)?password=")


def holds_secret(url: str) -> bool:
    """Whether there is a password in the URL."""
    return _SECRET.search(url) is not None


def has_misplaced_secret(url: str) -> bool:
    """Whether a part of a password seems to have become a part of a socket's path, because a `/` in it was not written as `%2F`."""
    return url.startswith("unix://") and "@" in url.partition("?")[0][len("unix://") :].partition("/")[2]


def redacted(url: str) -> str:
    """The URL without user, password and query, fit for logs and errors.

    Where a password may have got into another part, because a `/` or `?` in it was not written as `%2F` or `%3F`, only the scheme is
    shown.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in ("redis", "rediss", "unix"):
        return "<unreadable URL>"
    netloc = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest[len(netloc) :]:
        return f"{scheme}://***"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return "<unreadable URL>"
    secret = "***@" if "@" in netloc else ""
    if scheme == "unix":
        return f"unix://{secret}{parts.path}" if not host and parts.path.isprintable() else "unix://***"
    if not _HOST.fullmatch(host):
        return f"{scheme}://***"
    shown_host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{secret}{shown_host}{port}{parts.path if _DATABASE.fullmatch(parts.path) else ''}"
