"""What the reader takes ahead of its handlers, and what leaves with its reads."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from streamworker import Context
from tests.harness import Ledger, an_app, pending, working
from tests.waiting import eventually


async def none_pending(client) -> bool:
    return await pending(client) == 0


@pytest.mark.parametrize("gap_us", [0, 300, 1_000])
async def test_acknowledgements_do_not_wait_behind_a_parked_read(server, aredis, gap_us: int):
    """Where two entries come shortly after one another, and then nothing: the first one's may ride with a read, but in front of it."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders")
    async def charge(order: dict[str, str]) -> None:
        await ledger.note(order["number"])

    async with working(app, server.url):
        for number in range(0, 20, 2):
            await aredis.xadd("orders", {"number": number})
            if gap_us:
                await asyncio.sleep(gap_us / 1_000_000)
            await aredis.xadd("orders", {"number": number + 1})
            # A read blocks for two seconds.
            await eventually(lambda: none_pending(aredis), within=1.5)

    assert 20 == len(ledger.seen)


async def test_what_was_read_ahead_for_handlers_that_became_slow_is_given_back(server, aredis):
    """Two that hang hold two places, and not what had been read while handlers were fast: another worker gets it."""
    app, ledger, gate = an_app(lease=timedelta(seconds=30)), Ledger(), asyncio.Event()

    @app.handler("orders", concurrency=2)
    async def charge(order: dict[str, str], ctx: Context) -> None:
        if order["way"] == "hang":
            await gate.wait()
        await ledger.note((order["way"], ctx.delivery.attempt))

    other = an_app(lease=timedelta(seconds=30))

    @other.handler("orders", concurrency=2)
    async def take(order: dict[str, str], ctx: Context) -> None:
        await ledger.note(("other", ctx.delivery.attempt))

    async with aredis.pipeline(transaction=False) as pipe:
        for way in ["fast"] * 2_000 + ["hang"] * 2 + ["fast"] * 100:
            pipe.xadd("orders", {"way": way})
        await pipe.execute()
    async with working(app, server.url):
        await ledger.until(lambda seen: len(seen) >= 2_000)
        async with working(other, server.url):
            await ledger.until(lambda seen: len(seen) == 2_100, within=20)
            gate.set()
            await ledger.until(lambda seen: len(seen) == 2_102)

    assert {1} == {attempt for _, attempt in ledger.seen}


@pytest.mark.parametrize("later", [False, True], ids=["there already", "comes later"])
async def test_a_flood_for_one_handler_keeps_no_other_from_its_streams(server, aredis, later: bool):
    """Though both take entries of one stream, and the flooded one's handler does not end."""
    app, ledger, gate = an_app(lease=timedelta(seconds=30)), Ledger(), asyncio.Event()

    @app.handler("a", "b", type="quick", concurrency=20)
    async def quick(body: dict[str, str]) -> None:
        await ledger.note(body["number"])

    @app.handler("a", type="slow", concurrency=1)
    async def slow(body: dict[str, str]) -> None:
        await gate.wait()

    async def add(stream: str, kind: str, count: int) -> None:
        for number in range(count):
            await aredis.xadd(stream, {"number": number, "_type": kind})

    await add("a", "slow", 100)
    if not later:
        await add("b", "quick", 50)
    async with working(app, server.url) as process:
        if later:
            await eventually(lambda: _holds(process, 21))
            await add("b", "quick", 50)
        await ledger.until_count(50)
        gate.set()


async def _holds(process, count: int) -> bool:
    return process.in_flight >= count


async def test_many_streams_are_read_in_parts_while_they_have_much(server, aredis):
    """Each entry once, whatever the stream; a stream that has little waits for its turn, and not for the end of the flood."""
    app, ledger = an_app(), Ledger()
    flooded = [f"orders:{number}" for number in range(150)]

    @app.handler(*flooded, "orders:rare", concurrency=100)
    async def charge(order: dict[str, str]) -> None:
        await ledger.note(order["number"])

    async with aredis.pipeline(transaction=False) as pipe:
        for number in range(60 * len(flooded)):
            pipe.xadd(flooded[number % len(flooded)], {"number": number})
        pipe.xadd("orders:rare", {"number": "rare"})
        await pipe.execute()
    async with working(app, server.url):
        await ledger.until_count(60 * len(flooded) + 1)

    assert len(set(ledger.seen)) == len(ledger.seen)
    assert ledger.seen.index("rare") < len(ledger.seen) - 1_000


async def test_acknowledgements_of_several_streams_ride_in_front_of_one_read(server, aredis):
    """Those of each stream are a command of their own; none of them is behind the read that then blocks for two seconds."""
    app, ledger = an_app(), Ledger()

    @app.handler("orders", "orders:eu", "orders:us")
    async def charge(order: dict[str, str]) -> None:
        await ledger.note(order["number"])

    async def none_is_pending() -> bool:
        return not any([await pending(aredis, stream) for stream in ("orders", "orders:eu", "orders:us")])

    async with working(app, server.url):
        for number in range(0, 60, 6):
            for moment in range(2):
                async with aredis.pipeline(transaction=False) as pipe:
                    for place, stream in enumerate(("orders", "orders:eu", "orders:us")):
                        pipe.xadd(stream, {"number": number + 3 * moment + place})
                    await pipe.execute()
            await eventually(none_is_pending, within=1.5)

    assert 60 == len(ledger.seen)
