"""The proxy that the torture suite stands on: that it changes nothing by itself, and that each fault is the fault that it says."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from random import Random
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streamworker.embedded import EmbeddedServer
from streamworker.streams.scripts import script
from tests.torture.proxy import Call, Cut, Delay, Proxy, Shape, Stall, every, nth
from tests.torture.resp import FrameSplitter, arguments_of, name_of
from tests.waiting import wait_until


@pytest.fixture
def direct(valkey):
    """A client of the server itself."""
    with redis.Redis.from_url(valkey.url) as client:
        yield client


@pytest.fixture
def proxy(valkey):
    with Proxy(valkey.url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy):
    """A client that speaks through the proxy, as our worker does: one connection, RESP2, no second try, a second of patience."""
    with connected(proxy) as client:
        yield client


def connected(proxy: Proxy) -> redis.Redis:
    return redis.Redis.from_url(proxy.url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=1, single_connection_client=True)


def packed(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Raw:
    """A connection whose bytes a test sees."""

    def __init__(self, to: Proxy | EmbeddedServer) -> None:
        self.socket = socket.create_connection(("127.0.0.1", urlsplit(to.url).port), timeout=2)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    def send(self, *commands: tuple[bytes, ...]) -> None:
        self.socket.sendall(b"".join(packed(*command) for command in commands))

    def receive(self, size: int) -> bytes:
        """So many bytes, or fewer if the connection ends before."""
        got = b""
        while len(got) < size and (part := self.socket.recv(size - len(got))):
            got += part
        return got

    def receive_rest(self) -> bytes:
        got = b""
        while part := self.socket.recv(65_536):
            got += part
        return got


# ---- frames and names -------------------------------------------------------------------------------------------------------

FRAMES = [
    *(b"+OK\r\n", b":7\r\n", b"-ERR no\r\n", b"$-1\r\n", b"*-1\r\n", b"$0\r\n\r\n", b"*0\r\n", b"$6\r\n\r\n*1\r\n\r\n"),
    b"*3\r\n*2\r\n$1\r\na\r\n*0\r\n:1\r\n$-1\r\n",
    *(b"%1\r\n+a\r\n*2\r\n:1\r\n:2\r\n", b"_\r\n", b"#t\r\n", b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n"),
]


def test_frames_are_the_same_however_they_are_cut():
    """One byte at a time, all at once, and in random pieces."""
    stream, random = b"".join(FRAMES), Random(1)
    for sizes in ([1] * len(stream), [len(stream)], *([random.randint(1, 9) for _ in stream] for _ in range(50))):
        splitter, found, at = FrameSplitter(), [], 0
        for size in sizes:
            found += splitter.feed(stream[at : at + size])
            at += size

        assert FRAMES == found
        assert b"" == splitter.rest


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ((b"xack", b"orders", b"g", b"1-1"), "XACK"),
        ((b"XREADGROUP", b"GROUP", b"g", b"c", b"COUNT", b"1", b"BLOCK", b"0", b"STREAMS", b"s", b">"), "XREADGROUP BLOCK"),
        ((b"XREADGROUP", b"GROUP", b"g", b"c", b"STREAMS", b"s", b">"), "XREADGROUP"),
        ((b"CLIENT", b"UNBLOCK", b"7"), "CLIENT UNBLOCK"),
        ((b"XGROUP", b"create", b"s", b"g", b"0"), "XGROUP CREATE"),
        ((b"EVALSHA", script("fill").digest.encode(), b"0"), "fill"),
        ((b"EVAL", script("renew").source, b"0"), "renew"),
        ((b"EVALSHA", script("settle_retry").digest.encode(), b"0"), "settle_retry"),
        ((b"EVAL", b"return 1", b"0"), "EVAL"),
    ],
)
def test_a_call_is_named_by_what_it_does(command, name):
    """A script of ours by its name, whether it is run by its digest or by its text."""
    assert name == name_of(packed(*command))
    assert list(command) == arguments_of(packed(*command))


# ---- without a fault --------------------------------------------------------------------------------------------------------


def test_it_changes_nothing_by_itself(proxy, client):
    """A thousand pipelined commands, large values and errors come back as they should, each call paired with its own reply."""
    big = Random(2).randbytes(3_000_000)
    client.set("big", big)
    with client.pipeline(transaction=False) as pipe:
        for number in range(1000):
            pipe.incrby("sum", number)
            pipe.execute_command("LPUSH" if number % 100 == 0 else "GET", "sum", *([1] if number % 100 == 0 else []))
        replies = pipe.execute(raise_on_error=False)

    assert big == client.get("big")
    assert [sum(range(number + 1)) for number in range(1000)] == replies[::2]
    assert 10 == sum(isinstance(reply, redis.ResponseError) for reply in replies)
    sums = [call for call in proxy.calls if call.name == "INCRBY"]
    assert list(range(1, 1001)) == [call.ordinal for call in sums]
    assert [b":%d\r\n" % sum(range(number + 1)) for number in range(1000)] == [call.reply for call in sums]
    assert {"after_reply"} == {call.reached for call in sums}


def test_it_carries_resp3_as_well(proxy):
    """What is pushed by the server answers nobody."""
    with redis.Redis.from_url(proxy.url, protocol=3) as client:
        client.hset("h", mapping={"a": 1})
        client.execute_command("CLIENT", "TRACKING", "ON")
        client.get("k")
        client.set("k", 1)

        assert {b"a": b"1"} == client.hgetall("h")
        assert b"1" == client.get("k")


def test_a_blocked_read_is_ended_by_another_connection(proxy, client):
    """Connections do not wait for one another, and the server's client ids are valid behind the proxy."""
    with connected(proxy) as blocked:
        number = blocked.client_id()
        answers = []
        reading = threading.Thread(target=lambda: answers.append(blocked.xread({"s": "$"}, block=900)))
        reading.start()
        wait_until(lambda: client.info("clients")["blocked_clients"] == 1)
        client.client_unblock(number)
        reading.join()

    assert [[]] == [list(answer or []) for answer in answers]


