"""What publishing promises, on real servers: later, once, durably, without a loop, and what is known when it fails."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import threading
from datetime import UTC, datetime, timedelta

import pytest
import redis

from streamworker import (
    ConnectionLost,
    Durability,
    EncodeError,
    NotConfirmed,
    PublishFailed,
    ServerError,
    SetupError,
    SyncPublisher,
)
from tests.harness import Ledger, an_app, working
from tests.torture.proxy import Cut, Proxy, nth
from tests.waiting import eventually, wait_until

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


@pytest.fixture
async def app(server):
    async with an_app(redis_url=server.url) as app:
        yield app


async def numbers(aredis, stream="orders"):
    return [int(fields[b"n"]) for _, fields in await aredis.xrange(stream)]


async def make_due(aredis, stream="orders"):
    """As if the time had come for everything."""
    for handle in await aredis.zrange(f"{{{stream}}}:scheduled", 0, -1):
        await aredis.zadd(f"{{{stream}}}:scheduled", {handle: 0}, xx=True)


# ---- later ------------------------------------------------------------------------------------------------------------------


@pytest.mark.matrix
async def test_what_is_published_with_a_delay_arrives_once_when_it_is_due(app, server, aredis):
    """For every group of its stream, by whichever worker looks first; until then it is not in the stream."""
    ledger = Ledger()
    for group in ("billing", "search"):

        async def note(body: dict[str, str], group: str = group) -> None:
            await ledger.note((group, body["n"]))

        app.handler("orders", group=group, name=group)(note)

    async with working(app, server.url), working(app, server.url):
        await app.publish("orders", {"n": 1}, delay=DAY, key="c42", max_length=10)
        await app.publish("orders", {"n": 2}, delay=timedelta(milliseconds=1), type="Paid")
        await ledger.until_count(2)
        assert [2] == await numbers(aredis)
        await make_due(aredis)
        await ledger.until_count(4)

    assert [(b"1", b"c42")] == [(f[b"n"], f[b"_key"]) for _, f in await aredis.xrange("orders") if f[b"n"] == b"1"]
    assert {("billing", "1"), ("search", "1"), ("billing", "2"), ("search", "2")} == set(ledger.seen)
    assert 4 == len(ledger.seen)
    assert 0 == await aredis.exists("{orders}:scheduled", "{orders}:scheduled:entries")


async def test_at_names_a_moment_and_what_is_past_is_due_now(app, server, aredis):
    """In any time zone; the due time is the sorted set's score."""
    moment = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    handle = await app.publish("orders", {"n": 1}, at=moment)

    assert moment.timestamp() * 1000 == await aredis.zscore("{orders}:scheduled", handle)

    await app.publish("orders", {"n": 2}, at=datetime(1999, 1, 1, tzinfo=UTC))
    app.handler("orders")(_ignore)
    async with working(app, server.url):
        await eventually(lambda: _has(aredis, 1))
    assert [2] == await numbers(aredis)


async def _ignore(body: dict[str, str]) -> None:
    pass


@pytest.mark.matrix
async def test_a_scheduled_publish_can_be_taken_back_once_and_frees_its_dedupe_id(app, aredis):
    """Nothing of it is left."""
    handle = await app.publish("orders", {"n": 1}, delay=DAY, dedupe_id="a")

    assert handle == await app.publish("orders", {"n": 1}, delay=DAY, dedupe_id="a")
    assert [True, False] == [await app.cancel("orders", handle) for _ in range(2)]
    assert [] == await aredis.keys("*")
    assert handle != await app.publish("orders", {"n": 1}, delay=DAY, dedupe_id="a")


async def test_what_is_due_at_the_same_moment_comes_in_the_order_of_publishing(app, server, aredis):
    """Also where it is published in one go."""
    at = datetime.now(UTC) - SECOND
    await app.publish_many("orders", [{"n": n} for n in range(250)], at=at)
    app.handler("orders")(_ignore)
    async with working(app, server.url):
        await eventually(lambda: _has(aredis, 250))

    assert list(range(250)) == await numbers(aredis)


async def _has(aredis, count, stream="orders"):
    return await aredis.xlen(stream) == count


