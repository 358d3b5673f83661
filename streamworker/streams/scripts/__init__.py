"""The steps that must be atomic, as Lua. Each says its keys, arguments and answer in its first lines.

One rule for all that settle: check the fence, then write what the server can refuse, acknowledge last, because an error ends a script
but undoes nothing (https://redis.io/docs/latest/develop/programmability/eval-intro/).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

from redis.connection import AbstractConnection

from streamworker.errors import ServerError
from streamworker.streams.wire import Argument, Link, Reply


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script by its text; run by its digest, and sent whole when the server has forgotten it."""

    source: bytes
    digest: str

    async def run(self, link: Link, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        """Run it over `link`. Raises `ConnectionLost` or `ServerError`."""
        try:
            return await link.call("EVALSHA", self.digest, len(keys), *keys, *arguments)
        except ServerError as error:
            if error.code != "NOSCRIPT":
                raise
        return await link.call("EVAL", self.source, len(keys), *keys, *arguments)

    def run_blocking(self, connection: AbstractConnection, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        """Run it over a blocking connection, always by its text: for the thread that has no loop. Raises redis-py's errors."""
        connection.send_command("EVAL", self.source, len(keys), *keys, *arguments)
        return connection.read_response(disable_decoding=True)


@cache
def script(name: str) -> Script:
    """The script `name`.lua of this package."""
    source = files(__package__).joinpath(f"{name}.lua").read_bytes()
    return Script(source, sha1(source, usedforsecurity=False).hexdigest())
