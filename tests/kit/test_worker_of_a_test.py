"""What the test kit says when a test is wrong, and how tests stay out of each other's way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import redis

from streamworker import Context, SetupError, StreamWorker
from streamworker.embedded import EmbeddedServer
from streamworker.testing import FakeServer, TestWorker
from tests.servers import ServerPool
from tests.waiting import wait_until


def an_app(seen: list[str], stream: str = "orders") -> StreamWorker:
    app = StreamWorker(group="billing")

    @app.handler(stream)
    async def charge(order: dict[str, str], ctx: Context) -> None:
        seen.append(order["n"])
        await app.publish("log", order)

    return app


@pytest.fixture
def valkey(server_pool: ServerPool) -> EmbeddedServer:
    return server_pool.empty("valkey")


async def test_who_reads_what_is_said_where_nobody_does() -> None:
    """A wrong stream, handler or entry is answered with those that there are."""
    async with TestWorker(an_app([])) as worker:
        for wrong in (
            lambda: worker.fail_next("chrage", ValueError()),
            lambda: worker.crash_next(an_app),
            lambda: worker.deliveries("1-1"),
        ):
            with pytest.raises(LookupError, match="charge reads 'orders'"):
                wrong()
        with pytest.raises(LookupError, match="no handler reads stream 'odrers': charge reads 'orders'"):
            await worker.publish("odrers", {"n": "1"})
        with pytest.raises(LookupError, match="no handler reads stream 'odrers'"):
            await worker.add("odrers", {"n": "1"})
        with pytest.raises(ValueError, match="time does not go back"):
            await worker.advance(timedelta(seconds=-1))
        with pytest.raises(ValueError, match="before"):
            worker.crash_next("charge", when="between")  # type: ignore[arg-type]


async def test_a_handler_with_a_process_of_its_own_runs_here() -> None:
    """In a thread, where the test's state and patches reach it; its effects count, and it can be let die."""
    app, seen = StreamWorker(group="billing"), list[tuple[object, str]]()

    @app.handler("images", executor="process")
    def scale(body: dict[str, str], ctx: Context) -> None:
        seen.append((ctx.state["size"], threading.current_thread().name))
        ctx.publish("scaled", body)

    async with TestWorker(app, state={"size": 7}) as worker:
        worker.crash_next(scale)
        await worker.publish("images", {"n": "1"})
        await worker.run_until_idle()
        assert [] == await worker.published("scaled")
        await worker.advance(timedelta(minutes=1))

        assert [{"n": "1"}] == await worker.published("scaled")
    assert [7, 7] == [size for size, _ in seen]
    assert all(name.startswith("streamworker-handler") for _, name in seen)
    assert "process" == app.handlers[0].executor


async def test_an_app_without_handlers() -> None:
    """It says what to do, before anything is started."""
    with pytest.raises(SetupError, match="handler"):
        async with TestWorker(StreamWorker(group="g")):
            pass


async def test_a_plan_that_did_not_happen_is_an_error() -> None:
    """Or the test would claim something that it has not shown."""
    with pytest.raises(AssertionError, match=r"fail_next\(ValueError\(\)\) of handler 'charge' has not happened"):
        async with TestWorker(an_app([])) as worker:
            worker.fail_next("charge", ValueError())


async def test_the_errors_of_the_test_itself_come_first() -> None:
    """A plan that did not happen is no news then."""
    with pytest.raises(ZeroDivisionError):  # noqa: PT012  # it is raised in the body
        async with TestWorker(an_app([])) as worker:
            worker.fail_next("charge", ValueError())
            _ = 1 / 0


async def test_a_handler_that_does_not_end_is_named() -> None:
    """A test does not hang, and says for what it would have."""
    app = StreamWorker(group="g")

    @app.handler("work")
    async def slow(body: dict[str, str]) -> None:
        await asyncio.Event().wait()

    async with TestWorker(app, patience=timedelta(milliseconds=200)) as worker:
        entry_id = await worker.publish("work", {"n": "1"})
        with pytest.raises(AssertionError, match=f"handler 'slow' runs with {entry_id} of 'work'"):
            await worker.run_until_idle()


async def test_a_lifespan_that_fails_fails_the_test() -> None:
    """With its own error as the cause."""

    @asynccontextmanager
    async def lifespan(app: StreamWorker) -> AsyncIterator[None]:
        raise OSError("no bank")
        yield

    app = StreamWorker(group="g", lifespan=lifespan)
    app.handler("work")(an_app([]).handlers[0].function)
    with pytest.raises(RuntimeError, match="has ended") as raised:
        async with TestWorker(app):
            pass
    assert isinstance(raised.value.__cause__, OSError)


async def test_state_stands_in_for_the_lifespan() -> None:
    """Which does not run then; without it, it does."""
    began: list[str] = []

    @asynccontextmanager
    async def lifespan(app: StreamWorker) -> AsyncIterator[dict[str, str]]:
        began.append("real")
        yield {"bank": "real"}

    app = StreamWorker(group="g", lifespan=lifespan)
    banks: list[str] = []

    @app.handler("work")
    async def work(body: dict[str, str], ctx: Context) -> None:
        banks.append(ctx.state["bank"])

    for state in ({"bank": "of the test"}, None):
        async with TestWorker(app, state=state) as worker:
            await worker.publish("work", {"n": "1"})
            await worker.run_until_idle()
    assert ["of the test", "real"] == banks
    assert ["real"] == began