@pytest.mark.matrix
@pytest.mark.parametrize("damage", ["spoiled", '{"due_ms": 1}\n' + "1:a" * 10_000], ids=["no entry", "more than a script can add"])
async def test_a_lost_due_time_comes_back_from_the_entry_and_a_damaged_one_holds_up_no_other(app, server, aredis, damage):
    """What somebody has changed by hand is kept, and looked at again in an hour."""
    await app.publish("orders", {"n": 1}, at=datetime.now(UTC) - SECOND)
    bad = await app.publish("orders", {"n": 2}, delay=DAY)
    await app.publish("orders", {"n": 3}, delay=DAY)
    await aredis.delete("{orders}:scheduled")
    await aredis.hset("{orders}:scheduled:entries", bad, damage)
    await aredis.zadd("{orders}:scheduled", {bad: 0})
    app.handler("orders")(_ignore)
    async with working(app, server.url):
        await eventually(lambda: _has(aredis, 1))
        await eventually(lambda: _is_put_off(aredis, bad))

    assert [1] == await numbers(aredis)
    assert 2 == await aredis.zcard("{orders}:scheduled") == await aredis.hlen("{orders}:scheduled:entries")


async def _is_put_off(aredis, handle):
    return await aredis.zscore("{orders}:scheduled", handle) > 0


async def test_what_cannot_be_added_when_it_is_due_waits_until_it_can(app, server, aredis):
    """A stream's name that somebody has given to another type holds up that stream alone."""
    await app.publish("orders", {"n": 1}, delay=timedelta(0))
    await app.publish("clicks", {"n": 2}, delay=timedelta(0))
    await aredis.set("orders", "no stream")
    app.handler("orders", "clicks")(_ignore)
    async with working(app, server.url):
        await eventually(lambda: _has(aredis, 1, "clicks"))
        assert 1 == await aredis.zcard("{orders}:scheduled")
        await aredis.delete("orders")
        await eventually(lambda: _has(aredis, 1))


# ---- once -------------------------------------------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("window", [None, timedelta(seconds=30)], ids=["the server's window", "its own window"])
async def test_one_dedupe_id_is_written_once_by_whoever_publishes_it(app, server, aredis, window):
    """With the server's IDMP where it has that, with a script elsewhere; the second answer is the first one's id."""
    options = {"dedupe_id": "order-7", "dedupe_window": window, "max_length": 1000}
    ids = await asyncio.gather(*(app.publish("orders", {"n": n}, **options) for n in range(20)))
    with app.sync_publisher() as publisher:
        ids.append(await asyncio.to_thread(publisher.publish, "orders", {"n": 99}, **options))

    assert [ids[0]] * 21 == ids
    assert 1 == await aredis.xlen("orders")
    assert ids[0] != await app.publish("orders", {"n": 1}, **options | {"dedupe_id": "order-8"})


@pytest.mark.matrix
async def test_more_ids_than_a_server_keeps_of_one_producer_are_remembered(app, aredis):
    """Redis keeps a hundred of each producer unless told otherwise, so each id is a producer of its own."""
    bodies, ids = [{"n": n} for n in range(1_000)], [f"order-{n}" for n in range(1_000)]
    first = await app.publish_many("orders", bodies, dedupe_ids=ids)

    assert first == await app.publish_many("orders", bodies, dedupe_ids=ids)
    assert list(range(1_000)) == await numbers(aredis)


async def test_after_the_window_an_id_is_new(app, aredis):
    """And no marker is left behind."""
    first = await app.publish("orders", {"n": 1}, dedupe_id="a", dedupe_window=SECOND)
    assert first == await app.publish("orders", {"n": 1}, dedupe_id="a", dedupe_window=SECOND)
    await eventually(lambda: _is_gone(aredis, "{orders}:sw:once:a"))

    assert first != await app.publish("orders", {"n": 1}, dedupe_id="a", dedupe_window=SECOND)


async def _is_gone(aredis, key):
    return not await aredis.exists(key)


@pytest.mark.matrix
@pytest.mark.parametrize("options", [{}, {"dedupe_window": DAY}, {"delay": DAY}], ids=["now", "own window", "later"])
@pytest.mark.parametrize("phase", ["before_send", "after_execute"])
async def test_a_lost_reply_of_a_publish_with_a_dedupe_id_ends_in_one_entry(server, aredis, phase, options):
    """It is asked again, because it cannot be written twice."""
    with Proxy(server.url) as proxy:
        rule = proxy.on(_writes, phase, Cut(), limit=2)
        async with an_app(redis_url=proxy.url) as app:
            answer = await app.publish("orders", {"n": 1}, dedupe_id="a", **options)
            assert answer == await app.publish("orders", {"n": 1}, dedupe_id="a", **options)
            many = await app.publish_many("clicks", [{"n": n} for n in range(9)], dedupe_ids=list("abcdefghi"), **options)

    assert 2 == rule.fired
    waiting = [await aredis.hlen(f"{{{stream}}}:scheduled:entries") for stream in ("orders", "clicks")]
    written = [await aredis.xlen(stream) for stream in ("orders", "clicks")]
    assert [1, 9] == (waiting if "delay" in options else written)
    assert 9 == len(set(many))


