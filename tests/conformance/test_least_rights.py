"""Each role under exactly the user that `streamworker acl` prints: nothing it needs is refused, and what it does not need is."""

from __future__ import annotations

import ast
import asyncio
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio
import structlog
from pydantic import BaseModel

import streamworker
from streamworker import Context, Idempotency, Reject, Retention, StreamWorker
from streamworker.admin.acl import COMMANDS, TRIMS, Role, Server, User, least_user
from streamworker.codecs.envelope import Envelope, pack
from streamworker.delivery import History
from streamworker.worker import reclaimer
from tests.command_line import run, started
from tests.harness import Ledger, an_app, run_burst, working
from tests.waiting import eventually

pytestmark = pytest.mark.matrix

STREAMS = Path(streamworker.__file__).parent / "streams"

ONLY_THE_DEMO = {"unlink"}
"""What the demo does on its own server, to leave nothing behind."""

BY_HAND = {"waitaof"}
"""For Durability(fsync=True): servers that do not know it refuse the whole rule."""

BY_THE_LIBRARY = {"client|setname", "select"}
"""What redis-py sends while it connects; AUTH and HELLO need no right."""


class Order(BaseModel):
    n: str


def server_version(client: redis.Redis) -> Server:
    """What the server understands of key patterns."""
    if client.info("server")["redis_version"].startswith("6."):
        return Server.REDIS_6_2
    return Server.REDIS_8_2 if "xackdel" in client.command() else Server.REDIS_7_0


@pytest.fixture
def as_user(server, redis_client) -> Iterator[Callable[..., str]]:
    """`as_user(role, …)` makes the user and answers a URL with it; the users are gone afterwards."""
    names = []

    def make(role: Role, *, streams=("orders",), groups=("billing",), without: str | None = None, **options) -> str:
        user = least_user(role, streams, () if role is Role.PUBLISHER else groups, server=server_version(redis_client), **options)
        user = replace(user, rules=tuple(rule for rule in user.rules if rule != f"+{without}"))
        grant(redis_client, user)
        names.append(user.name)
        return url_of(server.url, user.name)

    redis_client.acl_log_reset()
    yield make
    for name in names:
        redis_client.acl_deluser(name)
    redis_client.acl_log_reset()


def grant(client: redis.Redis, user: User) -> None:
    client.execute_command("ACL", "SETUSER", user.name, *(">pw" if rule == ">PASSWORD" else rule for rule in user.rules))


def url_of(url: str, name: str) -> str:
    return url.replace("redis://", f"redis://{name}:pw@", 1)


def refused(client: redis.Redis) -> list[tuple[str, str]]:
    """What the server refused: why, and what."""
    return [(line["reason"], line["object"]) for line in client.acl_log()]


def noperm(lines: list[dict[str, object]]) -> list[dict[str, object]]:
    """Log lines that speak of a missing right."""
    return [line for line in lines if re.search("NOPERM|permission", str(line))]


def an_eventful_app(ledger: Ledger) -> StreamWorker:
    """An application of which each entry takes another way."""
    app = an_app(lease=timedelta(milliseconds=500))

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        await ledger.note(order.n)
        match order.n:
            case "publish":
                ctx.publish("invoices", {"n": order.n}, max_length=100)
            case "write":
                ctx.transaction.hincrby("{orders}:sums", "a", 2)
                ctx.transaction.set("seen", order.n)
                ctx.transaction.delete("stale")
            case "retry" if ctx.delivery.attempt == 1:
                raise ValueError
            case "reject":
                raise Reject("no")
            case "long":
                await asyncio.sleep(1.0)  # its lease is renewed meanwhile
            case "trimmed":
                await asyncio.sleep(1.0)  # and it goes off the pending list
                ctx.publish("invoices", {"n": order.n})
            case "release" if ledger.seen.count("release") == 1:
                await asyncio.sleep(60)  # until the drain interrupts it

    @app.listener("orders")
    async def listen(order: Order) -> None: ...

    app.every(timedelta(milliseconds=200), "invoices", name="tick")(lambda: None)
    return app


