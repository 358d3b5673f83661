"""Which key it was: the server's own words for a key of the wrong type do not say."""

from __future__ import annotations

from streamworker.errors import ConnectionLost, ServerError
from streamworker.streams.keys import GroupKeys
from streamworker.streams.link import Link


async def with_its_key(link: Link, keys: GroupKeys, error: ConnectionLost | ServerError) -> ConnectionLost | ServerError | None:
    """The error, with the key of this group that holds another type than it should; `None` where none does any more."""
    if isinstance(error, ConnectionLost) or error.code != "WRONGTYPE" or " holds a " in str(error):
        return error
    wanted = {
        **dict.fromkeys((keys.stream, keys.retry, keys.dead_letters), "stream"),
        **dict.fromkeys((keys.due, keys.settled), "zset"),
        **dict.fromkeys((keys.parked, keys.paused), "hash"),
        **dict.fromkeys((keys.sweep, keys.known), "string"),
    }
    try:
        for key, kind in wanted.items():
            found = (await link.call("TYPE", key)).decode()
            if found not in ("none", kind):
                words = "sorted set" if kind == "zset" else kind
                return ServerError("WRONGTYPE", f"WRONGTYPE {key} holds a {found}, not a {words}")
    except (ConnectionLost, ServerError):
        return error
    return None
