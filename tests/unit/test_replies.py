"""Replies come in any pieces, many together, with errors among them, or not at all: each reaches its caller, none reaches another's."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamworker.errors import ConnectionLost, ServerError
from streamworker.streams.connections import Endpoint
from streamworker.streams.wire import Wire

Expected: TypeAlias = int | bytes | str | list[Any] | None
"""A reply; text stands for an error."""

BULKS = st.binary(max_size=40) | st.sampled_from([b"", b"\r\n", b"$5\r\n", b"-ERR no\r\n", b"x" * 200_000])
REPLIES = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | BULKS | st.none(), lambda inner: st.lists(inner, max_size=4), max_leaves=12
) | st.sampled_from(["ERR no", "WRONGTYPE Operation against a key", "OOM command not allowed", "NOGROUP No such key"])
STORIES = st.lists(st.tuples(REPLIES, st.booleans()), min_size=1, max_size=12)


def encoded(reply: Expected) -> bytes:
    """The reply as a server writes it."""
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%s\r\n" % (len(reply), reply)
        case str():
            return b"-%s\r\n" % reply.encode()
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(map(encoded, reply))


async def served(pieces: list[bytes], calls: list[int]) -> list[Any]:
    """What callers get from a server that sends these pieces once it has their commands: `calls` are how many each sends together."""
    replied = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = b""
        while seen.count(b"ANY") < sum(calls):
            data = await reader.read(65_536)
            seen += data
            if b"CLIENT" in data:
                writer.write(b"+OK\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()
        replied.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = await Wire.open(Endpoint(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", client_name="test"))
    packed = b"*1\r\n$3\r\nANY\r\n"
    futures: list[asyncio.Future[Any]] = [
        wire.call("ANY", within=5) if count == 1 else wire.call_many([packed] * count, within=5) for count in calls
    ]
    answers = await asyncio.gather(*futures, return_exceptions=True)
    await replied.wait()
    await wire.close()
    server.close()
    return [
        one
        for answer, count in zip(answers, calls, strict=True)
        for one in (answer if count > 1 and isinstance(answer, list) else [answer])
    ]


def is_as_sent(reply: Expected, answer: object) -> bool:
    return isinstance(answer, ServerError) and str(answer) in reply if isinstance(reply, str) else answer == reply


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(story=STORIES, cuts=st.lists(st.integers(0, 3_000), max_size=30), end=st.none() | st.integers(0, 3_000))
def test_each_reply_reaches_its_caller_however_it_comes(
    story: list[tuple[Expected, bool]], cuts: list[int], end: int | None
) -> None:
    """In any pieces; and where the connection ends between, or in the midst of one, the rest are told that it is lost."""
    replies = [reply for reply, _ in story]
    calls: list[int] = []
    for _, joins in story:
        if joins and calls:
            calls[-1] += 1
        else:
            calls.append(1)
    data = b"".join(map(encoded, replies))
    sent = data if end is None else data[:end]
    places = [0, *sorted({cut for cut in cuts if cut < len(sent)}), len(sent)]
    whole = sum(len(b"".join(map(encoded, replies[: count + 1]))) <= len(sent) for count in range(len(replies)))

    answers = asyncio.run(served([sent[first:last] for first, last in pairwise(places)], calls))

    assert len(replies) == len(answers)
    for number, (reply, answer) in enumerate(zip(replies, answers, strict=True)):
        assert is_as_sent(reply, answer) if number < whole else isinstance(answer, ConnectionLost), (number, reply, answer)
