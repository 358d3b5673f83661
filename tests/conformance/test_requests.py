"""Request and reply on real servers: the reply comes with the acknowledgement, or says why there is none, or it is said that none came."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from pydantic import BaseModel

from streamworker import (
    Context,
    DecodeError,
    EncodeError,
    NoReply,
    Reject,
    RequestFailed,
    ServerError,
    SetupError,
    StreamWorker,
)
from streamworker.settings import Settings
from tests.harness import Ledger, an_app, dead_letters, pending, working
from tests.waiting import eventually

SOON = timedelta(milliseconds=200)
LONG = timedelta(seconds=20)
MINE = "{orders}:sw:reply:*"


class Price(BaseModel):
    cents: int
    items: list[str] = []


def an_asker(url: str) -> StreamWorker:
    return StreamWorker(settings=Settings(redis_url=url))


async def replies_left(aredis) -> list[bytes]:
    return [key async for key in aredis.scan_iter(MINE)]


@pytest.mark.matrix
async def test_what_a_handler_returns_is_the_reply(server, aredis):
    """As the type that is asked for; many at once, each its own. The entry is acknowledged, and nothing is left of the replies."""
    app = an_app()

    @app.handler("orders")
    async def price(body: dict[str, int]) -> Price:
        await asyncio.sleep(0)
        return Price(cents=body["n"] * 100, items=["a"])

    async with working(app, server.url), an_asker(server.url) as asker:
        found = await asyncio.gather(*(asker.request("orders", {"n": n}, reply=Price, timeout=LONG) for n in range(50)))
        [key] = await replies_left(aredis)
        assert 0 < await aredis.pttl(key) <= 80_000

        async def all_acked() -> bool:
            return await pending(aredis) == 0

        await eventually(all_acked)

    assert [Price(cents=n * 100, items=["a"]) for n in range(50)] == found
    assert [] == await replies_left(aredis)


@pytest.mark.parametrize("kind", ["waits", "at once", "thread", "context"])
@pytest.mark.parametrize("middleware", [False, True], ids=["bare", "middleware"])
async def test_every_kind_of_handler_can_reply(server, kind, middleware):
    """With and without middleware; one that returns nothing replies that; what it publishes is there with the reply."""
    app = an_app()

    async def waits(body: dict[str, str]) -> dict[str, str]:
        await asyncio.sleep(0.01)
        return body

    async def at_once(body: dict[str, str]) -> dict[str, str]:
        return body

    def thread(body: dict[str, str]) -> dict[str, str]:
        return body

    async def context(body: dict[str, str], ctx: Context) -> dict[str, str]:
        await ctx.publish("invoices", body)
        return body

    app.handler("orders", name="h")({"waits": waits, "at once": at_once, "thread": thread, "context": context}[kind])

    @app.handler("others")
    async def says_nothing(body: dict[str, str]): ...

    if middleware:

        @app.middleware
        async def around(ctx, call_next):
            await call_next(ctx)

    async with working(app, server.url), an_asker(server.url) as asker:
        assert {"n": "1"} == await asker.request("orders", {"n": "1"}, timeout=LONG)
        assert await asker.request("others", {"n": "1"}, timeout=LONG) is None


@pytest.mark.matrix
async def test_a_request_that_is_set_aside_fails(server, aredis):
    """With the reason of its dead letter: rejected, used up, malformed. A retry before that is no end."""
    app, runs = an_app(), Ledger()

    @app.handler("orders")
    async def price(body: dict[str, int]) -> int:
        await runs.note(body["n"])
        if body["n"] == 1:
            raise Reject("no such thing")
        if body["n"] == 2 or runs.seen.count(3) == 1:
            raise ValueError("broken")
        return 5

    async with working(app, server.url), an_asker(server.url) as asker:
        for body, reason, error in (
            ({"n": 1}, "rejected", "Reject: no such thing"),
            ({"n": 2}, "exhausted", "ValueError: broken"),
            ({"n": "x"}, "malformed", ""),
        ):
            with pytest.raises(RequestFailed, match=reason) as raised:
                await asker.request("orders", body, timeout=LONG)
            assert reason == raised.value.reason
            assert error in raised.value.error
        assert 5 == await asker.request("orders", {"n": 3}, reply=int, timeout=LONG)

    assert ["rejected", "exhausted", "malformed"] == [letter.notes["reason"] for letter in await dead_letters(aredis)]


async def test_no_reply_in_time_is_said(server, aredis):
    """Nobody is there; the entry is, and its late reply makes no stream."""
    async with an_asker(server.url) as asker:
        with pytest.raises(NoReply, match=r"no reply within 0\.2 s"):
            await asker.request("orders", {"n": 1}, timeout=SOON)
    app, done = an_app(), Ledger()

    @app.handler("orders")
    async def price(body: dict[str, int]) -> int:
        await done.note(body)
        return 1

    async with working(app, server.url):
        await done.until_count(1)

    assert (1, 0) == (await aredis.xlen("orders"), await pending(aredis))
    assert [] == await replies_left(aredis)


async def test_a_reply_goes_only_where_replies_go(server, aredis):
    """An entry of somebody else's cannot have a worker write elsewhere; and a handler that returns something without being asked may."""
    app, done = an_app(), Ledger()

    @app.handler("orders")
    async def price(body: dict[str, str]) -> dict[str, str]:
        await done.note(body)
        return {"n": "2"}

    for reply_to in ("invoices", "{orders}:dlq:billing", "{other}:sw:reply:x", ""):
        await aredis.xadd("orders", {"n": "1", "_reply_to": reply_to})
    await aredis.xadd("orders", {"n": "1"})
    async with working(app, server.url):
        await done.until_count(5)

    assert {b"orders"} == set(await aredis.keys("*")) - {b"{orders}:retry:billing"}


