"""Replies in plain Python: the same as hiredis gives, wherever they were split on their way."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import InvalidResponse, ResponseError

from streamworker.streams.parsing import NOT_YET, Replies

LINES = st.binary(max_size=20).filter(lambda line: b"\r" not in line and b"\n" not in line)
ONES = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(b":%d\r\n".__mod__),
    LINES.map(b"+%s\r\n".__mod__),
    LINES.map(b"-ERR %s\r\n".__mod__),
    st.binary(max_size=50).map(lambda value: b"$%d\r\n%s\r\n" % (len(value), value)),
    st.sampled_from([b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"$0\r\n\r\n"]),
)
REPLIES = st.recursive(ONES, lambda inner: st.lists(inner, max_size=4).map(lambda many: b"*%d\r\n%s" % (len(many), b"".join(many))))


def alike(reply: Any) -> Any:
    """The same with errors that can be compared."""
    if isinstance(reply, list):
        return [alike(one) for one in reply]
    return ("error", str(reply)) if isinstance(reply, Exception) else reply


def all_that_come(reader: Any, parts: list[bytes], none_yet: object) -> list[Any]:
    """Every reply, taken as early as it can be."""
    found = []
    for part in parts:
        reader.feed(part)
        while (reply := reader.gets()) is not none_yet:
            found.append(alike(reply))
    return found


@given(st.lists(REPLIES, max_size=4), st.data())
def test_replies_are_those_of_hiredis_however_they_were_split(replies: list[bytes], data: st.DataObject) -> None:
    """At any bytes, several in one part and one in several."""
    whole = b"".join(replies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    parts = [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    none_yet = object()

    expected = all_that_come(hiredis.Reader(replyError=ResponseError, notEnoughData=none_yet), [whole], none_yet)

    assert len(replies) == len(expected)
    assert expected == all_that_come(Replies(ResponseError), parts, NOT_YET)


@given(REPLIES)
def test_a_reply_comes_with_its_last_byte_and_not_before(reply: bytes) -> None:
    """Byte by byte; and nothing is left then."""
    replies = Replies(ResponseError)

    came = []
    for position, byte in enumerate(reply):
        replies.feed(bytes([byte]))
        if replies.gets() is not NOT_YET:
            came.append(position)

    assert [len(reply) - 1] == came
    assert not replies.has_data()


@pytest.mark.parametrize("junk", [b"HTTP/1.1 400 Bad Request\r\n", b"$x\r\n", b"*1\r\n%1\r\n", b":\r\n", b"\r\n", b"*2x\r\n"])
def test_what_is_no_reply_is_an_error(junk: bytes) -> None:
    """In words that name the kind of trouble, and show nothing of it."""
    replies = Replies(ResponseError)
    replies.feed(junk)

    with pytest.raises(InvalidResponse, match="no RESP2") as caught:
        replies.gets()

    assert "HTTP" not in str(caught.value)