def _writes(call):
    return call.name in {"XADD", "publish_once", "schedule"}


async def test_without_a_dedupe_id_nothing_is_sent_a_second_time(server, aredis):
    """The error says that it may have been written, and it was."""
    with Proxy(server.url) as proxy:
        rule = proxy.on("XADD", "after_execute", Cut(), limit=1)
        async with an_app(redis_url=proxy.url) as app:
            with pytest.raises(ConnectionLost, match="may have been written or not") as caught:
                await app.publish("orders", {"n": 1})
            with app.sync_publisher() as publisher:
                rule.limit = 2
                with pytest.raises(ConnectionLost, match="may have been written or not"):
                    await asyncio.to_thread(publisher.publish, "orders", {"n": 2})

    assert caught.value.may_have_run
    assert [1, 2] == await numbers(aredis)


async def test_where_there_is_no_server_nothing_was_written_and_the_error_says_so():
    """With and without a loop; nobody waits for ever."""
    app = an_app(redis_url="redis://127.0.0.1:1/0")

    with pytest.raises(ConnectionLost, match="nothing was written") as caught:
        await app.publish("orders", {"n": 1})
    with pytest.raises(ConnectionLost, match="nothing was written"), app.sync_publisher() as publisher:
        publisher.publish("orders", {"n": 1})
    with pytest.raises(PublishFailed) as many:
        await app.publish_many("orders", [{"n": 1}, {"n": 2}])

    assert not caught.value.may_have_run
    assert [False, False] == [error.may_have_run for error in many.value.errors.values()]


# ---- many -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [False, True], ids=["loop", "sync"])
async def test_publish_many_says_which_entries_were_not_added(server, aredis, sync):
    """Those whose reply was lost may have been; what came after them was not sent; those before have their ids."""
    with Proxy(server.url) as proxy:
        proxy.on("XADD", "after_execute", Cut("fin"), when=nth(700))
        async with an_app(redis_url=proxy.url) as app:
            publisher = app.sync_publisher()
            bodies = [{"n": n} for n in range(3_000)]
            publish = functools.partial(asyncio.to_thread, publisher.publish_many) if sync else app.publish_many
            with pytest.raises(PublishFailed) as caught:
                await publish("orders", bodies)
            publisher.close()
    failed = caught.value
    written = await numbers(aredis)

    assert 3_000 == len(failed.ids)
    assert set(failed.errors) == {n for n, entry_id in enumerate(failed.ids) if entry_id is None}
    # A reset may take replies away that were on their way, so some of those before the lost one may be in doubt too.
    assert 699 >= min(failed.errors)
    ids = {int(fields[b"n"]): entry_id.decode() for entry_id, fields in await aredis.xrange("orders")}
    assert {n: entry_id for n, entry_id in enumerate(failed.ids) if entry_id is not None}.items() <= ids.items()
    unsent = {n for n, error in failed.errors.items() if not error.may_have_run}
    assert unsent
    assert unsent.isdisjoint(written)
    assert list(range(len(written))) == written


async def test_publish_many_of_nothing_and_of_a_generator(app, aredis):
    """Any iterable will do."""
    assert [] == await app.publish_many("orders", [])
    assert 1_200 == len(await app.publish_many("orders", ({"n": n} for n in range(1_200))))
    assert list(range(1_200)) == await numbers(aredis)


async def test_many_concurrent_publishes_leave_in_one_write(app, aredis):
    """One loop turn, one write: the server reads them all at once, in order."""
    await app.publish("orders", {"n": 0})
    await asyncio.gather(*(app.publish("orders", {"n": n}) for n in range(1, 500)))

    assert list(range(500)) == await numbers(aredis)


