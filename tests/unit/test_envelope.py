"""A waiting retry as bytes: all of it comes back, and nothing else is taken for one."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamworker.codecs.envelope import Envelope, pack, pack_fields, unpack, unpack_fields
from streamworker.delivery import Fields, History
from streamworker.errors import DecodeError

COUNTS = st.integers(0, 2**63)
HISTORIES = st.builds(
    History,
    attempt=COUNTS,
    crashes=COUNTS,
    crashes_alone=COUNTS,
    suspect=st.booleans(),
    misrouted=COUNTS,
    first_failed_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    last_error=st.none() | st.text(),
)
FIELDS = st.lists(st.tuples(st.binary(), st.binary())).map(lambda pairs: [part for pair in pairs for part in pair])
ENVELOPES = st.builds(Envelope, st.from_regex(r"\A[0-9]{1,20}-[0-9]{1,20}\Z"), HISTORIES, FIELDS)
A_HEAD: dict[str, Any] = {
    "id": "1-0",
    "attempt": 1,
    "crashes": 0,
    "crashes_alone": 0,
    "suspect": False,
    "misrouted": 0,
    "first_failed_at": None,
    "last_error": None,
}


@given(ENVELOPES)
def test_an_envelope_comes_back_as_it_was(envelope: Envelope) -> None:
    """Any bytes, in their order, with repeated names."""
    assert envelope == unpack(pack(envelope))


@pytest.mark.parametrize("count", [0, 2, 8_000, 200_000])
def test_no_number_of_fields_is_too_many(count: int) -> None:
    """Unlike for a script's arguments."""
    fields = [b"%d" % number for number in range(count)]

    assert fields == unpack(pack(Envelope("1-0", History(), fields))).fields


def test_the_first_line_is_for_people() -> None:
    """Who looks with redis-cli sees JSON, then the fields."""
    data = pack(Envelope("1-0", History(last_error="ValueError: a\nb"), [b"a", b"1\n2"]))

    head, rest = data.split(b"\n", 1)
    assert {**A_HEAD, "last_error": "ValueError: a\nb"} == json.loads(head)
    assert b"1:a3:1\n2" == rest


@given(st.binary() | ENVELOPES.map(pack).flatmap(lambda data: st.integers(0, len(data)).map(lambda end: data[:end])))
@example(b"")
@example(b"\n")
@example(b"[]\n")
@example(b"null\n")
@example(b'"id"\n')
@example(b"\xff\n")
@example(b"[" * 100_000 + b"\n")
def test_any_bytes_are_an_envelope_or_refused(data: bytes) -> None:
    """With no other error than `DecodeError`, and with fields in pairs."""
    try:
        envelope = unpack(data)
    except DecodeError:
        return

    assert 0 == len(envelope.fields) % 2


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from(sorted(A_HEAD)), JSON_VALUES)
@example("attempt", float("inf"))
@example("attempt", float("nan"))
@example("crashes", 10**5000)
@example("first_failed_at", "yesterday")
@example("first_failed_at", 5)
def test_a_head_with_a_wrong_value_is_read_or_refused(name: str, value: Any) -> None:
    """With no other error than `DecodeError`, and only with values of their types."""
    try:
        head = json.dumps({**A_HEAD, name: value})
    except ValueError:  # a number of too many digits cannot even be written
        head = json.dumps(A_HEAD).replace(f'"{name}": 0', f'"{name}": 1{"0" * 5000}')
    try:
        envelope = unpack(head.encode() + b"\n")
    except DecodeError:
        return

    assert isinstance(envelope.history.attempt, int)
    assert isinstance(envelope.history.last_error, str | None)


@pytest.mark.parametrize("name", sorted(A_HEAD))
def test_a_head_that_lacks_something_is_refused(name: str) -> None:
    """It was not written by us."""
    head = {key: value for key, value in A_HEAD.items() if key != name}

    with pytest.raises(DecodeError, match="not an envelope"):
        unpack(json.dumps(head).encode() + b"\n")


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        (b"", "ends before its fields"),
        (b"\n1:a", "has no value"),
        (b"\n1:a2:b", "damaged"),
        (b"\n1:a1", "damaged"),
        (b"\n1:a-1:b", "damaged"),
        (b"\n1:a 1:b", "damaged"),
        (b"\n1:a1_0:bbbbbbbbbb", "damaged"),
        (b"\n:a1:b", "damaged"),
        (b"\n1:a99999999999999999999999:b", "damaged"),
        (b"\n" + b"9" * 5_000 + b":b", "damaged"),
        (b"\nx", "damaged"),
    ],
)
def test_fields_that_end_wrongly_are_refused(tail: bytes, says: str) -> None:
    """The sentence says how they end."""
    with pytest.raises(DecodeError, match=says):
        unpack(json.dumps(A_HEAD).encode() + tail)


@given(FIELDS)
def test_packed_fields_come_back_as_they_were(fields: Fields) -> None:
    """Whatever they hold, colons and digits too."""
    assert fields == unpack_fields(pack_fields(fields))