async def test_middleware_of_the_program_sees_what_is_planned() -> None:
    """As if the handler had raised it."""
    app = an_app([])
    seen: list[BaseException] = []

    @app.middleware
    async def note(ctx: Context, call_next: object) -> None:
        try:
            await call_next(ctx)  # type: ignore[operator]
        except BaseException as error:
            seen.append(error)
            raise

    async with TestWorker(app) as worker:
        worker.fail_next("charge", ValueError("no"))
        await worker.publish("orders", {"n": "1"})
        await worker.advance(timedelta(hours=1))
    assert ["ValueError"] == [type(error).__name__ for error in seen]


async def test_what_the_app_publishes_goes_to_the_test() -> None:
    """While it lasts, and never to a server that the program would otherwise use."""
    app = an_app([])
    async with TestWorker(app) as worker:
        await worker.publish("orders", {"n": "1"})
        await worker.run_until_idle()
        assert [{"n": "1"}] == await worker.published("log")
    async with TestWorker(app) as worker:
        assert [] == await worker.published("log")


async def test_one_app_has_one_worker_at_a_time() -> None:
    """Because what it publishes could go to one of them only."""
    app = an_app([])
    async with TestWorker(app):
        with pytest.raises(SetupError, match="one at a time"):
            async with TestWorker(app):
                pass


@pytest.mark.parametrize("where", ["fake", "valkey"])
async def test_tests_side_by_side_do_not_meet(where: str, valkey: EmbeddedServer) -> None:
    """Each has its own data and its own time, on one server too."""
    url = None if where == "fake" else valkey.url
    seen: list[list[str]] = [[], [], [], []]

    async def one(number: int) -> None:
        async with TestWorker(an_app(seen[number]), redis_url=url) as worker:
            worker.fail_next("charge", ValueError())
            await worker.publish("orders", {"n": str(number)})
            await worker.run_until_idle()
            if number % 2:
                await worker.advance(timedelta(hours=1))

    await asyncio.gather(*(one(number) for number in range(4)))
    assert [[], ["1"], [], ["3"]] == seen
    with redis.Redis.from_url(valkey.url) as client:
        assert {} == client.info("keyspace")


async def test_a_database_that_holds_something_is_left_alone(valkey: EmbeddedServer) -> None:
    """It is not the test's: another one is taken, or, where it was named, none."""
    with redis.Redis.from_url(valkey.url) as client:
        for number in range(16):
            client.select(number)
            client.set("mine", number)
    for url in (valkey.url, valkey.url.removesuffix("/0") + "/3"):
        with pytest.raises(SetupError, match="there is no empty database") as raised:
            async with TestWorker(an_app([]), redis_url=url):
                pass
        assert "FLUSHDB" in str(raised.value)
    with redis.Redis.from_url(valkey.url) as client:
        assert 16 == len(client.info("keyspace"))


async def test_a_server_that_is_not_there() -> None:
    """It is said, without its password."""
    with pytest.raises(SetupError, match="cannot be used") as raised:
        async with TestWorker(an_app([]), redis_url="redis://:secret@127.0.0.1:1/0"):
            pass
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_fake_server_speaks_to_any_client(protocol: int) -> None:
    """For code under test that opens a connection of its own."""
    with FakeServer() as server, redis.Redis.from_url(server.url, protocol=protocol, decode_responses=True) as client:
        client.hset("h", mapping={"a": "1"})
        assert {"a": "1"} == client.hgetall("h")
        client.sadd("s", "x", "y")
        assert {"x", "y"} == set(client.smembers("s"))
        client.zadd("z", {"a": 1.5})
        assert 1.5 == client.zscore("z", "a")
        assert client.get("nothing") is None
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            client.incr("h")
        with client.pipeline() as pipe:
            pipe.set("k", "v").get("k").exists("k")
            assert [True, "v", 1] == pipe.execute()


async def test_keys_that_end_by_themselves_end_in_the_time_of_the_test() -> None:
    """Such as a marker with a life of an hour."""
    async with TestWorker(an_app([])) as worker:
        with redis.Redis.from_url(worker.redis_url) as client:
            client.set("marker", "1", ex=3600)
            await worker.advance(timedelta(minutes=59))
            assert 1 == client.exists("marker")
            await worker.advance(timedelta(minutes=1))
            assert 0 == client.exists("marker")


def test_a_client_that_has_gone_is_given_nothing() -> None:
    """A read that waits ends with its connection, as on a real server."""
    with FakeServer() as server, redis.Redis.from_url(server.url) as client:
        client.xgroup_create("s", "g", "$", mkstream=True)
        gone = redis.Redis.from_url(server.url)
        connection = gone.connection_pool.get_connection()
        connection.send_command("XREADGROUP", "GROUP", "g", "gone", "BLOCK", 60_000, "STREAMS", "s", ">")
        wait_until(lambda: client.xinfo_consumers("s", "g"))
        connection.disconnect()
        wait_until(lambda: len(client.client_list()) == 1)
        client.xadd("s", {"n": "1"})
        assert client.xreadgroup("g", "here", {"s": ">"})


async def test_a_worker_that_cannot_begin_ends_no_process_later() -> None:
    """The watchdog of a worker ends its process, which is pytest's here: in a test there is none."""

    @asynccontextmanager
    async def lifespan(_: StreamWorker) -> AsyncIterator[None]:
        raise ZeroDivisionError("no bank")
        yield

    app = StreamWorker(group="billing", lifespan=lifespan)

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None: ...

    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="has ended"):
        async with TestWorker(app):
            pass

    assert [] == [thread for thread in set(threading.enumerate()) - before if isinstance(thread, threading.Timer)]
