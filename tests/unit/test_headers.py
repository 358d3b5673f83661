"""Headers: which fields they are, and how they are read and written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamworker.codecs import read_headers
from streamworker.codecs.headers import write_headers
from streamworker.errors import EncodeError

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: not name.startswith(("_", "dlq_")))
VALUES = st.text(st.characters(exclude_categories=["Cs"]))


def test_a_field_that_begins_with_an_underscore_is_a_header_without_it() -> None:
    """Wire `_tenant` is header `tenant`, and body fields are none."""
    headers = read_headers([b"order_id", b"7", b"_tenant", b"acme", b"_type", b"order.placed"])

    assert {"tenant": "acme", "type": "order.placed"} == headers


@pytest.mark.parametrize("name", ["traceparent", "tracestate", "baggage", "content-type", "ce_type", "ce_id"])
def test_names_that_others_look_for_stay_bare(name: str) -> None:
    """W3C names, `content-type` and CloudEvents attributes have no underscore in the entry."""
    fields = write_headers({name: "x"})

    assert [name.encode(), b"x"] == fields
    assert {name: "x"} == read_headers(fields)


@pytest.mark.parametrize("name", [b"", b"trace", b"baggage2", b"certain", b"ce", b"Traceparent", b"\xff", b"content_type"])
def test_a_name_that_only_resembles_a_header_is_none(name: bytes) -> None:
    """Only the exact names and prefixes count."""
    assert {} == read_headers([name, b"x"])


def test_of_repeated_headers_the_last_wins() -> None:
    """Redis keeps repeated names in their order."""
    assert {"tenant": "b"} == read_headers([b"_tenant", b"a", b"_tenant", b"b"])


def test_only_one_leading_underscore_is_taken_off() -> None:
    """FastStream's `__data__` keeps its inner underscores."""
    assert {"_data__": "x", "": "y"} == read_headers([b"__data__", b"x", b"_", b"y"])


def test_a_header_that_is_not_utf8_is_shown_with_backslashes() -> None:
    """A broken header must not cost the body."""
    assert {"te\\xff": "\\xfe"} == read_headers([b"_te\xff", b"\xfe"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20))))
def test_reading_never_raises(pairs: list[tuple[bytes, bytes]]) -> None:
    """Any entry has headers that are text, perhaps none."""
    headers = read_headers([part for pair in pairs for part in pair])

    assert all(isinstance(name, str) and isinstance(value, str) for name, value in headers.items())


@settings(deadline=None)
@given(st.dictionaries(NAMES, VALUES))
def test_what_is_written_is_read_back(headers: dict[str, str]) -> None:
    """Names and values survive the trip, whatever text they are."""
    assert headers == read_headers(write_headers(headers))


@pytest.mark.parametrize(
    ("name", "value", "repair"),
    [
        ("", "x", "give it a name"),
        ("_tenant", "x", "leave out the leading underscore"),
        ("dlq_reason", "x", "choose another name"),
        ("tenant", 7, "str(value)"),
        ("tenant", None, "str(value)"),
        ("tenant", b"x", "str(value)"),
        (7, "x", "give it a name"),
        ("tenant", "\ud800", "surrogate"),
        ("\ud800", "x", "surrogate"),
    ],
)
def test_a_header_that_could_not_be_read_back_is_refused_with_its_repair(name: str, value: str, repair: str) -> None:
    """The sentence says what to do instead."""
    with pytest.raises(EncodeError) as caught:
        write_headers({name: value})

    assert repair in str(caught.value)
