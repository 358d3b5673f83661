"""The shared connection, against a server of a few lines that says exactly what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from streamworker.errors import ConnectionLost, ServerError
from streamworker.streams import connections
from streamworker.streams.connections import CONNECT_SECONDS, Endpoint
from streamworker.streams.link import Link
from streamworker.streams.wire import Wire
from tests.factories import LoopTime


class Peer:
    """Speaks the protocol: says +OK to the handshake, hands out all other commands, and sends what it is told to."""

    def __init__(self) -> None:
        self.commands: asyncio.Queue[list[bytes]] = asyncio.Queue()
        self.connections = 0
        self.greeting: bytes | None = b"+OK\r\n"
        self._writers: list[asyncio.StreamWriter] = []
        self._greeted = asyncio.Event()

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()
        self._server.close()
        await self._server.wait_closed()

    def endpoint(self, secret: str = "") -> Endpoint:
        return Endpoint(f"redis://{secret}127.0.0.1:{self.port}/0", client_name="test")

    async def send(self, data: bytes) -> None:
        """Send on the newest connection."""
        self._writers[-1].write(data)
        await self._writers[-1].drain()

    async def hang_up(self) -> None:
        """End every connection."""
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                continue

    async def greeted(self) -> None:
        """Wait for the first command of a handshake."""
        await self._greeted.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                command = await _command(reader)
                if command[0] not in (b"CLIENT", b"AUTH"):
                    self.commands.put_nowait(command)
                    continue
                self._greeted.set()
                if self.greeting is not None:
                    writer.write(self.greeting)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    count = int((await reader.readuntil(b"\r\n"))[1:])
    parts = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        parts.append((await reader.readexactly(size + 2))[:-2])
    return parts


@pytest.fixture(params=[True, False], ids=["hiredis", "plain"])
async def peer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Peer]:
    monkeypatch.setattr(connections, "HIREDIS_AVAILABLE", request.param)
    async with Peer() as peer:
        yield peer


@pytest.fixture
async def wire(peer: Peer) -> AsyncIterator[Wire]:
    wire = await Wire.open(peer.endpoint())
    yield wire
    await wire.close()


@pytest.fixture
async def link(peer: Peer) -> AsyncIterator[Link]:
    link = Link(peer.endpoint())
    yield link
    await link.close()


async def _outcomes(*futures: asyncio.Future[Any]) -> list[Any]:
    return await asyncio.gather(*futures, return_exceptions=True)


# ---- replies -------------------------------------------------------------------------------------------------------------------


async def test_replies_reach_their_callers_in_order(peer: Peer, wire: Wire) -> None:
    """Many commands are on their way at once."""
    futures = [wire.call("ECHO", number, within=5) for number in range(50)]

    await peer.send(b"".join(b":%d\r\n" % number for number in range(50)))

    assert list(range(50)) == await _outcomes(*futures)
    assert [[b"ECHO", b"%d" % number] for number in range(50)] == [await peer.commands.get() for _ in range(50)]


async def test_replies_may_come_in_pieces(peer: Peer, wire: Wire) -> None:
    """Of one byte each."""
    replies = b"$11\r\nhello\r\nyou!\r\n*2\r\n:7\r\n*1\r\n$-1\r\n-WRONGTYPE no\r\n+OK\r\n"
    futures = [wire.call("ANY", within=5) for _ in range(4)]

    for position in range(len(replies)):
        await peer.send(replies[position : position + 1])
        await asyncio.sleep(0)

    text, nested, error, word = await _outcomes(*futures)
    assert b"hello\r\nyou!" == text
    assert [7, [None]] == nested
    assert ("WRONGTYPE", b"OK") == (error.code, word)


async def test_replies_are_bytes(peer: Peer, wire: Wire) -> None:
    """Whatever they are."""
    future = wire.call("GET", "key", within=5)

    await peer.send(b"$4\r\n\x00\xff\r\n\r\n")

    assert b"\x00\xff\r\n" == await future


async def test_an_error_in_the_middle_hits_only_its_caller(peer: Peer, wire: Wire) -> None:
    """The connection stays sound."""
    futures = [wire.call("ANY", within=5) for _ in range(3)]

    await peer.send(b"+one\r\n-NOGROUP No such key\r\n+three\r\n")

    one, two, three = await _outcomes(*futures)
    assert (b"one", b"three") == (one, three)
    assert isinstance(two, ServerError)
    assert "NOGROUP" == two.code
    assert wire.broken is None


async def test_an_error_inside_a_reply_is_a_value(peer: Peer, wire: Wire) -> None:
    """A script that gathers answers hands errors back too."""
    future = wire.call("EVAL", within=5)

    await peer.send(b"*2\r\n-ERR no\r\n+OK\r\n")

    refused, word = await future
    assert isinstance(refused, Exception)
    assert b"OK" == word


@pytest.mark.parametrize("reply", [b"-LOADING Redis is loading the dataset in memory\r\n", b"-NOAUTH Authentication required.\r\n"])
async def test_an_answer_that_ends_the_connection_still_reaches_its_caller(peer: Peer, wire: Wire, reply: bytes) -> None:
    """It says what is wrong, which a lost connection would not; the others have lost theirs."""
    asked, behind = wire.call("ANY", within=5), wire.call("ANY", within=5)

    await peer.send(reply)

    first, second = await _outcomes(asked, behind)
    assert isinstance(first, ServerError)
    assert reply.split()[0][1:].decode() == first.code
    assert isinstance(second, ConnectionLost)


async def test_the_reply_of_a_cancelled_caller_is_thrown_away(peer: Peer, wire: Wire) -> None:
    """The next caller gets its own."""

    async def ask() -> Any:
        return await wire.call("FIRST", within=5)

    caller = asyncio.create_task(ask())
    await peer.commands.get()
    following = wire.call("SECOND", within=5)
    caller.cancel()
    await asyncio.wait([caller])

    await peer.send(b"+first\r\n+second\r\n")

    assert b"second" == await following
    assert caller.cancelled()


async def test_the_error_of_a_cancelled_caller_is_thrown_away(peer: Peer, wire: Wire) -> None:
    """It concerns nobody."""
    cancelled, following = wire.call("FIRST", within=5), wire.call("SECOND", within=5)
    cancelled.cancel()

    await peer.send(b"-ERR no\r\n+second\r\n")

    assert b"second" == await following


async def test_commands_of_one_turn_leave_in_one_write(peer: Peer, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch costs one system call, not a hundred."""
    writes: list[list[bytes]] = []
    send = wire._connection.send_packed_command

    async def spy(packed: Any, **options: Any) -> None:
        writes.append(list(packed))
        await send(packed, **options)

    monkeypatch.setattr(wire._connection, "send_packed_command", spy)

    futures = [wire.call("ECHO", number, within=5) for number in range(100)]
    await peer.send(b"+OK\r\n" * 100)
    await _outcomes(*futures)
    last = wire.call("ECHO", "later", within=5)
    await peer.send(b"+OK\r\n")
    await last

    assert 2 == len(writes)
    assert 100 == b"".join(writes[0]).count(b"ECHO")


