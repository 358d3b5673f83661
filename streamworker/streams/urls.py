"""What stands in a Redis URL: the options of its query, and how it is shown without its secrets."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

_PARTS = frozenset({"username", "password", "db", "client_name"})
_SOCKET = frozenset({"socket_connect_timeout", "socket_keepalive", "socket_read_size"})
_TLS = frozenset(
    {
        "ssl_ca_certs", "ssl_ca_data", "ssl_ca_path", "ssl_certfile", "ssl_check_hostname", "ssl_cert_reqs", "ssl_ciphers",
        "ssl_keyfile", "ssl_min_version", "ssl_password",
    }
)  # fmt: skip

TAKEN = _PARTS | _SOCKET | _TLS
"""The options of the query that count; host, port and path stand before it."""

IGNORED = frozenset(
    {"decode_responses", "protocol", "socket_timeout", "retry_on_timeout", "max_connections", "health_check_interval"}
)
"""What a URL's query may not change: replies are bytes in RESP2 shape, and every wait and retry is ours."""

_HOST = re.compile(r"[A-Za-z0-9_.-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")
_DATABASE = re.compile(r"/?[0-9]{0,6}/?")
_PORT = re.compile(r":([0-9]{1,6})\Z")
_SECRET = re.compile(r"://[^@]*:[^@]+@|[?&](ssl_)?password=")


def holds_secret(url: str) -> bool:
    """Whether there is a password in the URL."""
    return _SECRET.search(url) is not None


def has_misplaced_secret(url: str) -> bool:
    """Whether a part of a password seems to have become a part of a socket's path, because a `/` in it was not written as `%2F`."""
    return url.startswith("unix://") and "@" in url.partition("?")[0][len("unix://") :].partition("/")[2]


def fault_of(url: str) -> str | None:
    """What is wrong with a URL that redis-py would take otherwise than it is meant, or not explain; in words that quote no part of it
    in which a password may have ended up. `None`: nothing.
    """
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query, keep_blank_values=True)
    except ValueError:
        return None
    if "://" not in url:
        return "it does not begin with redis://, rediss:// or unix://"
    if query.keys() - TAKEN - IGNORED:
        return f"its query has an option that is not known: there are {', '.join(sorted(TAKEN))}"
    if not _HOST.fullmatch(parts.hostname or ""):
        return "its host is none: in a password, write characters such as / : @ ? # % as %2F %3A %40 %3F %23 %25"
    port = _port_in(parts)
    if port and not 0 < int(port) < 65_536:
        return f"its port {port} is none: write one from 1 to 65535"
    return _fault_of_database(parts, query.get("db", []))


def _fault_of_database(parts: SplitResult, asked: list[str]) -> str | None:
    in_path = parts.scheme != "unix"
    path = unquote(parts.path) if in_path else ""
    repair = "write it after the port, as in redis://host:port/1" if in_path else "write it as ?db=1"
    if not _DATABASE.fullmatch(path) or not all(re.fullmatch("[0-9]{1,6}", database, re.ASCII) for database in asked):
        return f"its database is not a number: {repair}"
    named = {int(database) for database in (*asked, path.strip("/")) if database}
    return f"it names two databases: {repair}" if len(named) > 1 else None


def _port_in(parts: SplitResult) -> str:
    found = _PORT.search(parts.netloc.rpartition("@")[2])
    return found[1] if found is not None and parts.scheme != "unix" else ""


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
        number = _port_in(parts)  # one that is out of range is shown, for that is what is wrong
        host, port = parts.hostname or "", f":{number}" if number or parts.port is not None else ""
    except ValueError:
        return "<unreadable URL>"
    secret = "***@" if "@" in netloc else ""
    if scheme == "unix":
        return f"unix://{secret}{parts.path}" if not host and parts.path.isprintable() else "unix://***"
    if not _HOST.fullmatch(host):
        return f"{scheme}://***"
    shown_host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{secret}{shown_host}{port}{parts.path if _DATABASE.fullmatch(parts.path) else ''}"
