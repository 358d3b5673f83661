"""What redis-py raises, in our words, and what is to be done about it.

The error's code is looked for anywhere in its text, because a script's error, Redis 6.2 and proxies wrap it.
"""

from __future__ import annotations

import os
import re
from enum import StrEnum

import redis.exceptions as theirs

from streamworker.errors import ConnectionLost, ServerError, StreamWorkerError
from streamworker.streams import tls


class Remedy(StrEnum):
    """What helps against a server's error."""

    CALL_AGAIN = "the same call again, a little later"
    RECONNECT = "the same call over a new connection"
    MAKE_GROUP = "the group made again, then the same call"
    CONFIGURE = "somebody who mends the configuration"


_REMEDIES = {
    "LOADING": Remedy.CALL_AGAIN,
    "MASTERDOWN": Remedy.CALL_AGAIN,
    "MISCONF": Remedy.CALL_AGAIN,
    "OOM": Remedy.CALL_AGAIN,
    "NOREPLICAS": Remedy.CALL_AGAIN,
    "BUSY": Remedy.CALL_AGAIN,
    "NOSCRIPT": Remedy.CALL_AGAIN,
    "TRYAGAIN": Remedy.CALL_AGAIN,
    "CLUSTERDOWN": Remedy.CALL_AGAIN,
    # The name in the URL may lead to another server by now, and a place may be free.
    "READONLY": Remedy.RECONNECT,
    "MAXCLIENTS": Remedy.RECONNECT,
    "NOGROUP": Remedy.MAKE_GROUP,
    "UNBLOCKED": Remedy.MAKE_GROUP,
}
"""Whatever is not listed is a matter of configuration: a right, a password, a type of key, a topology, a size."""

_REPAIRS = {
    "WRONGTYPE": "a key holds another type than a worker needs: rename or delete that key, and the worker goes on by itself",
    "OOM": "the server is full: raise maxmemory or free memory, and the worker goes on by itself",
    "NOPERM": "the user lacks a right, which ACL LOG names: `streamworker acl` prints all it needs; the worker then goes on by itself",
    "NOAUTH": "write user and password in the URL: redis://user:password@host:port/0, or redis://:password@host:port/0",
    "NOPASSWORD": "the server wants no password: leave it out of the URL, or give the server one",
    "NODATABASE": "the server has no database of that number: write a lower one at the end of the URL, such as /0",
    "WRONGPASS": "the user or its password is wrong: mend the URL, or the file that it is read from",
    "READONLY": "this server is a replica: point the worker at the primary",
    "MISCONF": "the server cannot persist: mend its disk, and the worker goes on by itself",
    "NOREPLICAS": "too few replicas are connected: mend them, and the worker goes on by itself",
    "MAXCLIENTS": "the server has no connection left: raise maxclients, or start fewer workers",
    "BUSY": "a script of somebody holds the server: end it with SCRIPT KILL",
    "MASTERDOWN": "this replica has lost its primary: mend that link, and the worker goes on by itself",
    "CLUSTERDOWN": "this is a node of a cluster that serves nothing: point the worker at a server without cluster mode",
    "MOVED": "this is a node of a cluster: point the worker at a server without cluster mode",
    "ASK": "this is a node of a cluster: point the worker at a server without cluster mode",
    "CROSSSLOT": "this is a node of a cluster, and the streams are in different slots of it: give their names one hash tag",
    "OVERSIZED": "the entry is larger than the server takes: publish less at once, or raise proto-max-bulk-len",
}

_BY_CLASS: dict[type[Exception], str] = {
    theirs.NoScriptError: "NOSCRIPT",
    theirs.OutOfMemoryError: "OOM",
    theirs.ReadOnlyError: "READONLY",
    theirs.NoPermissionError: "NOPERM",
    theirs.BusyLoadingError: "LOADING",
    theirs.AuthenticationError: "NOAUTH",
    theirs.MaxConnectionsError: "MAXCLIENTS",
    theirs.MovedError: "MOVED",
    theirs.AskError: "ASK",
    theirs.TryAgainError: "TRYAGAIN",
    theirs.ClusterCrossSlotError: "CROSSSLOT",
    theirs.MasterDownError: "MASTERDOWN",
    theirs.ClusterDownError: "CLUSTERDOWN",
}
"""redis-py cuts the code off the text of those errors that have a class of their own. A class stands before the one it is made from."""

