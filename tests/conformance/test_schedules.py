"""Schedules on real servers: each tick once, whatever becomes of processes, replies and the server."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from datetime import datetime, timedelta

import pytest

from streamworker import StreamWorker
from streamworker.errors import ServerError
from streamworker.streams import ticking
from streamworker.streams.connections import Endpoint
from streamworker.streams.keys import tick_key
from streamworker.streams.link import Link
from tests.harness import Ledger, an_app, working
from tests.waiting import eventually

EVERY = timedelta(milliseconds=200)
KEY = tick_key("ticks", "beat")


@pytest.fixture
async def link(server):
    link = Link(Endpoint(server.url))
    yield link
    await link.close()


def a_clock(missed: str = "skip", interval: timedelta = EVERY) -> StreamWorker:
    app = an_app()
    app.every(interval, "ticks", name="beat", missed=missed)({"kind": "beat"})
    return app


async def ticks_in(client) -> list[int]:
    """The ticks that were published, in ms."""
    return [round(datetime.fromisoformat(f[b"_tick"].decode()).timestamp() * 1000) for _, f in await client.xrange("ticks")]


async def published(client, count: int) -> list[int]:
    """Wait until so many were; answers them."""

    async def enough() -> bool:
        return await client.xlen("ticks") >= count

    await eventually(enough)
    return await ticks_in(client)


@pytest.mark.matrix
async def test_many_workers_publish_each_tick_once(server, aredis):
    """Four of them, over a dozen ticks: none is left out, none comes twice."""
    async with working(a_clock(), server.url), working(a_clock(), server.url):
        async with working(a_clock(), server.url), working(a_clock(), server.url):
            found = await published(aredis, 6)
        found = await published(aredis, len(found) + 6)

    assert [200] * (len(found) - 1) == [after - before for before, after in itertools.pairwise(found)]


@pytest.mark.matrix
async def test_the_same_tick_is_published_once_however_often_it_is_said(link, aredis):
    """The second call of many at once, or after a lost reply, finds it done."""
    [outgoing] = [a_clock().schedules[0].entry(1_000, {"n": "1"})]
    answers = await asyncio.gather(*(ticking.publish(link, "ticks", "beat", 1_000, outgoing) for _ in range(20)))

    assert 1 == sum(answer.entry_id is not None for answer in answers)
    assert (1, b"1000") == (await aredis.xlen("ticks"), await aredis.get(KEY))


@pytest.mark.matrix
async def test_a_refused_tick_is_not_taken_for_published(link, aredis):
    """The entry and what remembers it are written together or not at all."""
    await aredis.set("ticks", "no stream")
    outgoing = a_clock().schedules[0].entry(1_000, {"n": "1"})
    with pytest.raises(ServerError, match="WRONGTYPE"):
        await ticking.publish(link, "ticks", "beat", 1_000, outgoing)
    await aredis.delete("ticks")

    assert (await ticking.publish(link, "ticks", "beat", 1_000, outgoing)).entry_id is not None
    assert (await ticking.publish(link, "ticks", "beat", 1_000, outgoing)).entry_id is None


@pytest.mark.matrix
async def test_a_new_schedule_begins_with_its_next_tick(link, aredis):
    """It has missed nothing before it was there; nor has one whose key was lost, or whose server's clock was a day ahead."""
    first = await ticking.look(link, "ticks", "beat")
    again = await ticking.look(link, "ticks", "beat")
    await aredis.set(KEY, int(time.time() * 1000) + 86_400_000)
    after = await ticking.look(link, "ticks", "beat")

    assert (first.now_ms, first.last_ms) == (first.last_ms, again.last_ms)
    assert after.now_ms == after.last_ms


@pytest.mark.parametrize(("missed", "count"), [("skip", 0), ("once", 1)])
async def test_what_was_missed_is_left_out_or_published_once(server, aredis, missed, count):
    """Nobody was there for three days of a schedule that has a tick each hour."""
    now_ms = int(time.time() * 1000)
    offset = 10 * 60_000  # the last tick was ten minutes ago, and the next one is fifty minutes away
    interval = timedelta(hours=1)
    app = a_clock(missed, interval)
    ticks = app.schedules[0].ticks
    object.__setattr__(app.schedules[0], "ticks", Shifted(ticks, now_ms - offset))
    await aredis.set(KEY, now_ms - 3 * 86_400_000)
    async with working(app, server.url):
        if count:
            await published(aredis, 1)
        else:
            await eventually(lambda: aredis.exists(KEY))
            await asyncio.sleep(0.2)  # there is nothing to wait for: it must not come

    assert count == await aredis.xlen("ticks")


class Shifted:
    """An hour's ticks of which one is at a moment of the test's choice."""

    def __init__(self, ticks, tick_ms: int) -> None:
        self._ticks, self._by, self.zone = ticks, tick_ms % 3_600_000, ticks.zone

    def latest(self, now_ms: int) -> int:
        return self._ticks.latest(now_ms - self._by) + self._by

    def following(self, now_ms: int) -> int:
        return self._ticks.following(now_ms - self._by) + self._by


async def test_functions_make_the_body_in_the_loop_or_in_a_thread_and_may_have_nothing_to_say(server, aredis):
    """They are given the tick if they want it; `None` is no entry, and no other process asks again."""
    app, asked = an_app(), Ledger()

    @app.every(EVERY, "asyncs")
    async def one(tick: datetime) -> dict[str, str]:
        return {"at": tick.isoformat()}

    @app.every(EVERY, "threads", type="Beat")
    def two() -> dict[str, str]:
        return {"n": "2"}

    @app.every(EVERY, "nothing")
    async def three() -> None:
        await asked.note(None)

    async with working(app, server.url):
        await asked.until_count(2)
        await eventually(lambda: aredis.exists("asyncs"))
        await eventually(lambda: aredis.exists("threads"))

    [(_, first), *_], [(_, second), *_] = await aredis.xrange("asyncs"), await aredis.xrange("threads")
    assert first[b"at"] == first[b"_tick"]
    assert (b"2", b"Beat") == (second[b"n"], second[b"_type"])
    assert 0 == await aredis.exists("nothing")


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError(), KeyboardInterrupt()], ids=repr)
async def test_a_function_that_fails_is_asked_again_and_ends_nothing(server, aredis, error):
    """Whatever it raises."""
    app, calls = an_app(), []

    @app.every(timedelta(seconds=1), "ticks")
    async def beat() -> dict[str, str]:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return {"n": "1"}

    @app.every(timedelta(seconds=1), "ticks", name="other")
    async def other() -> None: ...

    async with working(app, server.url):
        await published(aredis, 1)

    assert len(calls) >= 2


async def test_a_tick_waits_for_a_stream_that_can_be_written(server, aredis):
    """Trouble of one schedule is said, and is not the end of it, nor of another one."""
    await aredis.set("ticks", "no stream")
    app = a_clock()
    app.every(EVERY, "others", name="other")({"n": "1"})
    async with working(app, server.url):
        await eventually(lambda: aredis.exists("others"))
        await aredis.delete("ticks")
        found = await published(aredis, 2)

    assert not [tick for tick, count in Counter(found).items() if count > 1]
