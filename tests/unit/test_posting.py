"""How a list of entries is cut into writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.codecs import codec_named
from streamworker.delivery import Outgoing
from streamworker.errors import EncodeError
from streamworker.outgoing import encode_many
from streamworker.posting import PLAIN, chunks, weights_of
from streamworker.streams.packing import _by_hand, pack


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 10), st.integers(1, 500))
def test_chunks_cover_every_position_once_and_in_order(sizes, most, most_bytes):
    """None is empty, too long, or too large unless one entry alone is."""
    postings = [PLAIN.of(Outgoing("s", [b"n", b"x" * size])) for size in sizes]
    spans = list(chunks(weights_of(postings), most=most, most_bytes=most_bytes))

    assert list(range(len(sizes))) == [position for span in spans for position in span]
    for span in spans:
        assert 1 <= len(span) <= most
        assert len(span) == 1 or sum(sizes[position] + 1 for position in span) <= most_bytes


@pytest.mark.parametrize(
    ("bodies", "dedupe_ids", "says"),
    [
        ([{"a": 1}, {}], None, "body 2 of 2: this dict has no field"),
        (iter([{"a": 1}, {}]), None, "body 2: this dict has no field"),
        ([{}, {"a": 1}], ["x", "y"], "body 1 of 2: this dict has no field"),
        ([{"a": 1}, {7: 1}], None, "body 2 of 2: a field's name is of type int: make it text"),
    ],
)
def test_which_of_many_bodies_cannot_be_written_is_said(bodies, dedupe_ids, says):
    """Before anything is sent."""
    with pytest.raises(EncodeError, match=says):
        list(encode_many(codec_named("fields"), "orders", bodies, dedupe_ids, {}))


@given(st.lists(st.one_of(st.binary(), st.text(), st.integers()), min_size=1))
def test_commands_are_the_same_bytes_with_and_without_hiredis(command):
    """The one is only slower."""
    try:
        expected = pack(tuple(command))
    except (UnicodeEncodeError, OverflowError):
        return

    assert expected == _by_hand(tuple(command))