_CODE = re.compile(
    r"\b(LOADING|READONLY|MASTERDOWN|MISCONF|OOM|NOREPLICAS|BUSYGROUP|BUSY|NOGROUP|UNBLOCKED|WRONGTYPE|NOPERM|NOAUTH|WRONGPASS|NOSCRIPT"
    r"|MOVED|ASK|TRYAGAIN|CLUSTERDOWN|CROSSSLOT|EXECABORT)\b"
)
_BY_TEXT = {
    "MAXCLIENTS": re.compile("max number of clients", re.IGNORECASE),
    "OVERSIZED": re.compile("invalid (multi)?bulk length|exceeds maximum allowed size", re.IGNORECASE),
    "NODATABASE": re.compile("DB index is out of range", re.IGNORECASE),
    "NOPERM": re.compile("user executing the script can't|ACL failure in script", re.IGNORECASE),
}
"""What the server says without a word of its own for it: the last one is a missing right, found inside a script."""

_NO_PASSWORD = re.compile("without any password configured|no password is set", re.IGNORECASE)
_WRONG_PASSWORD = re.compile("invalid (username-)?password|user is disabled", re.IGNORECASE)
_OF_A_SCRIPT = re.compile(
    r",? script: [0-9a-f]{40}, on @user_script:\d+\.?|^Error running script \(call to f_[0-9a-f]{40}\): @user_script:\s?\d+: "
)
"""Where in a script of ours it happened, which tells a user nothing."""
_CONNECTING = re.compile(r"Error ([0-9]{1,4}) connecting to ([^ ]+)\. ")
_TEXT_LIMIT = 300


def concerns_all(error: ServerError) -> bool:
    """Whether no stream of this server can be read while it lasts. (A full server still hands out entries: XREADGROUP needs no memory.)"""
    return remedy_for(error) in (Remedy.CALL_AGAIN, Remedy.RECONNECT) and error.code != "OOM"


def answers_nobody(error: ServerError) -> bool:
    """Whether the server says this to every command, so that any other answer tells that it is over."""
    return error.code in {"LOADING", "MASTERDOWN", "BUSY"}


def remedy_for(error: ServerError) -> Remedy:
    """What helps against this error."""
    if error.code == "UNBLOCKED" and "instance state changed" in str(error):
        return Remedy.RECONNECT  # the server has become a replica under a blocked read
    return _REMEDIES.get(error.code, Remedy.CONFIGURE)


def sentence(error: ConnectionLost | ServerError) -> str:
    """The error for a log line, with the repair where its code points to one; without parts that change from time to time."""
    if isinstance(error, ConnectionLost):
        return "the connection to Redis was lost"
    repair = repair_of(error)
    return str(error) if repair is None else f"{error} ({repair})"


def repair_of(error: ServerError) -> str | None:
    """What is to be done about it, where its code tells."""
    return _REPAIRS.get(error.code)


def translate(error: Exception) -> StreamWorkerError:
    """Our exception for one of redis-py's or the operating system's."""
    if isinstance(error, StreamWorkerError):
        return error
    code = code_of(error)
    if code is not None:
        return ServerError(code, _capped(error))
    if isinstance(error, theirs.ResponseError):
        return ServerError("ERR", _capped(error))
    return ConnectionLost(tls.sentence_for(error) or _refusal(error) or _capped(error))


def answered(text: str) -> ServerError:
    """The error that a script has caught and handed on as text."""
    return ServerError(code_of(theirs.ResponseError(text)) or "ERR", _cut(text))


def code_of(error: Exception) -> str | None:
    """The server's error word, or `None` where the error is not the server's answer."""
    text = str(error)
    if isinstance(error, theirs.AuthenticationError) and _WRONG_PASSWORD.search(text):
        return "WRONGPASS"  # of the same class as NOAUTH, and with another repair
    if isinstance(error, theirs.AuthenticationError) and _NO_PASSWORD.search(text):
        return "NOPASSWORD"
    for kind, code in _BY_CLASS.items():
        if isinstance(error, kind):
            return code
    if not isinstance(error, theirs.RedisError):
        return None
    found = _CODE.search(text)
    if found is not None:
        return found.group(1)
    return next((code for code, pattern in _BY_TEXT.items() if pattern.search(text)), None)


def _refusal(error: Exception) -> str | None:
    """The system's own words, where the library says them twice."""
    found = _CONNECTING.match(str(error))
    return None if found is None else f"{os.strerror(int(found[1])).lower()} ({found[2]})"


def _capped(error: Exception) -> str:
    return _cut(str(error) or type(error).__name__)


def _cut(text: str) -> str:
    text = _OF_A_SCRIPT.sub("", text)
    return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"