async def test_a_foreign_program_can_ask(server, aredis):
    """By the three headers; the stream for its reply has to be there."""
    app = an_app()

    @app.handler("orders")
    async def price(body: dict[str, str]) -> dict[str, str]:
        return {"cents": "990"}

    key = "{orders}:sw:reply:shell"
    await aredis.xadd(key, {"_": ""})
    async with working(app, server.url):
        await aredis.xadd("orders", {"n": "1", "_reply_to": key, "_correlation_id": "7"})
        [[_, [(_, fields)]]] = await aredis.xread({key: "$"}, block=10_000)

    assert {b"cents": b"990", b"_correlation_id": b"7", b"_reply": b"ok"} == fields


async def test_a_reply_outlives_a_lost_connection(server, aredis):
    """Of whoever waits for it."""
    app, go_on = an_app(), asyncio.Event()

    @app.handler("orders")
    async def price(body: dict[str, int]) -> int:
        await go_on.wait()
        return 7

    async with working(app, server.url) as process, an_asker(server.url) as asker:
        asked = asyncio.create_task(asker.request("orders", {"n": 1}, reply=int, timeout=LONG))

        async def is_running() -> bool:
            return process.in_flight == 1

        await eventually(is_running)
        await aredis.client_kill_filter(_type="normal", skipme=True)
        go_on.set()
        assert 7 == await asked


async def test_a_reply_that_cannot_be_written_or_read_is_an_error(server):
    """The handler's, or of whoever asked for another type."""
    app = an_app()

    @app.handler("orders")
    async def price(body: dict[str, int]) -> object:
        return {"n": "x"} if body["n"] else object()

    async with working(app, server.url), an_asker(server.url) as asker:
        with pytest.raises(RequestFailed, match="exhausted"):
            await asker.request("orders", {"n": 0}, timeout=LONG)
        with pytest.raises(DecodeError):
            await asker.request("orders", {"n": 1}, reply=Price, timeout=LONG)


async def test_what_is_wrong_with_a_request_is_said_before_anything_is_sent(server, aredis):
    """Its timeout, its headers, its body, its reply's type."""
    async with an_asker(server.url) as asker:
        for error, options in (
            (SetupError, {"timeout": timedelta(0)}),
            (SetupError, {"timeout": 5}),
            (SetupError, {"reply": type("NoBody", (), {})}),
            (EncodeError, {"headers": {"reply_to": "elsewhere"}}),
            (EncodeError, {"body": object()}),
        ):
            with pytest.raises(error):
                await asker.request("orders", **({"body": {"n": 1}} | options))
        await aredis.set("orders", "no stream")
        with pytest.raises(ServerError, match="nothing was written"):
            await asker.request("orders", {"n": 1})


async def test_a_handler_may_ask_another_one(server):
    """Inside a worker, over the worker's own server."""
    app = an_app()

    @app.handler("orders")
    async def order(body: dict[str, int]) -> int:
        return 2 * await app.request("prices", body, reply=int, timeout=LONG)

    @app.handler("prices")
    async def price(body: dict[str, int]) -> int:
        return body["n"] + 1

    async with working(app, server.url), an_asker(server.url) as asker:
        assert 12 == await asker.request("orders", {"n": 5}, reply=int, timeout=LONG)


def test_each_event_loop_asks_for_itself(server):
    """One after the other, as in scripts; nothing of the first stands in the way of the second."""
    asker = an_asker(server.url)

    async def ask() -> None:
        with pytest.raises(NoReply):
            await asker.request("orders", {"n": 1}, timeout=SOON)
        await asker.close()

    asyncio.run(ask())
    asyncio.run(ask())


async def test_more_may_ask_at_once_than_replies_are_kept(server, aredis):
    """Those beyond a thousand wait for a place, so that no reply is trimmed before it was read."""
    app = an_app()

    @app.handler("orders", concurrency=100)
    async def price(body: dict[str, int]) -> int:
        return body["n"]

    async with working(app, server.url), an_asker(server.url) as asker:
        asked = (asker.request("orders", {"n": n}, reply=int, timeout=LONG) for n in range(2_500))
        assert list(range(2_500)) == await asyncio.gather(*asked)
        [key] = await replies_left(aredis)
        assert await aredis.xlen(key) <= 1_200