# ---- the worker ----------------------------------------------------------------------------------------------------------------


async def test_a_worker_needs_no_more_than_its_rights(server, redis_client, as_user, monkeypatch):
    """Success, publish, retry, promotion, lost due time, dead letter, release, reclaim, renewal, an entry that is trimmed away while it
    runs, a group that vanishes, a consumer that is forgotten, the end of a burst: the server has refused nothing, and no right was
    granted for nothing."""
    monkeypatch.setattr(reclaimer, "CONSUMER_FORGOTTEN_AFTER", timedelta(0))
    url = as_user(Role.WORKER, publishes_to=["invoices"])
    ledger = Ledger()

    with structlog.testing.capture_logs() as lines:
        redis_client.config_resetstat()
        async with working(an_eventful_app(ledger), url) as process:
            for n in ("publish", "retry", "reject", "long"):
                redis_client.xadd("orders", {"n": n})
            await ledger.until(lambda seen: seen.count("retry") == 2 and "long" in seen)
            await lose_a_due_time(redis_client, ledger)
            trimmed = redis_client.xadd("orders", {"n": "trimmed"})
            await ledger.until(lambda seen: "trimmed" in seen)
            redis_client.xdel("orders", trimmed)
            await eventually(lambda: asyncio.to_thread(lambda: redis_client.xlen("invoices") == 2))
            redis_client.xgroup_destroy("orders", "billing")
            redis_client.xadd("orders", {"n": "after"})
            await ledger.until(lambda seen: "after" in seen)
            redis_client.set("{orders}:sw:sweep:billing", "without an end, so that PTTL is asked")
            someone_dies(redis_client, "reclaimed")
            await ledger.until(lambda seen: "reclaimed" in seen, within=20)
            await eventually(lambda: asyncio.to_thread(is_forgotten, redis_client, "dead"), within=20)
            redis_client.xadd("orders", {"n": "release"})
            await ledger.until(lambda seen: "release" in seen)
            process.drain("the test wants it")
            process.hurry()
        code = await run_burst(an_eventful_app(ledger), url)
        used = {name.removeprefix("cmdstat_").lower() for name in redis_client.info("commandstats")}

    assert 0 == code
    assert [] == refused(redis_client)
    assert [] == noperm(lines)
    assert 2 == ledger.seen.count("release")
    assert (1, 2) == (redis_client.xlen("{orders}:dlq:billing"), redis_client.xlen("invoices"))
    if any("|" in name for name in used):  # 6.2 does not count subcommands
        rarely = {"select", "get", "hrandfield"}  # in another database, for a given name, and after damage
        assert set(COMMANDS[Role.WORKER]) <= used | rarely


async def lose_a_due_time(client: redis.Redis, ledger: Ledger) -> None:
    """Park an entry's envelope without the time when it is due; the next promotion finds it."""
    entry_id = client.xadd("elsewhere", {"n": "x"}).decode()
    client.hset("{orders}:parked:billing", entry_id, pack(Envelope(entry_id, History(attempt=2), [b"n", b"lost"])))
    await ledger.until(lambda seen: "lost" in seen, within=20)


def someone_dies(client: redis.Redis, n: str) -> None:
    """An entry is pending with a consumer that will never come back. (A blocked read of the worker may get the first one.)"""
    for _ in range(2):
        client.xadd("orders", {"n": n})
        client.xreadgroup("billing", "dead", {"orders": ">"}, count=1)


def is_forgotten(client: redis.Redis, consumer: str) -> bool:
    return all(info["name"] != consumer.encode() for info in client.xinfo_consumers("orders", "billing"))


async def test_a_target_that_nobody_named_is_named_in_the_log(server, redis_client, as_user):
    """With the option that gives the right to it."""
    app = an_app()

    @app.handler("orders")
    async def bill(order: dict[str, str], ctx: Context) -> None:
        ctx.publish("invoices", {"n": order["n"]})

    async def is_said() -> bool:
        return any(line["event"] == "commit.failing" for line in lines)

    redis_client.xadd("orders", {"n": 1})
    with structlog.testing.capture_logs() as lines:
        async with working(app, as_user(Role.WORKER)):
            await eventually(is_said)
    said = next(line["error"] for line in lines if line["event"] == "commit.failing")

    assert "--publishes-to invoices" in said