def test_the_end_of_either_side_ends_the_other(proxy, client, direct):
    """A client that leaves is gone from the server; one that the server throws out is told."""
    with Raw(proxy) as raw:
        raw.send((b"CLIENT", b"SETNAME", b"leaver"))
        raw.receive(5)
        names = [row["name"] for row in direct.client_list()]
    wait_until(lambda: "leaver" not in [row["name"] for row in direct.client_list()])
    direct.client_kill_filter(_id=client.client_id())

    assert "leaver" in names
    with pytest.raises(redis.ConnectionError):
        client.ping()


def test_without_a_server_a_client_is_turned_away():
    """As by a server that is down."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with Proxy(f"redis://127.0.0.1:{port}/0") as proxy, pytest.raises(redis.ConnectionError):
        connected(proxy).ping()


# ---- named calls ------------------------------------------------------------------------------------------------------------


def test_a_dropped_reply_means_that_the_server_has_done_it(proxy, client, direct):
    """The second INCR is executed and not answered; the connection ends; the rule says that it fired."""
    lost = proxy.drop_reply("INCRBY", when=nth(2))
    client.incr("n")
    with pytest.raises(redis.ConnectionError):
        client.incr("n")

    assert b"2" == direct.get("n")
    assert (2, 1, True) == (lost.matched, lost.fired, lost.happened.is_set())
    assert 3 == client.incr("n"), "a new connection goes on"


def test_a_dropped_request_means_that_the_server_has_not_seen_it(proxy, client, direct):
    """Nor what was sent behind it in the same write."""
    proxy.drop_request("INCR", when=nth(2))
    with Raw(proxy) as raw:
        raw.send((b"INCR", b"n"), (b"INCR", b"n"), (b"INCR", b"n"))
        with pytest.raises(ConnectionResetError):
            raw.receive_rest()

    assert b"1" == direct.get("n")


def test_a_dropped_reply_may_stall_instead(proxy, client, direct):
    """Nothing is said and nothing ends: only the client's own patience does."""
    lost = proxy.drop_reply("INCRBY", then=Stall())
    began = time.monotonic()
    with pytest.raises(redis.TimeoutError):
        client.incr("n")

    assert time.monotonic() - began >= 1
    assert b"1" == direct.get("n")
    assert (1, 1) == (lost.fired, proxy.stalls)


def test_a_stall_that_ends_goes_on_with_what_was_held(proxy, client):
    """Late, and whole."""
    proxy.drop_reply("INCRBY", when=nth(1), then=Stall(0.3))
    began = time.monotonic()
    replies = [client.incr("n"), client.incr("n")]

    assert [1, 2] == replies
    assert 0.3 <= time.monotonic() - began < 0.99


def test_a_stall_may_end_in_a_cut(proxy, client):
    """As where a router forgets a connection."""
    proxy.drop_reply("INCRBY", then=Stall(0.1, then="cut"))

    with pytest.raises(redis.ConnectionError, match=r"reset|closed"):
        client.incr("n")
    assert 1 == proxy.cuts