# ---- troubles ------------------------------------------------------------------------------------------------------------------


async def test_a_reply_that_does_not_come_costs_the_connection(peer: Peer, wire: Wire) -> None:
    """All who wait are told, and nobody waits for ever."""
    time = LoopTime()
    futures = [wire.call("ANY", within=5) for _ in range(3)]
    await peer.commands.get()

    time.advance(timedelta(seconds=6))

    assert [ConnectionLost] * 3 == [type(outcome) for outcome in await _outcomes(*futures)]
    assert "the server did not answer in time" == str(wire.broken)


async def test_replies_that_come_in_time_keep_the_connection(peer: Peer, wire: Wire) -> None:
    """Each has its own deadline, counted from its own call."""
    time = LoopTime()
    for _ in range(5):
        future = wire.call("ANY", within=5)
        time.advance(timedelta(seconds=4))
        await peer.send(b"+OK\r\n")

        assert b"OK" == await future
    assert wire.broken is None


async def test_the_end_of_the_connection_is_told_to_all_who_wait(peer: Peer, wire: Wire) -> None:
    """Also where a reply was begun."""
    futures = [wire.call("ANY", within=5) for _ in range(3)]
    await peer.commands.get()

    await peer.send(b"+one\r\n$100\r\nbegun")
    await peer.hang_up()

    one, two, three = await _outcomes(*futures)
    assert b"one" == one
    assert [ConnectionLost, ConnectionLost] == [type(two), type(three)]
    assert two is not three


async def test_a_broken_wire_takes_no_more_commands(peer: Peer, wire: Wire) -> None:
    """They fail at once, and are not sent."""
    future = wire.call("FIRST", within=5)
    await peer.commands.get()
    await peer.hang_up()
    await _outcomes(future)

    with pytest.raises(ConnectionLost):
        await wire.call("SECOND", within=5)

    assert 1 == peer.connections
    assert peer.commands.empty()