async def test_a_handler_may_publish_later_and_once_to_what_its_worker_publishes_to(server, redis_client, as_user):
    """Through the app, with a delay, with a dedupe id, and both; nothing is refused."""
    ledger, app = Ledger(), StreamWorker(group="billing")

    @app.handler("orders")
    async def invoice(order: Order) -> None:
        await app.publish("invoices", order, delay=timedelta(milliseconds=1))
        await app.publish("invoices", order, dedupe_id="a")
        await app.publish("invoices", order, dedupe_id="b", delay=timedelta(hours=1))
        await ledger.note(order.n)

    async with working(app, as_user(Role.WORKER, publishes_to=["invoices"])):
        redis_client.xadd("orders", {"n": "1"})
        await ledger.until_count(1)

    assert [] == refused(redis_client)
    assert (1, 2) == (redis_client.xlen("invoices"), redis_client.zcard("{invoices}:scheduled"))


async def test_a_workers_transactions_and_markers_need_no_more_than_its_rights(redis_client, as_user):
    """With the keys named; a key that is not is refused, and nothing of that transaction is written."""
    ledger = Ledger()
    app = an_eventful_app(ledger)

    @app.handler("clicks", idempotency=Idempotency(timedelta(days=1)))
    async def count(click: Order, ctx: Context) -> None:
        await ledger.note(click.n)

    url = as_user(Role.WORKER, streams=("orders", "clicks"), publishes_to=("invoices",), writes_to=["{orders}:*", "seen", "stale"])
    redis_client.xadd("orders", {"n": "write"})
    redis_client.xadd("clicks", {"n": "click"})
    assert 0 == await run_burst(app, url)
    redis_client.xgroup_setid("clicks", "billing", "0")
    assert 0 == await run_burst(app, url)

    assert [] == refused(redis_client)
    assert {"write", "click"} == set(ledger.seen)
    assert 2 == len(ledger.seen)
    assert (b"2", b"write") == (redis_client.hget("{orders}:sums", "a"), redis_client.get("seen"))


async def test_a_worker_that_deletes_and_trims_needs_no_more_than_its_rights(server, redis_client, as_user):
    """The stream is empty in the end, and the one that is bounded as long as it may be."""
    app = an_app(retention={"orders": Retention(delete_when_acked=True), "invoices": Retention(max_length=2)})

    @app.handler("orders")
    async def charge(order: Order, ctx: Context) -> None:
        ctx.publish("invoices", {"n": order.n})

    @app.handler("invoices", group="books")
    async def book(invoice: Order) -> None: ...

    url = as_user(Role.WORKER, streams=("orders", "invoices"), groups=("billing", "books"), retention=True)
    with structlog.testing.capture_logs() as lines:
        async with working(app, url):
            for n in range(5):
                redis_client.xadd("orders", {"n": n})
            await eventually(
                lambda: asyncio.to_thread(lambda: (redis_client.xlen("orders"), redis_client.xlen("invoices")) == (0, 2))
            )

    assert [] == refused(redis_client)
    assert [] == noperm(lines)


async def test_a_worker_without_the_rights_to_trim_says_so_and_loses_nothing(server, redis_client, as_user):
    """What every group has acknowledged is deleted all the same, with the right that it has in any case."""
    app = an_app(retention={"orders": Retention(delete_when_acked=True)})

    @app.handler("orders")
    async def charge(order: Order) -> None: ...

    with structlog.testing.capture_logs() as lines:
        async with working(app, as_user(Role.WORKER)):
            redis_client.xadd("orders", {"n": 1})
            await eventually(lambda: asyncio.to_thread(lambda: redis_client.xlen("orders") == 0))
            await eventually(lambda: asyncio.sleep(0, any(line["event"] == "trimming.failing" for line in lines)))

    assert "streamworker acl" in next(line["error"] for line in lines if line["event"] == "trimming.failing")
    assert ("command", "xackdel") in refused(redis_client) or server_version(redis_client) is not Server.REDIS_8_2