def test_every_kth_and_a_limit(proxy, direct):
    """Every second PING, twice, then none."""
    lost = proxy.drop_reply("PING", when=every(2), limit=2)
    outcomes = []
    for _ in range(8):
        try:
            connected(proxy).ping()
        except redis.ConnectionError:
            outcomes.append("lost")
        else:
            outcomes.append("good")

    assert ["good", "lost", "good", "lost", "good", "good", "good", "good"] == outcomes
    assert 2 == lost.fired


def test_a_cut_between_two_replies_of_one_write(proxy):
    """The first reply arrives, the second does not, though both commands were executed; a command by itself is left alone."""
    cut = proxy.cut_between_replies("INCR")
    with Raw(proxy) as raw:
        raw.send((b"INCR", b"n"))
        alone = raw.receive(4)
        raw.send((b"INCR", b"n"), (b"SET", b"m", b"x" * 100_000), (b"INCR", b"n"))
        followed = raw.receive_rest()

    assert b":1\r\n" == alone
    assert b":2\r\n" == followed
    assert 1 == cut.fired


def test_a_cut_inside_a_reply(proxy, client, direct):
    """Some bytes arrive, never all; where, differs."""
    direct.set("k", "0123456789" * 10)
    whole = b"$100\r\n" + b"0123456789" * 10 + b"\r\n"
    cut = proxy.cut_inside_reply("GET")
    parts = []
    for _ in range(10):
        with Raw(proxy) as raw:
            raw.send((b"GET", b"k"))
            parts.append(raw.receive_rest())

    assert all(0 < len(part) < len(whole) and whole.startswith(part) for part in parts)
    assert len({len(part) for part in parts}) > 3
    assert 10 == cut.fired


@pytest.mark.parametrize(("how", "seen"), [("rst", ConnectionResetError), ("fin", None)])
def test_a_connection_ends_by_reset_or_by_farewell(proxy, how, seen):
    """A client sees the difference."""
    proxy.drop_reply("PING", then=Cut(how))
    with Raw(proxy) as raw:
        raw.send((b"PING",))
        if seen is None:
            assert b"" == raw.receive_rest()
        else:
            with pytest.raises(seen):
                raw.receive_rest()


def test_a_named_call_is_delayed(proxy, client):
    """That one, and no other."""
    late = proxy.on("INCRBY", "before_send", Delay(0.2))
    began = time.monotonic()
    client.ping()
    between = time.monotonic()
    client.incr("n")

    assert between - began < 0.2 <= time.monotonic() - between
    assert 1 == late.fired


@pytest.mark.parametrize(("phase", "executed"), [("before_send", 0), ("after_execute", 1), ("after_reply", 1)])
def test_a_callback_runs_exactly_in_its_phase(valkey, proxy, client, phase, executed):
    """Before the server sees the call; or when it has answered; and what it answers is known from then on."""
    seen = []

    def look(call: Call) -> None:
        with Raw(valkey) as raw:
            raw.send((b"EXISTS", b"n"))
            seen.append((raw.receive(4), call.name, call.ordinal, call.arguments, call.reply))

    rule = proxy.on("INCRBY", phase, look)
    client.incr("n")

    assert rule.happened.wait(2)
    assert [(b":%d\r\n" % executed, "INCRBY", 1, [b"INCRBY", b"n", b"1"], b":1\r\n" if executed else None)] == seen


def test_a_callback_may_cut_everything(proxy, client, direct):
    """From within the proxy's own thread; the call that it was called for does not happen either."""
    with connected(proxy) as other:
        other.ping()
        proxy.on("INCRBY", "before_send", lambda call: proxy.cut() and None)
        with pytest.raises(redis.ConnectionError):
            client.incr("n")
        with pytest.raises(redis.ConnectionError):
            other.execute_command("PING")

    assert direct.get("n") is None
    assert 2 == proxy.cuts


def test_what_a_callback_raises_is_raised_at_the_end(valkey):
    """A broken test must not look like a quiet one."""

    def fail(call: Call) -> None:
        raise LookupError(call.name)

    def run() -> None:
        with Proxy(valkey.url) as proxy:
            proxy.on("PING", "before_send", fail)
            connected(proxy).ping()

    with pytest.raises(LookupError, match="PING"):
        run()


def test_a_removed_rule_does_nothing(proxy, client):
    """By itself, or with all the others."""
    one, two = proxy.drop_reply("PING"), proxy.drop_reply("INCRBY")
    proxy.remove(one)
    client.ping()
    proxy.remove()
    client.incr("n")

    assert (0, 0) == (one.fired, two.fired)


