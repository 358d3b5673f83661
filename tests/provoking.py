"""Brings a server into trouble, as context managers: inside, it answers with its error; afterwards it is as it was.

Each takes the server and a client of it; it may give the URL under which its error shows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from streamworker.embedded import EmbeddedServer
from tests.waiting import wait_until

Provoke = Callable[[EmbeddedServer, redis.Redis], AbstractContextManager[str | None]]


def answers(client: redis.Redis, code: str) -> bool:
    try:
        client.ping()
    except redis.RedisError as error:
        return code in str(error)
    return False


@contextmanager
def configured(client: redis.Redis, **options: Any) -> Iterator[None]:
    names = {name.replace("_", "-"): value for name, value in options.items()}
    before = {name: client.config_get(name)[name] for name in names}
    for name, value in names.items():
        client.config_set(name, value)
    yield
    for name, value in before.items():
        client.config_set(name, value)


@contextmanager
def a_full_server(server, client):
    with configured(client, maxmemory_policy="noeviction", maxmemory=1):
        yield


@contextmanager
def no_replicas(server, client):
    with configured(client, min_replicas_to_write=1):
        yield


@contextmanager
def demoted(server, client):
    client.replicaof("127.0.0.1", 1)
    yield
    client.replicaof("NO", "ONE")


@contextmanager
def a_stale_replica(server, client):
    with configured(client, replica_serve_stale_data="no"), demoted(server, client):
        yield


@contextmanager
def unable_to_persist(server, client):
    """A directory stands where the file of the next snapshot is to be."""
    obstacle: Path = server.directory / "dump.rdb"
    obstacle.mkdir()
    with configured(client, save="3600 1000000"):
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
        yield
        obstacle.rmdir()


@contextmanager
def busy(server, client):
    def run_for_ever() -> None:
        with redis.Redis.from_url(server.url, socket_timeout=None) as other, pytest.raises(redis.ResponseError):
            other.eval("while true do end", 0)

    with configured(client, lua_time_limit=1):
        thread = threading.Thread(target=run_for_ever)
        thread.start()
        wait_until(lambda: answers(client, "BUSY"))
        yield
        client.script_kill()
        thread.join()


@contextmanager
def a_string(server, client):
    client.set("orders", "not a stream")
    yield


def a_user(*rights: str, password: str = "a-password"):
    @contextmanager
    def provoke(server, client):
        client.execute_command("ACL", "SETUSER", "somebody", "on", ">a-password", "+eval", "+evalsha", "+client", *rights)
        yield server.url.replace("redis://", f"redis://somebody:{password}@")

    return provoke


def a_password(given: str = ""):
    @contextmanager
    def provoke(server, client):
        with configured(client, requirepass="a-password"):
            client.auth("a-password")
            yield server.url.replace("redis://", f"redis://{given}")

    return provoke


@contextmanager
def crowded(server, client):
    with configured(client, maxclients=1):
        yield