async def test_a_transaction_without_the_right_to_its_keys_waits_for_it(redis_client, as_user):
    """Nothing of it is written; the log names the repair, and work goes on when the right is granted."""
    url = as_user(Role.WORKER, writes_to=["{orders}:*"])
    with structlog.testing.capture_logs() as lines:
        async with working(an_eventful_app(Ledger()), url):
            redis_client.xadd("orders", {"n": "write"})
            await eventually(lambda: asyncio.sleep(0, any(line["event"] == "commit.failing" for line in lines)))
            written = redis_client.exists("{orders}:sums", "seen")
            as_user(Role.WORKER, writes_to=["{orders}:*", "se*", "stale"])
            await eventually(lambda: asyncio.to_thread(lambda: redis_client.get("seen") == b"write"))

    assert 0 == written
    assert "streamworker acl" in next(line["error"] for line in lines if line["event"] == "commit.failing")


async def test_a_worker_with_a_given_name_claims_it(as_user, redis_client):
    """It may not give it up at once; the claim ends by itself before the next worker of that name has waited for long."""
    ledger = Ledger()
    url = as_user(Role.WORKER, publishes_to=["invoices"])

    for n in ("first", "second"):
        redis_client.xadd("orders", {"n": n})
        assert 0 == await run_burst(an_eventful_app(ledger), url, consumer="wörker *1")

    assert ["first", "second"] == ledger.seen
    assert set() == {what for _, what in refused(redis_client)}


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL",
        "KEYS *",
        "CONFIG GET requirepass",
        "ACL LIST",
        "DEL orders",
        "XGROUP DESTROY orders billing",
        "XGROUP SETID orders billing 0",
        "CLIENT KILL TYPE normal",
        "CLIENT LIST",
        "MONITOR",
        "PUBLISH channel text",
        "XRANGE clicks - +",
        "XADD clicks * n 1",
        "XRANGE {orders}:retry:search - +",
        "GET secret",
        "EVAL return{redis.call('FLUSHALL')} 0",
        "EVAL return{redis.call('XRANGE',KEYS[1],'-','+')} 1 clicks",
    ],
)
def test_a_worker_may_do_nothing_else(command, as_user, redis_client):
    """Neither to the server, nor to other keys, nor inside a script."""
    redis_client.set("secret", "x")

    with redis.Redis.from_url(as_user(Role.WORKER, publishes_to=["invoices"])) as client:
        assert client.ping()
        with pytest.raises(redis.exceptions.ResponseError, match=r"(?i)permission|can't (run|access)"):
            client.execute_command(*command.split())


RIGHTS_LACKING = [
    ("xgroup|create", "stream.failing"),
    ("xreadgroup", "stream.failing"),
    ("xack", "retry.failing"),
    ("hset", "retry.failing"),
    ("hlen", "promoting.failing"),
    ("xautoclaim", "reclaiming.failing"),
    ("xinfo|groups", "stream.failing"),
]


@pytest.mark.parametrize(("right", "event"), RIGHTS_LACKING, ids=[right for right, _ in RIGHTS_LACKING])
async def test_a_right_that_lacks_is_named_with_the_repair_and_work_goes_on_when_it_is_granted(right, event, redis_client, as_user):
    """By each part of the worker; where the server does not say what it refused in a script, its ACL LOG does. No restart is needed."""
    url = as_user(Role.WORKER, publishes_to=["invoices"], without=right)
    ledger = Ledger()

    with structlog.testing.capture_logs() as lines:
        async with working(an_eventful_app(ledger), url):
            redis_client.xadd("orders", {"n": "retry"})
            await eventually(lambda: asyncio.sleep(0, any(line["event"] == event for line in lines)))
            as_user(Role.WORKER, publishes_to=["invoices"])
            await ledger.until(lambda seen: seen.count("retry") >= 2, within=20)

    said = next(line for line in lines if line["event"] == event)
    assert "streamworker acl" in said["error"]
    assert right.partition("|")[0] in said["error"] or ("executing the script" in said["error"] and "ACL LOG" in said["error"])


