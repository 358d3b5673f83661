"""Every error that a server may give, provoked on a real one: which it is, and what helps, whichever way it comes to us."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from hashlib import sha1

import pytest
import redis

from streamworker.errors import ConnectionLost, ServerError
from streamworker.streams import groups, reading
from streamworker.streams.connections import Endpoint
from streamworker.streams.faults import Remedy, answered, concerns_all, remedy_for, sentence
from streamworker.streams.link import Link
from streamworker.streams.reading import Room
from streamworker.streams.scripts import BlockingLink, Script
from tests.conformance import taking
from tests.provoking import (
    Provoke,
    a_full_server,
    a_password,
    a_stale_replica,
    a_string,
    a_user,
    busy,
    crowded,
    demoted,
    no_replicas,
    unable_to_persist,
)
from tests.waiting import eventually, wait_until

pytestmark = pytest.mark.matrix

XADD = ("XADD", "orders", "*", "order_id", "1")


def a_script(source: bytes) -> Script:
    return Script(source, sha1(source, usedforsecurity=False).hexdigest())


CALL = a_script(b"return redis.call(unpack(ARGV))")
CAUGHT = a_script(b"local reply = redis.pcall(unpack(ARGV)) return reply.err")


@dataclass(frozen=True)
class Case:
    """An error: how to bring a server to it, the command that it answers with it, and what we should make of it."""

    code: str
    remedy: Remedy
    provoke: Provoke
    command: tuple[str, ...] = XADD
    keys: tuple[str, ...] = ("orders",)
    repair: str = ""
    ways: tuple[str, ...] = ("link", "script", "caught", "thread")


@contextmanager
def as_it_is(server, client):
    yield


CASES = [
    Case("OOM", Remedy.CALL_AGAIN, a_full_server, repair="maxmemory"),
    Case("NOREPLICAS", Remedy.CALL_AGAIN, no_replicas, repair="replicas"),
    Case("READONLY", Remedy.RECONNECT, demoted, repair="primary"),
    Case("MASTERDOWN", Remedy.CALL_AGAIN, a_stale_replica, ("XLEN", "orders"), repair="primary"),
    Case("MISCONF", Remedy.CALL_AGAIN, unable_to_persist, repair="disk"),
    Case("BUSY", Remedy.CALL_AGAIN, busy, repair="SCRIPT KILL"),
    Case("NOGROUP", Remedy.MAKE_GROUP, as_it_is, ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "orders", ">")),
    Case("WRONGTYPE", Remedy.CONFIGURE, a_string, repair="delete that key"),
    Case("NOPERM", Remedy.CONFIGURE, a_user("~orders", "+xlen"), repair="streamworker acl"),
    Case("NOPERM", Remedy.CONFIGURE, a_user("~orders", "+xadd"), ("XADD", "others", "*", "f", "v"), (), repair="streamworker acl"),
    Case("WRONGPASS", Remedy.CONFIGURE, a_user(password="another"), repair="mend the URL"),
    Case("WRONGPASS", Remedy.CONFIGURE, a_password(":another@"), repair="mend the URL"),
    Case("NOAUTH", Remedy.CONFIGURE, a_password(), repair="redis://user:password@host"),
    Case("NOSCRIPT", Remedy.CALL_AGAIN, as_it_is, ("EVALSHA", "a" * 40, "0"), ways=("link",)),
    Case("MAXCLIENTS", Remedy.RECONNECT, crowded, repair="maxclients"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}-{case.provoke.__name__}")
async def test_an_error_of_the_server_is_known_whichever_way_it_comes(private_server, server_kind, case):
    """As a reply, from within a script, caught in one and handed on as text, and in the leases' thread; the sentence names the repair."""
    server = private_server(server_kind)
    with redis.Redis.from_url(server.url, single_connection_client=True) as client, case.provoke(server, client) as url:
        errors = [await provoked(way, server.url if url is None else url, case) for way in case.ways]

    assert [(case.code, case.remedy)] * len(case.ways) == [(error.code, remedy_for(error)) for error in errors]
    assert not [error for error in errors if case.repair not in sentence(error) or "a-password" in sentence(error)]


async def provoked(way: str, url: str, case: Case) -> ServerError:
    """The error that comes this way."""
    endpoint = Endpoint(url, client_name="a-worker")
    async with a_link(endpoint) as link:
        try:
            match way:
                case "link":
                    await link.call(*case.command)
                case "script":
                    await CALL.run(link, case.keys, case.command)
                case "caught":
                    return answered((await CAUGHT.run(link, case.keys, case.command)).decode())
                case "thread":
                    blocking = BlockingLink(endpoint, timeout=2)
                    try:
                        await asyncio.to_thread(blocking.run, CALL, case.keys, case.command)
                    finally:
                        blocking.close()
        except ServerError as error:
            return error
    raise AssertionError(f"{case.code} did not come")


@asynccontextmanager
async def a_link(endpoint: Endpoint) -> AsyncIterator[Link]:
    link = Link(endpoint)
    try:
        yield link
    finally:
        await link.close()


# ---- what needs a story of its own -------------------------------------------------------------------------------------------


