"""Listeners on real servers: every process sees every entry, in order, and knows what it could not see."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from streamworker import ListenerContext, SetupError, StreamWorker
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link
from streamworker.streams.listening import Place, listen
from tests.harness import Ledger, an_app, working
from tests.waiting import eventually

NOW = Place("$")


@pytest.fixture
async def link(server):
    link = Link(Endpoint(server.url))
    yield link
    await link.close()


async def knows_how_many(aredis) -> bool:
    """Whether this server counts what was ever added (7.0 and later)."""
    return b"entries-added" in await aredis.execute_command("XINFO", "STREAM", "news", NEVER_DECODE=True)


def listening(start: str = "$") -> tuple[StreamWorker, Ledger]:
    app, heard = an_app(), Ledger()

    @app.listener("news", start=start)
    async def note(body: dict[str, str], ctx: ListenerContext) -> None:
        await heard.note((ctx.id, body["n"]))

    return app, heard


# ---- reading ----------------------------------------------------------------------------------------------------------------


@pytest.mark.matrix
async def test_what_is_added_is_heard_and_what_was_trimmed_before_is_counted(link, aredis):
    """As exactly as the server knows it."""
    await aredis.xadd("news", {"n": 0})
    place = (await listen(link, "news", NOW, count=10)).place
    for number in range(1, 11):
        await aredis.xadd("news", {"n": number})
    first = await listen(link, "news", place, count=4)
    await aredis.xtrim("news", maxlen=3, approximate=False)
    second = await listen(link, "news", first.place, count=2)
    third = await listen(link, "news", second.place, count=2)

    def numbers(heard) -> list[bytes]:
        return [entry.fields[1] for entry in heard.entries]

    assert ([b"1", b"2", b"3", b"4"], 0) == (numbers(first), first.lost)
    assert ([b"8", b"9"], 3 if await knows_how_many(aredis) else None) == (numbers(second), second.lost)
    assert ([b"10"], 0) == (numbers(third), third.lost)


@pytest.mark.matrix
async def test_a_stream_of_one_entry_leaves_no_gap_for_who_keeps_up(link, aredis):
    """Each entry trims the one before it, and none was missed."""
    await aredis.xadd("news", {"n": 0})
    place, lost = (await listen(link, "news", NOW, count=10)).place, []
    for number in range(3):
        await aredis.xadd("news", {"n": number}, maxlen=1, approximate=False)
        heard = await listen(link, "news", place, count=10)
        place = heard.place
        lost.append(heard.lost)

    assert [0 if await knows_how_many(aredis) else None] * 3 == lost


@pytest.mark.matrix
async def test_a_stream_that_was_emptied_or_made_anew_is_read_on(link, aredis):
    """Neither leaves a listener behind for ever."""
    await aredis.xadd("news", {"n": 0})
    place = (await listen(link, "news", NOW, count=10)).place
    await aredis.xadd("news", {"n": 1})
    await aredis.xtrim("news", maxlen=0, approximate=False)
    emptied = await listen(link, "news", place, count=10)
    await aredis.delete("news")
    gone = await listen(link, "news", emptied.place, count=10)
    await aredis.xadd("news", {"n": 2}, id="5-1")
    anew = await listen(link, "news", gone.place, count=10)

    assert emptied.lost in (1, None)
    assert [] == gone.entries
    assert (["5-1"], 0) == ([entry.id for entry in anew.entries], anew.lost)


@pytest.mark.matrix
async def test_a_server_that_lacks_the_end_of_the_stream_is_read_on_at_its_end(link, aredis):
    """As after a failover to a replica that was behind: that is a gap, and no reason to hear all again."""
    for number in range(3):
        await aredis.xadd("news", {"n": number}, id=f"7-{number + 1}")
    behind = await listen(link, "news", Place("7-9", 9), count=10)
    await aredis.xadd("news", {"n": 3}, id="7-4")
    after = await listen(link, "news", behind.place, count=10)

    assert ([], None) == (behind.entries, behind.lost)
    assert ["7-4"] == [entry.id for entry in after.entries]


@pytest.mark.matrix
async def test_ids_are_compared_as_numbers_of_any_size(link, aredis):
    """They have up to twenty digits each."""
    most = 2**64 - 1
    await aredis.xadd("news", {"n": 0}, id=f"9-{most - 1}")
    await aredis.xadd("news", {"n": 1}, id=f"9-{most}")
    await aredis.xadd("news", {"n": 2}, id="10-1")
    heard = await listen(link, "news", Place(f"9-{most - 1}"), count=10)

    assert [f"9-{most}", "10-1"] == [entry.id for entry in heard.entries]


# ---- listening --------------------------------------------------------------------------------------------------------------


@pytest.mark.matrix
async def test_every_process_hears_every_entry_in_order(server, aredis):
    """From when it is ready; what was there before is not heard."""
    await aredis.xadd("news", {"n": "before"})
    (one, first), (other, second) = listening(), listening()
    async with working(one, server.url), working(other, server.url):
        ids = [(await aredis.xadd("news", {"n": n})).decode() for n in range(250)]
        await first.until_count(250)
        await second.until_count(250)

    assert [(entry_id, str(n)) for n, entry_id in enumerate(ids)] == first.seen == second.seen
    assert [] == await aredis.xinfo_groups("news")


@pytest.mark.parametrize("start", ["0", "0-0"])
async def test_a_listener_may_begin_at_the_beginning(server, aredis, start):
    """Or after an entry."""
    await aredis.xadd("news", {"n": 1})
    app, heard = listening(start)
    async with working(app, server.url):
        await heard.until_count(1)

    assert ["1"] == [n for _, n in heard.seen]


async def test_after_a_lost_connection_it_goes_on_after_the_last_entry_seen(server, aredis):
    """Nothing is heard twice, and nothing left out but what was trimmed meanwhile, which is said."""
    app, heard = listening()
    with capture_logs() as logs:
        async with working(app, server.url):
            await aredis.xadd("news", {"n": 0})
            await heard.until_count(1)
            for number in range(1, 6):
                await aredis.client_kill_filter(_type="normal", skipme=True)
                await aredis.xadd("news", {"n": number})
            await heard.until_count(6)

    assert [str(n) for n in range(6)] == [n for _, n in heard.seen]
    assert [] == [line for line in logs if line["event"] == "listener.gap"]


async def test_a_gap_is_said(server, aredis):
    """Entries that were trimmed while the function was busy with the one before them."""
    app, heard, go_on = an_app(), Ledger(), asyncio.Event()

    @app.listener("news")
    async def note(body: dict[str, str]) -> None:
        await heard.note(body["n"])
        await go_on.wait()

    with capture_logs() as logs:
        async with working(app, server.url):
            await aredis.xadd("news", {"n": 0})
            await heard.until_count(1)
            for number in range(1, 6):
                await aredis.xadd("news", {"n": number}, maxlen=2, approximate=False)
            go_on.set()
            await heard.until_count(3)

    assert ["0", "4", "5"] == heard.seen
    lost = 3 if await knows_how_many(aredis) else None
    assert [("news", lost)] == [(line["stream"], line["entries"]) for line in logs if line["event"] == "listener.gap"]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError()], ids=repr)
async def test_an_error_is_said_and_the_next_entry_comes(server, aredis, error):
    """Whatever it is; a body that cannot be read, too. Nothing is tried again."""
    app, heard = an_app(), Ledger()

    @app.listener("news")
    async def note(body: dict[str, int]) -> None:
        await heard.note(body["n"])
        if body["n"] == 1:
            raise error

    with capture_logs() as logs:
        async with working(app, server.url):
            for value in ("1", "many", "2"):
                await aredis.xadd("news", {"n": value})
            await heard.until_count(2)

    assert [1, 2] == heard.seen
    events = [line["event"] for line in logs if line["event"].startswith("listener.")]
    assert ["listener.failed", "listener.malformed"] == events


async def test_the_context_has_the_entry_and_the_state_and_a_plain_function_runs_in_a_thread(server, aredis):
    """The same facts as of a delivery, less what only a group has."""
    app, heard = an_app(), asyncio.Queue()
    loop = asyncio.get_running_loop()

    @app.listener("news", name="cache")
    def forget(body: dict[str, str], ctx: ListenerContext) -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        ctx.log.info("forgotten")
        loop.call_soon_threadsafe(heard.put_nowait, ctx)

    async with working(app, server.url), asyncio.timeout(10):
        entry_id = await app.publish("news", {"n": 1}, headers={"tenant": "eu"})
        ctx = await heard.get()

    assert (entry_id, "news", "cache", {"tenant": "eu"}, {}) == (ctx.id, ctx.stream, ctx.listener, ctx.headers, ctx.state)
    assert datetime.now(UTC) - ctx.published_at < timedelta(seconds=30)


async def test_a_drain_ends_a_listener_in_the_middle(server, aredis):
    """Nothing can be lost by that: it was never promised that every entry is handled."""
    app, heard = an_app(), Ledger()

    @app.listener("news")
    async def note(body: dict[str, str]) -> None:
        await heard.note(body)
        await asyncio.sleep(3600)

    async with asyncio.timeout(10), working(app, server.url) as process:
        await aredis.xadd("news", {"n": 0})
        await heard.until_count(1)
        process.drain("the test is over")


async def test_a_stream_that_is_none_is_said_and_heard_later(server, aredis):
    """The process is ready meanwhile: other things work."""
    await aredis.set("news", "no stream")
    app, heard = listening()
    with capture_logs() as logs:
        async with working(app, server.url):
            await aredis.delete("news")

            async def heard_something() -> bool:
                await aredis.xadd("news", {"n": 1})
                return bool(heard.seen)

            await eventually(heard_something)

    assert "listening.failing" in [line["event"] for line in logs]


@pytest.mark.parametrize(
    ("register", "repair"),
    [
        (lambda app, f: app.listener("news", start="latest")(f), "start is"),
        (lambda app, f: app.listener("")(f), "non-empty string"),
        (lambda app, f: app.listener("a}b")(f), "closing brace"),
        (lambda app, f: app.listener(f), "with the stream's name"),
        (lambda app, f: app.listener("other")(f), "two listeners are called"),
        (lambda app, f: app.listener("news")(lambda: None), "takes no body"),
        (lambda app, f: app.listener("news")(lambda a, b, c: None), "body and a ListenerContext only"),
    ],
)
def test_a_wrong_listener_is_one_sentence_at_registration(register, repair):
    """With the repair in it."""
    app = StreamWorker()

    async def note(body: dict[str, str]) -> None: ...

    app.listener("news")(note)
    with pytest.raises(SetupError, match=repair):
        register(app, note)