@pytest.mark.parametrize("right", ["ping", "client|setname"])
def test_a_worker_that_may_not_even_begin_is_told_of_its_rights(right, as_user, tmp_path):
    """And not of its password, which is right."""
    (tmp_path / "shop.py").write_text(
        "from streamworker import StreamWorker\n"
        "app = StreamWorker(group='billing')\n"
        "@app.handler('orders')\n"
        "async def charge(order: dict[str, str]) -> None: ...\n"
    )

    with started(["run", str(tmp_path / "shop.py")], as_user(Role.WORKER, without=right)) as command:
        code, _, errors = command.end(within=20)

    assert 3 == code
    assert "`streamworker acl` prints the rights that it needs" in errors.splitlines()[-1]


# ---- the others ----------------------------------------------------------------------------------------------------------------


async def test_a_publisher_needs_no_more_than_its_rights(as_user, redis_client):
    """From a program and from the command line."""
    url = as_user(Role.PUBLISHER)

    async with StreamWorker(redis_url=url) as app:
        await app.publish("orders", {"n": 1}, max_length=10)
        await app.publish_many("orders", [{"n": 2}, {"n": 3}], dedupe_ids=["a", "b"], dedupe_window=timedelta(days=1))
        handle = await app.publish("orders", {"n": 5}, delay=timedelta(days=1), dedupe_id="c")
        assert await app.cancel("orders", handle)
        with pytest.raises(streamworker.NotConfirmed):
            await app.publish("orders", {"n": 6}, durability=streamworker.Durability(replicas=1, timeout=timedelta(milliseconds=1)))
        with pytest.raises(streamworker.NoReply):
            await app.request("orders", {"n": 7}, timeout=timedelta(milliseconds=50))
    result = await asyncio.to_thread(run, "publish", "orders", "n=4", url=url)

    assert (0, 6) == (result.exit_code, redis_client.xlen("orders"))
    assert [] == refused(redis_client)


@pytest.mark.parametrize(
    "command",
    [
        "XRANGE orders - +",
        "XREAD STREAMS orders 0",
        "XLEN orders",
        "XADD clicks * n 1",
        "DEL orders",
        "XDEL orders 1-0",
        "GET orders",
    ],
)
def test_a_publisher_may_not_read_nor_write_elsewhere(command, as_user, redis_client):
    """Only add."""
    if server_version(redis_client) is Server.REDIS_6_2 and command.split()[0] in {"XREAD", "GET"}:
        pytest.skip("6.2 has no right to write alone, and a publisher reads replies and markers")
    with redis.Redis.from_url(as_user(Role.PUBLISHER)) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


async def set_aside(url: str) -> None:
    """Two dead letters, a retry that waits, and something pending."""
    app = an_app(retry=streamworker.RetryPolicy(backoff=streamworker.Backoff.constant(timedelta(hours=1))))

    @app.handler("orders")
    async def charge(order: Order) -> None:
        if order.n == "retry":
            raise ValueError
        raise Reject("no")

    async with redis.asyncio.Redis.from_url(url) as client:
        for n in ("1", "2", "retry"):
            await client.xadd("orders", {"n": n})
        async with working(app, url, max_deliveries=3):
            await eventually(lambda: client.zcard("{orders}:due:billing"))
            await eventually(lambda: _is(client.xlen("{orders}:dlq:billing"), 2))
        await client.xadd("orders", {"n": "pending"})
        await client.xreadgroup("billing", "other", {"orders": ">"})


async def _is(asked, expected: int) -> bool:
    return await asked == expected