# ---- refusals ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"delay": SECOND, "at": datetime(2031, 1, 1, tzinfo=UTC)}, "leave one out"),
        ({"delay": -SECOND}, "delay is a timedelta from 0"),
        ({"delay": 5}, "delay is a timedelta from 0"),
        ({"at": datetime(2031, 1, 1)}, "with a time zone"),
        ({"at": "tomorrow"}, "with a time zone"),
        ({"dedupe_id": ""}, "1 to 1,000 characters"),
        ({"dedupe_id": "\ud800"}, "surrogate"),
        ({"dedupe_window": SECOND}, "give the dedupe_id too"),
        ({"dedupe_id": "a", "dedupe_window": timedelta(0)}, "from a second to a year"),
        ({"nomkstream": "yes"}, "True or False"),
        ({"nomkstream": True, "delay": SECOND}, "leave it out"),
        ({"durability": 1}, "such as Durability"),
        ({"max_length": 0}, "at least 1"),
        ({"dedupe_id": "a", "body": {str(n): n for n in range(4_000)}}, "more than 3500 fields"),
    ],
    ids=str,
)
async def test_wrong_options_are_refused_in_one_sentence_before_anything_is_sent(options, sentence):
    """There is no server, and nobody asks for it."""
    app = an_app(redis_url="redis://127.0.0.1:1/0")
    body = options.pop("body", {"n": 1})

    with pytest.raises(EncodeError, match=sentence):
        await app.publish("orders", body, **options)
    with pytest.raises(EncodeError, match=sentence):
        app.sync_publisher().publish("orders", body, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dedupe_ids": ["a"]}, "2 bodies and 1 dedupe_ids"),
        ({"dedupe_id": "a"}, "one for each"),
        ({"dedupe_ids": "ab"}, "a list"),
        ({"dedupe_window": SECOND}, "give them too"),
    ],
)
async def test_many_need_as_many_dedupe_ids(options, sentence):
    """One for all would let one through."""
    with pytest.raises(EncodeError, match=sentence):
        await an_app().publish_many("orders", [{"n": 1}, {"n": 2}], **options)


@pytest.mark.parametrize("arguments", [{}, {"replicas": -1}, {"replicas": 1, "timeout": 5}, {"fsync": 1}], ids=str)
def test_a_durability_that_asks_for_nothing_or_nonsense_is_refused(arguments):
    """Where it is made."""
    with pytest.raises(SetupError):
        Durability(**arguments)


@pytest.mark.matrix
async def test_the_wrong_type_and_a_missing_stream_are_told_with_their_repair(app, aredis):
    """Nothing is written, whatever way it was to be."""
    await aredis.set("orders", "mine")
    for options in ({}, {"dedupe_id": "a"}, {"dedupe_id": "a", "dedupe_window": DAY}):
        with pytest.raises(ServerError, match="rename or delete that key") as caught:
            await app.publish("orders", {"n": 1}, **options)
        assert "WRONGTYPE" == caught.value.code
        with pytest.raises(ServerError, match="nomkstream"):
            await app.publish("clicks", {"n": 1}, nomkstream=True, **options)

    assert [b"orders"] == await aredis.keys("*")


@pytest.mark.parametrize("options", [{}, {"dedupe_id": "a", "dedupe_window": DAY}, {"delay": DAY}], ids=str)
async def test_a_full_server_is_told_and_publishing_goes_on_when_there_is_room(private_server, server_kind, options):
    """The dedupe id of what was refused is not used up."""
    server = private_server(server_kind)
    with redis.Redis.from_url(server.url) as client:
        async with an_app(redis_url=server.url) as app:
            await app.publish("clicks", {"n": 0})
            client.config_set("maxmemory", 1)
            with pytest.raises(ServerError, match="raise maxmemory"):
                await app.publish("orders", {"n": 1}, **options)
            client.config_set("maxmemory", 0)
            assert await app.publish("orders", {"n": 1}, **options)


