"""What redis-py raises, in our words.

The error's code is looked for anywhere in its text, because a script's error, Redis 6.2 and proxies wrap it.
"""

from __future__ import annotations

import re

import redis.exceptions as theirs

from streamworker.errors import ConnectionLost, ServerError, StreamWorkerError

_BY_CLASS: dict[type[Exception], str] = {
    theirs.NoScriptError: "NOSCRIPT",
    theirs.OutOfMemoryError: "OOM",
    theirs.ReadOnlyError: "READONLY",
    theirs.NoPermissionError: "NOPERM",
    theirs.BusyLoadingError: "LOADING",
    theirs.AuthenticationError: "NOAUTH",
    theirs.MaxConnectionsError: "MAXCLIENTS",
}
"""redis-py cuts the code off the text of those errors that have a class of their own."""

_CODE = re.compile(
    r"\b(LOADING|READONLY|MASTERDOWN|MISCONF|OOM|NOREPLICAS|BUSYGROUP|BUSY|NOGROUP|UNBLOCKED|WRONGTYPE|NOPERM|NOAUTH|WRONGPASS|NOSCRIPT"
    r"|MOVED|ASK|TRYAGAIN|CLUSTERDOWN|CROSSSLOT|EXECABORT)\b"
)
_NO_RIGHT = re.compile("ACL failure in script|user executing the script can't", re.IGNORECASE)
"""A right that lacks inside a script; the server calls that a plain ERR."""

_MAX_CLIENTS = re.compile("max number of clients", re.IGNORECASE)
_TEXT_LIMIT = 300

_RIGHTS = "`streamworker acl` prints the rights that are needed, and the server's ACL LOG names the one that lacks"

WILL_PASS = frozenset({"LOADING", "MASTERDOWN", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MAXCLIENTS"})
"""Codes that say: the same call will work later, without anybody's help."""

GROUP_GONE = frozenset({"NOGROUP", "UNBLOCKED"})
"""Codes that say: the group, or the whole stream, is not there any more."""


def translate(error: Exception) -> StreamWorkerError:
    """Our exception for one of redis-py's or the operating system's."""
    if isinstance(error, StreamWorkerError):
        return error
    code = code_of(error)
    if code == "NOPERM":
        return ServerError(code, f"{_capped(error)}; {_RIGHTS}")
    if code is not None:
        return ServerError(code, _capped(error))
    if isinstance(error, theirs.ResponseError):
        return ServerError("ERR", _capped(error))
    return ConnectionLost(_capped(error))


def code_of(error: Exception) -> str | None:
    """The server's error word, or `None` where the error is not the server's answer."""
    for kind, code in _BY_CLASS.items():
        if isinstance(error, kind):
            return code
    if not isinstance(error, theirs.RedisError):
        return None
    text = str(error)
    found = _CODE.search(text)
    if found is not None:
        return found.group(1)
    if _NO_RIGHT.search(text):
        return "NOPERM"
    return "MAXCLIENTS" if _MAX_CLIENTS.search(text) else None


def _capped(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"