# ---- whole connections ------------------------------------------------------------------------------------------------------


def test_a_cut_now_ends_a_blocked_read(proxy, client, direct):
    """On both sides: the server forgets the client, so that a dead read takes no entries."""
    errors = []

    def read() -> None:
        try:
            client.xread({"s": "$"}, block=900)
        except redis.ConnectionError as error:
            errors.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    wait_until(lambda: direct.info("clients")["blocked_clients"] == 1)
    ended = proxy.cut()
    reading.join()

    assert 1 == ended
    assert 1 == len(errors)
    wait_until(lambda: direct.info("clients")["blocked_clients"] == 0)


def test_a_half_open_connection_keeps_its_blocked_read_on_the_server(proxy, client, direct):
    """The client leaves and the server is not told: its read takes the next entry, and nobody ever sees it."""
    direct.xgroup_create("s", "g", mkstream=True)

    def read() -> None:
        with suppress(redis.TimeoutError):
            client.xreadgroup("g", "c", {"s": ">"}, block=60_000)

    reading = threading.Thread(target=read)
    reading.start()
    wait_until(lambda: direct.info("clients")["blocked_clients"] == 1)
    stalled = proxy.stall()
    reading.join()
    direct.xadd("s", {"a": 1})

    assert 1 == stalled
    assert 1 == direct.xpending("s", "g")["pending"]


def test_only_idle_connections_are_stalled(proxy, client):
    """One that waits for a reply gets it."""
    with connected(proxy) as idle:
        idle.ping()
        answers = []
        reading = threading.Thread(target=lambda: answers.append(client.xread({"s": "$"}, block=400)))
        reading.start()
        wait_until(lambda: proxy.counts["XREAD BLOCK"] == 1)
        stalled = proxy.stall(idle_only=True)
        reading.join()
        with pytest.raises(redis.TimeoutError):
            idle.ping()

    assert 1 == stalled
    assert 1 == len(answers)


def test_a_partition_holds_new_connections_too_until_it_heals(proxy, client):
    """What was sent into it arrives afterwards."""
    client.ping()
    proxy.stall(new_too=True)
    with Raw(proxy) as raw:
        raw.send((b"INCR", b"n"))
        raw.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.receive(4)
        proxy.heal()
        raw.socket.settimeout(2)

        assert b":1\r\n" == raw.receive(4)
    assert client.ping()


def test_new_connections_are_refused_until_it_heals(proxy):
    """Counted, so that a run can be told from one in which nobody tried."""
    proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        connected(proxy).ping()
    proxy.heal()

    assert connected(proxy).ping()
    assert proxy.refused >= 1


def test_latency_does_not_add_up_over_a_pipeline(proxy):
    """A hundred commands of one write are all late by the same time, as on a long way, and in order."""
    up = proxy.shape("to_server", Shape(delay=0.1, jitter=0.05))
    down = proxy.shape("to_client", Shape(delay=0.1))
    with Raw(proxy) as raw:
        began = time.monotonic()
        raw.send(*[(b"INCR", b"n")] * 100)
        wanted = b"".join(b":%d\r\n" % number for number in range(1, 101))

        assert wanted == raw.receive(len(wanted))
        assert 0.2 <= time.monotonic() - began < 1
    assert (100, 100) == (up.fired, down.fired)


def test_replies_in_single_bytes(proxy, client):
    """A parser sees every boundary; nothing is changed."""
    client.set("k", "x" * 5_000)
    shape = proxy.shape("to_client", Shape(piece=1))

    assert b"x" * 5_000 == client.get("k")
    assert 1 == shape.fired


def test_a_narrow_way_takes_its_time(proxy, client):
    """40 kB at 100 kB/s."""
    client.set("k", "x" * 40_000)
    proxy.shape("to_client", Shape(bytes_per_second=100_000))
    began = time.monotonic()
    value = client.get("k")

    assert b"x" * 40_000 == value
    assert 0.3 <= time.monotonic() - began < 0.99


def test_a_password_and_a_database_are_kept_in_the_url(valkey):
    """Only the address is another."""
    with Proxy(valkey.url.replace("redis://", "redis://user:se%40cret@").replace("/0", "/3?client_name=x")) as proxy:
        assert proxy.url.startswith("redis://user:se%40cret@127.0.0.1:")
        assert proxy.url.endswith("/3?client_name=x")