LOOKING = [
    ["tail", "orders"],
    ["tail", "orders", "--from", "0"],
    ["pending", "orders"],
    ["pending", "orders", "--group", "billing", "--consumer", "other"],
    ["dlq", "ls", "orders"],
    ["dlq", "ls", "orders", "--group", "billing", "--reason", "rejected"],
]


@pytest.mark.parametrize("role", [Role.DASHBOARD, Role.ADMIN])
async def test_every_command_that_looks_needs_no_more_than_the_dashboards_rights(role, server, as_user, redis_client):
    """An administrator has them too."""
    await set_aside(server.url)
    url = as_user(role)
    dead_letter = redis_client.xrange("{orders}:dlq:billing")[0][0].decode()

    for words in [*LOOKING, ["dlq", "show", "orders", dead_letter]]:
        result = await asyncio.to_thread(run, *words, url=url)
        assert (0, True) == (result.exit_code, bool(result.stdout)), f"{words}: {result.output}"
    followed = await asyncio.to_thread(follow, url)

    assert "pending" in followed
    assert [] == refused(redis_client)


def follow(url: str) -> str:
    """The first line of `tail -f`."""
    with started(["tail", "orders", "-f", "-n", "1"], url) as command:
        line = command.line(within=20)
        command.interrupt()
        command.end()
    return line


@pytest.mark.parametrize(
    "command",
    [
        "XADD orders * n 1",
        "XACK orders billing 1-1",
        "XREADGROUP GROUP billing me STREAMS orders >",
        "XDEL {orders}:dlq:billing 1-1",
        "EVAL return{1} 0",
        "XRANGE clicks - +",
        "DEL orders",
        "KEYS *",
    ],
)
def test_a_dashboard_may_not_write_nor_look_elsewhere(command, as_user):
    """It changes nothing."""
    with redis.Redis.from_url(as_user(Role.DASHBOARD)) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


def test_a_command_without_its_rights_names_the_role_that_has_them(server, as_user):
    """And does not promise that the same command would do better."""
    asyncio.run(set_aside(server.url))
    discarding = run("dlq", "discard", "orders", "--all", "--yes", url=as_user(Role.DASHBOARD))
    looking = run("tail", "orders", url=as_user(Role.PUBLISHER))

    assert [1, 1] == [discarding.exit_code, looking.exit_code]
    assert "streamworker acl --role admin" in discarding.stderr
    assert "goes on with the rest" not in discarding.stderr
    assert "streamworker acl --role dashboard" in looking.stderr


def test_an_administrator_replays_and_discards(server, as_user, redis_client):
    """With no right too few."""
    asyncio.run(set_aside(server.url))
    url = as_user(Role.ADMIN)
    first = redis_client.xrange("{orders}:dlq:billing")[0][0].decode()

    results = [
        run(*words, url=url)
        for words in (
            ["dlq", "replay", "orders", "--all", "--dry-run"],
            ["dlq", "replay", "orders", first],
            ["dlq", "replay", "orders", first, "--yes"],
            ["dlq", "discard", "orders", "--all", "--yes"],
        )
    ]

    assert [0, 2, 0, 0] == [result.exit_code for result in results], [result.output for result in results]
    assert (0, 1) == (redis_client.xlen("{orders}:dlq:billing"), redis_client.xlen("{orders}:retry:billing"))
    assert [] == refused(redis_client)


@pytest.mark.parametrize(
    "command", ["FLUSHALL", "KEYS *", "CONFIG SET maxmemory 1", "DEL orders", "XADD clicks * n 1", "XGROUP DESTROY orders billing"]
)
def test_an_administrator_may_not_do_everything(command, as_user):
    """Dead letters, no more."""
    with redis.Redis.from_url(as_user(Role.ADMIN)) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


# ---- names ---------------------------------------------------------------------------------------------------------------------

ODD = ["a*b", "a?b", "[ab]c", "back\\slash", "two words", "shop:{eu}:orders", "café", "qu\"ote's", "tab`$(x)"]