# ---- durably ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [False, True], ids=["loop", "sync"])
async def test_replicas_confirm_or_the_error_says_that_it_is_written(private_server, server_kind, sync):
    """Without a replica the entry is written and not confirmed; with one it is there when the call returns."""
    wanted = Durability(replicas=1, timeout=timedelta(milliseconds=200))
    primary, replica = private_server(server_kind), private_server(server_kind)
    app = an_app(redis_url=primary.url)
    publisher = app.sync_publisher()

    async def publish(durability):
        if sync:
            return await asyncio.to_thread(publisher.publish, "orders", {"n": 1}, durability=durability)
        return await app.publish("orders", {"n": 1}, durability=durability)

    with redis.Redis.from_url(primary.url) as first, redis.Redis.from_url(replica.url) as second:
        with pytest.raises(NotConfirmed, match="written, but not confirmed by 1 replica") as caught:
            await publish(wanted)
        assert caught.value.ids == [entry_id.decode() for entry_id, _ in first.xrange("orders")]
        options = first.connection_pool.connection_kwargs
        second.replicaof(options.get("host", "127.0.0.1"), options["port"])
        await asyncio.to_thread(wait_until, lambda: second.info("replication").get("master_link_status") == "up", 20)
        await publish(Durability(replicas=1, timeout=timedelta(seconds=20)))
        assert 2 == second.xlen("orders")
        await app.publish_many("orders", [{"n": 1}] * 900, durability=Durability(replicas=1, timeout=timedelta(seconds=20)))
        assert 902 == second.xlen("orders")
    publisher.close()
    await app.close()


@pytest.mark.matrix
async def test_what_a_server_cannot_confirm_is_refused_before_anything_is_written(app, aredis):
    """The tests' servers write no append-only file, and older ones do not know the command."""
    with pytest.raises(ServerError, match="leave fsync out"):
        await app.publish("orders", {"n": 1}, durability=Durability(fsync=True))
    with pytest.raises(ServerError, match="leave fsync out"), app.sync_publisher() as publisher:
        await asyncio.to_thread(publisher.publish, "orders", {"n": 1}, durability=Durability(fsync=True))

    assert 0 == await aredis.exists("orders")


# ---- without a loop ---------------------------------------------------------------------------------------------------------


async def test_the_sync_publisher_does_what_the_other_one_does(app, aredis):
    """Same options, same answers."""
    with app.sync_publisher() as publisher:
        assert isinstance(publisher, SyncPublisher)
        one = await asyncio.to_thread(publisher.publish, "orders", {"n": 0}, key="c42", type="Paid", max_length=5_000)
        many = await asyncio.to_thread(publisher.publish_many, "orders", [{"n": n} for n in range(1, 1_300)])
        later = await asyncio.to_thread(publisher.publish, "orders", {"n": 0}, delay=DAY)
        assert await asyncio.to_thread(publisher.cancel, "orders", later)

    assert [one, *many] == [entry_id.decode() for entry_id, _ in await aredis.xrange("orders")]
    assert {b"n": b"0", b"_key": b"c42", b"_type": b"Paid"} == (await aredis.xrange("orders", count=1))[0][1]


def test_threads_share_a_sync_publisher(server, redis_client):
    """Each gets the id of its own entry."""
    publisher = an_app(redis_url=server.url).sync_publisher()
    ids: dict[int, list[str]] = {}

    def work(number: int) -> None:
        ids[number] = [publisher.publish("orders", {"n": number}) for _ in range(100)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    publisher.close()
    found = {entry_id.decode(): int(fields[b"n"]) for entry_id, fields in redis_client.xrange("orders")}

    assert {entry_id: number for number, of in ids.items() for entry_id in of} == found
    assert 800 == len(found)


def _child(publisher: SyncPublisher, number: int) -> None:
    for _ in range(50):
        publisher.publish("orders", {"n": number})
    publisher.close()


def test_a_fork_shares_no_connection(server, redis_client):
    """Children of a process that has published get connections of their own, and the parent goes on with its own one."""
    publisher = an_app(redis_url=server.url).sync_publisher()
    publisher.publish("orders", {"n": 0})
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_child, args=(publisher, number)) for number in (1, 2, 3)]
    for child in children:
        child.start()
    for _ in range(50):
        publisher.publish("orders", {"n": 0})
    for child in children:
        child.join(20)
    publisher.publish("orders", {"n": 0})
    publisher.close()
    counts = [int(fields[b"n"]) for _, fields in redis_client.xrange("orders")]

    assert [0, 0, 0] == [child.exitcode for child in children]
    assert [52, 50, 50, 50] == [counts.count(number) for number in range(4)]


def test_a_connection_that_the_server_has_ended_meanwhile_is_replaced(server, redis_client):
    """An idle one is looked at before it is used, so that no publish is in doubt for it."""
    publisher = an_app(redis_url=server.url).sync_publisher()
    publisher.publish("orders", {"n": 0})
    redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    publisher.publish("orders", {"n": 0})
    publisher.close()

    assert 2 == redis_client.xlen("orders")