@pytest.mark.parametrize("nonsense", [b"+surprise\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_reply_that_nobody_asked_for_costs_the_connection(peer: Peer, wire: Wire, nonsense: bytes) -> None:
    """Or every later caller would get another's; and the wire can still be closed."""
    await peer.send(nonsense)
    await asyncio.wait([wire._tasks[0]])  # its writer ends when it breaks

    async with asyncio.timeout(5):
        await wire.close()

    assert isinstance(wire.broken, ConnectionLost)


async def test_a_reply_that_is_on_its_way_may_take_its_time(peer: Peer, wire: Wire) -> None:
    """What is large comes slowly: each piece gives it as long again. Silence alone ends the connection."""
    time = LoopTime()
    arriving = wire.call("FIRST", within=5)
    await peer.commands.get()

    for piece in (b"$4\r\n", b"a", b"b", b"c", b"d", b"\r\n"):
        time.advance(timedelta(seconds=4))
        heard = wire._heard_at
        await peer.send(piece)
        while wire._heard_at == heard:  # noqa: ASYNC110  # bytes are no event of ours
            await asyncio.sleep(0)
    silent = wire.call("SECOND", within=5)
    time.advance(timedelta(seconds=6))

    assert b"abcd" == await arriving
    [outcome] = await _outcomes(silent)
    assert isinstance(outcome, ConnectionLost)


async def test_closing_tells_all_who_wait(peer: Peer, wire: Wire) -> None:
    """And may be done twice."""
    future = wire.call("ANY", within=5)

    await wire.close()
    await wire.close()

    [outcome] = await _outcomes(future)
    assert isinstance(outcome, ConnectionLost)
    assert "the connection was closed by us" == str(outcome)


async def test_a_server_that_is_not_there_is_a_lost_connection(peer: Peer) -> None:
    """With the address in the text, and no secret."""
    endpoint = peer.endpoint("admin:hunter2@")
    peer._server.close()
    await peer._server.wait_closed()

    with pytest.raises(ConnectionLost) as caught:
        await Wire.open(endpoint)

    assert str(peer.port) in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_a_server_that_does_not_greet_is_a_lost_connection(peer: Peer) -> None:
    """After a bounded time."""
    peer.greeting = None
    time = LoopTime()
    opening = asyncio.create_task(Wire.open(peer.endpoint()))
    await peer.greeted()

    time.advance(timedelta(seconds=CONNECT_SECONDS + 1))

    with pytest.raises(ConnectionLost):
        await opening


async def test_a_server_that_refuses_the_password_says_so(peer: Peer) -> None:
    """That is no network's fault, and trying again will not help."""
    peer.greeting = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"

    with pytest.raises(ServerError) as caught:
        await Wire.open(peer.endpoint("admin:hunter2@"))

    assert "hunter2" not in str(caught.value)


# ---- Link ----------------------------------------------------------------------------------------------------------------------


async def test_a_link_connects_when_first_needed(peer: Peer, link: Link) -> None:
    """And once for all who ask at the same time."""
    calls = [asyncio.create_task(link.call("ECHO", number)) for number in range(3)]
    for _ in calls:
        await peer.commands.get()

    await peer.send(b"+0\r\n+1\r\n+2\r\n")

    assert [b"0", b"1", b"2"] == await _outcomes(*calls)
    assert 1 == peer.connections


async def test_a_link_connects_anew_after_a_break_but_repeats_nothing(peer: Peer, link: Link) -> None:
    """The caller decides about a second try, because the first may have had its effect."""
    lost = asyncio.create_task(link.call("XADD"))
    assert [b"XADD"] == await peer.commands.get()
    await peer.hang_up()
    with pytest.raises(ConnectionLost):
        await lost

    again = asyncio.create_task(link.call("PING"))
    assert [b"PING"] == await peer.commands.get()
    await peer.send(b"+PONG\r\n")

    assert b"PONG" == await again
    assert 2 == peer.connections
    assert peer.commands.empty()


async def test_a_link_that_was_closed_opens_again(peer: Peer, link: Link) -> None:
    """A program may publish after its worker has ended."""
    await link.connect()
    await link.close()

    call = asyncio.create_task(link.call("PING"))
    await peer.commands.get()
    await peer.send(b"+PONG\r\n")

    assert b"PONG" == await call
    assert 2 == peer.connections


async def test_a_cancelled_call_leaves_the_link_sound(peer: Peer, link: Link) -> None:
    """Its reply is thrown away when it comes."""
    cancelled = asyncio.create_task(link.call("FIRST"))
    await peer.commands.get()
    cancelled.cancel()
    await asyncio.wait([cancelled])
    following = asyncio.create_task(link.call("SECOND"))
    await peer.commands.get()

    await peer.send(b"+first\r\n+second\r\n")

    assert b"second" == await following
    assert 1 == peer.connections