@pytest.mark.parametrize("stream", ODD)
async def test_odd_names_are_matched_exactly(stream, as_user, redis_client):
    """A worker runs on them, and a name that a glob would have matched is refused."""
    url = as_user(Role.WORKER, streams=[stream], groups=[f"g {stream}"], publishes_to=[f"to {stream}"])
    app = StreamWorker(group=f"g {stream}")

    @app.handler(stream)
    async def charge(order: Order, ctx: Context) -> None:
        ctx.publish(f"to {stream}", {"n": order.n})

    redis_client.xadd(stream, {"n": 1})
    code = await run_burst(app, url)

    assert (0, 1) == (code, redis_client.xlen(f"to {stream}"))
    assert [] == refused(redis_client)
    with redis.Redis.from_url(url) as client:
        for other in {
            stream.replace("*", "xyz"),
            stream.replace("?", "x"),
            stream.replace("[ab]", "a"),
            stream.replace(" ", "x"),
        } - {stream}:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.xadd(other, {"n": 1})


@pytest.mark.parametrize("stream", ODD)
def test_the_line_is_quoted_as_redis_cli_reads_it(stream, server, redis_client, as_user):
    """Given to redis-cli as it is printed, with the password filled in."""
    if (program := shutil.which("redis-cli")) is None:
        pytest.skip("redis-cli is not on PATH")
    as_user(Role.PUBLISHER)  # so that the user is removed afterwards
    options = ["--server", server_version(redis_client).value]
    line = run("acl", "--role", "publisher", "--stream", stream, *options).stdout.replace(">PASSWORD", ">pw")
    address = urlsplit(server.url)

    answer = subprocess.run(
        [program, "-h", address.hostname, "-p", str(address.port)], input=line, capture_output=True, text=True, check=True
    )

    assert "OK" == answer.stdout.strip()
    with redis.Redis.from_url(url_of(server.url, "streamworker-publisher")) as client:
        assert client.xadd(stream, {"n": 1})


# ---- no more and no less than the code sends -------------------------------------------------------------------------------------


def sent(text: str, known: set[str]) -> set[str]:
    """The commands that a module's Python sends: the constants that a call or tuple begins with, after names such as `link`."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        parts = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
        words = [part.value if isinstance(part, ast.Constant) else None for part in parts]
        while words and words[0] is None:
            words = words[1:]
        if words and isinstance(words[0], str) and words[0].isupper() and words[0].lower() in known:
            found.add(_named(words[0], words[1] if len(words) > 1 else None))
    return found


def _named(command: str, following: object) -> str:
    return f"{command}|{following}".lower() if command in ("CLIENT", "XGROUP", "XINFO") else command.lower()


def sent_by_scripts(text: str) -> set[str]:
    """The commands that a script runs, those that it builds as a table included."""
    calls = re.findall(r"(?:call\(|run\(|command = \{ )'([A-Z]+)'(?:, '([A-Z]+)')?", text)
    return {_named(command, following) for command, following in calls}


def test_the_roles_have_the_commands_that_the_code_sends_and_no_others(redis_client):
    """A command that is added to `streams` must be given to a role, and one that is no longer sent must be taken away."""
    known = {name.lower() for name in redis_client.command()}
    # The test kit has a server, or a database, of its own.
    in_python = set().union(*(sent(path.read_text(), known) for path in STREAMS.rglob("*.py") if path.stem != "rehearsing"))
    lua = [path for path in STREAMS.rglob("*.lua") if path.stem != "virtual_time" and not path.stem.startswith("rehearsal_")]
    in_lua = {path.stem: sent_by_scripts(path.read_text()) for path in lua}
    granted = set().union(*COMMANDS.values(), TRIMS)

    assert {"xreadgroup", "client|unblock", "xadd"} <= in_python
    everything = in_python | set().union(*in_lua.values()) | BY_THE_LIBRARY
    assert everything >= ONLY_THE_DEMO
    assert granted == everything - ONLY_THE_DEMO - BY_HAND
    assert in_lua.pop("replay") <= set(COMMANDS[Role.ADMIN])
    assert set().union(*in_lua.values()) <= {*COMMANDS[Role.WORKER], *TRIMS}
