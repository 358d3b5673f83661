"""How a list of entries is cut into writes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamworker.delivery import Outgoing
from streamworker.posting import PLAIN, chunks
from streamworker.streams.packing import _by_hand, pack


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 10), st.integers(1, 500))
def test_chunks_cover_every_position_once_and_in_order(sizes, most, most_bytes):
    """None is empty, too long, or too large unless one entry alone is."""
    postings = [PLAIN.of(Outgoing("s", [b"n", b"x" * size])) for size in sizes]
    spans = list(chunks(postings, most=most, most_bytes=most_bytes))

    assert list(range(len(sizes))) == [position for span in spans for position in span]
    for span in spans:
        assert 1 <= len(span) <= most
        assert len(span) == 1 or sum(sizes[position] + 1 for position in span) <= most_bytes


@given(st.lists(st.one_of(st.binary(), st.text(), st.integers()), min_size=1))
def test_commands_are_the_same_bytes_with_and_without_hiredis(command):
    """The one is only slower."""
    try:
        expected = pack(tuple(command))
    except (UnicodeEncodeError, OverflowError):
        return

    assert expected == _by_hand(tuple(command))