async def test_a_server_that_loads_its_data_says_so(private_server, server_kind, tmp_path):
    """For every way in, from the first answer after its start until it has loaded."""
    if server_kind == "redis-6.2":
        pytest.skip("it answers while it loads every 2 MB only, whatever one configures")
    slow = (
        "--appendonly",
        "no",
        "--key-load-delay",
        "2000",
        "--loading-process-events-interval-bytes",
        "1024",
        "--rdbcompression",
        "no",
    )
    server = private_server(server_kind, data_dir=tmp_path, extra_args=slow)
    with redis.Redis.from_url(server.url) as client:
        client.mset({f"key {number}": "x" * 1024 for number in range(500)})
        client.save()
        server.kill()
        case = Case("LOADING", Remedy.CALL_AGAIN, as_it_is, ("XLEN", "orders"))
        starting = asyncio.create_task(asyncio.to_thread(server.restart))
        try:
            await eventually(lambda: loads(server.url))
            errors = [await provoked(way, server.url, case) for way in case.ways]
        finally:
            await starting

    assert [("LOADING", Remedy.CALL_AGAIN)] * 4 == [(error.code, remedy_for(error)) for error in errors]
    assert concerns_all(errors[0])


async def loads(url: str) -> bool:
    async with a_link(Endpoint(url)) as link:
        try:
            await link.call("XLEN", "orders")
        except ServerError as error:
            return error.code == "LOADING"
        except ConnectionLost:
            return False
    raise AssertionError("the server has loaded already: give it more to load")


@pytest.mark.parametrize(
    ("accident", "remedy"),
    [("DEL orders", Remedy.MAKE_GROUP), ("REPLICAOF 127.0.0.1 1", Remedy.RECONNECT)],
    ids=["deleted", "demoted"],
)
async def test_a_blocked_read_is_ended_with_what_helps(private_server, server_kind, accident, remedy):
    """Where the stream went, the group must be made again; where the server became a replica, another one must be found."""
    server = private_server(server_kind)
    endpoint = Endpoint(server.url)
    async with a_link(endpoint) as link, a_link(endpoint) as other:
        await groups.create(link, "orders", "billing", "0")
        waiting = asyncio.create_task(taking.read(link, "billing", "me", ["orders"], count=1, block_ms=1_000))
        await eventually(lambda: is_blocked(other))
        await other.call(*accident.split())
        with pytest.raises((ServerError, ConnectionLost)) as caught:
            await (waiting if server_kind != "redis-6.2" or "DEL" not in accident else its_next_read(link, waiting))

    assert remedy is (remedy_for(caught.value) if isinstance(caught.value, ServerError) else Remedy.RECONNECT)


async def its_next_read(link: Link, waiting: asyncio.Task) -> None:
    """Redis 6.2 wakes nobody when a stream goes: the reader hears of it at its next read."""
    assert [] == await waiting
    await taking.read(link, "billing", "me", ["orders"], count=1, block_ms=1)


async def is_blocked(link: Link) -> bool:
    return b"blocked_clients:1" in await link.call("INFO", "clients")


async def test_errors_of_single_streams_come_back_beside_what_others_gave(server, aredis):
    """One of a type, one without a group, one that is sound: the sound one's entry is not lost with the others' errors."""
    await aredis.set("a", "not a stream")
    await aredis.xgroup_create("orders", "billing", "0", mkstream=True)
    await aredis.xadd("orders", {"order_id": 1})
    async with a_link(Endpoint(server.url)) as link:
        rooms = [Room(("a", "b", "orders"), 5)]
        taken, refused = await reading.fill(link, "billing", "me", rooms, most_bytes=1_000, expected_bytes=100)

    assert ["orders"] == [one.key for one in taken]
    assert {"a": "WRONGTYPE", "b": "NOGROUP"} == {key: error.code for key, error in refused.items()}


async def test_the_errors_of_a_cluster_are_known(private_server, server_kind):
    """CLUSTERDOWN, CROSSSLOT, ASK, TRYAGAIN and MOVED, from two nodes that know each other."""
    nodes = [private_server(server_kind, extra_args=("--cluster-enabled", "yes")) for _ in range(2)]
    here, there = (redis.Redis.from_url(node.url) for node in nodes)
    url, other = nodes[0].url, there.execute_command("CLUSTER", "MYID").decode()
    seen = {}

    async def see(code: str, remedy: Remedy, *command: str, keys: tuple[str, ...] = ("orders",)) -> None:
        case = Case(code, remedy, as_it_is, command, keys)
        seen[code] = [(e.code, remedy_for(e)) for e in [await provoked(way, url, case) for way in case.ways]]
        assert [(code, remedy)] * 4 == seen[code]

    with here, there:
        await see("CLUSTERDOWN", Remedy.CALL_AGAIN, *XADD)
        for first in range(0, 16_384, 2_048):
            here.execute_command("CLUSTER", "ADDSLOTS", *range(first, first + 2_048))
        here.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port)
        wait_until(lambda: other in str(here.execute_command("CLUSTER", "NODES")))
        wait_until(lambda: re.search(r"cluster_state\W+ok", str(here.execute_command("CLUSTER", "INFO"))))
        slot = here.execute_command("CLUSTER", "KEYSLOT", "orders")

        await see("CROSSSLOT", Remedy.CONFIGURE, "XREAD", "STREAMS", "a", "b", "0", "0", keys=("a", "b"))
        here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", other)
        await see("ASK", Remedy.CONFIGURE, *XADD)
        here.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
        here.xadd("orders", {"order_id": 1})
        here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", other)
        both = ("orders", "{orders}:retry:billing")
        if not server_kind.startswith("redis-6"):  # which says ASK here too
            await see("TRYAGAIN", Remedy.CALL_AGAIN, "XREAD", "STREAMS", *both, "0", "0", keys=both)
        here.delete("orders")
        here.execute_command("CLUSTER", "SETSLOT", slot, "NODE", other)
        await see("MOVED", Remedy.CONFIGURE, *XADD)

    assert {"CLUSTERDOWN", "CROSSSLOT", "ASK", "MOVED"} == set(seen) - {"TRYAGAIN"}
