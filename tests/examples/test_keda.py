"""Whatever place an entry is in until it is settled, the ScaledObject's triggers see it; when all are settled, none is active.

KEDA itself cannot be run here, so `ask` puts its questions, as `redis_streams_scaler.go` and `redis_scaler.go` of KEDA 2.20 put them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
import redis
import redis.asyncio

from streamworker import Retry
from tests.examples.manifests import ROOT, triggers
from tests.harness import Ledger, an_app, pending, retries_waiting, run_burst, working
from tests.servers import KINDS
from tests.waiting import eventually

COUNTERS = {name: trigger["metadata"] for name, trigger in triggers().items() if trigger["type"] != "cron"}
LENGTH_BY_TYPE = """
local command = {zset = 'ZCARD', set = 'SCARD', list = 'LLEN', hash = 'HLEN', none = 'LLEN'}
return redis.call(command[redis.call('TYPE', KEYS[1]).ok], KEYS[1])
"""


async def ask(client: redis.asyncio.Redis, metadata: dict[str, str]) -> int:
    """The number that KEDA gets for a trigger. Raises `redis.ResponseError` where KEDA gets an error."""
    if "listName" in metadata:
        return int(await client.eval(LENGTH_BY_TYPE, 1, metadata["listName"]))
    stream, group = metadata["stream"], metadata.get("consumerGroup")
    if group is None:
        return int(await client.xlen(stream))
    if "lagCount" not in metadata:
        return int((await client.xpending(stream, group))["pending"])
    assert 7 <= int((await client.info())["redis_version"].partition(".")[0])
    try:
        groups = await client.xinfo_groups(stream)
    except redis.ResponseError as error:
        if "no such key" not in str(error):
            raise
        return 0
    lags = [-1 if row["lag"] is None else int(row["lag"]) for row in groups if row["name"] == group.encode()]
    return lags[0] if lags else int(await client.xlen(stream))


async def active(client: redis.asyncio.Redis) -> set[str]:
    """The triggers that keep a worker, or would wake one. A trigger with an error keeps what is there; it is shown with a mark."""
    found = set()
    for name, metadata in COUNTERS.items():
        try:
            if await ask(client, metadata) > 0:
                found.add(name)
        except redis.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            found.add(f"{name}?")
    return found


async def nothing_left(client: redis.asyncio.Redis, url: str) -> None:
    """The group is there and has handled an entry."""
    await client.xadd("orders", {"n": 0})
    app = an_app()

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None: ...

    assert 0 == await run_burst(app, url)


async def before_the_first_worker(client: redis.asyncio.Redis, url: str) -> None:
    """Somebody has published to a stream that no worker has ever seen."""
    await client.xadd("orders", {"n": 1})


async def published(client: redis.asyncio.Redis, url: str) -> None:
    """Published after all workers had gone."""
    await nothing_left(client, url)
    await client.xadd("orders", {"n": 1})


async def in_dead_hands(client: redis.asyncio.Redis, url: str) -> None:
    """Delivered to a worker that died, or that still works at it."""
    await published(client, url)
    await client.xreadgroup("billing", "dead", {"orders": ">"})


async def parked(client: redis.asyncio.Redis, url: str) -> None:
    """Failed, to be retried in an hour."""
    await client.xadd("orders", {"n": 1})
    app = an_app()

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        raise Retry(after=timedelta(hours=1))

    async with working(app, url):
        await eventually(lambda: retries_waiting(client))


async def released(client: redis.asyncio.Redis, url: str) -> None:
    """Given back by a worker that was told to stop at once."""
    await client.xadd("orders", {"n": 1})
    app, ledger = an_app(), Ledger()

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        await ledger.note(order)
        await asyncio.Event().wait()

    async with working(app, url):
        await ledger.until_count(1)


async def released_and_in_dead_hands(client: redis.asyncio.Redis, url: str) -> None:
    """Delivered from the retry stream to a worker that died."""
    await released(client, url)
    await client.xreadgroup("billing", "dead", {COUNTERS["released"]["stream"]: ">"})


@pytest.mark.parametrize(
    ("come_about", "seen_by"),
    [
        (nothing_left, set()),
        (before_the_first_worker, {"undelivered", "pending?"}),
        (published, {"undelivered"}),
        (in_dead_hands, {"pending"}),
        (parked, {"parked"}),
        (released, {"released"}),
        (released_and_in_dead_hands, {"released"}),
    ],
)
async def test_an_entry_is_seen_wherever_it_is(server, aredis, come_about: Callable[..., Awaitable[None]], seen_by):
    """Each place is seen by the one trigger that is there for it, so none can be left out; and an end is an end."""
    await come_about(aredis, server.url)

    assert seen_by == await active(aredis)


async def test_a_deleted_entry_hides_those_beside_it(server, aredis):
    """The lag is unknown then, and no counter is active though there is work: this is what the hourly look is for. A worker ends it."""
    await nothing_left(aredis, server.url)
    deleted = await aredis.xadd("orders", {"n": 1})
    await aredis.xadd("orders", {"n": 2})
    await aredis.xdel("orders", deleted)

    assert -1 == await ask(aredis, COUNTERS["undelivered"])
    assert set() == await active(aredis)
    assert "1" == triggers()["hourly-look"]["metadata"]["desiredReplicas"]

    await nothing_left(aredis, server.url)
    await aredis.xadd("orders", {"n": 3})
    assert {"undelivered"} == await active(aredis)
    assert 0 == await pending(aredis)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_user_of_the_how_to_may_count_and_nothing_else(private_server, kind):
    """Its rights are enough for every trigger, and it can neither read an entry nor write one."""
    if kind == "redis-6.2":
        pytest.skip("rights to read a key alone (%R~) are there from Redis 7.0 on, and so is the lag that KEDA asks for")
    page = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
    [rights] = re.findall(r"^redis-cli ACL SETUSER keda (.*?)$", page.replace("\\\n", " "), flags=re.MULTILINE)
    server = private_server(kind)
    async with redis.asyncio.Redis.from_url(server.url) as admin:
        await parked(admin, server.url)
        await admin.execute_command("ACL", "SETUSER", "keda", *rights.replace("'", "").split())
    async with redis.asyncio.Redis.from_url(server.url, username="keda", password="…") as keda:
        assert await keda.ping()
        assert {"parked"} == await active(keda)
        for command in (
            ("XADD", "orders", "*", "n", "1"),
            ("XRANGE", "orders", "-", "+"),
            ("DEL", COUNTERS["parked"]["listName"]),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                await keda.execute_command(*command)


def test_every_state_has_its_counter() -> None:
    """The triggers are these four and the look by the clock."""
    assert {"undelivered", "pending", "parked", "released"} == COUNTERS.keys()
    assert COUNTERS.keys() | {"hourly-look"} == triggers().keys()
