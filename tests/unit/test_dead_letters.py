"""What is written about an entry that is set aside, and that nothing of the entry is changed by it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamworker.codecs.dead_letters import MOST_VALUES, read_dead_letter, write_dead_letter
from streamworker.delivery import Fields, Reason
from tests.factories import A_MOMENT, AN_ENTRY_ID, SOME_FIELDS, a_delivery, an_obituary

OURS = ["reason", "error", "traceback", "stream", "id", "group", "handler", "attempts", "crashes"]
OURS += ["first_failed_at", "failed_at", "consumer", "version", "packed"]
NAMES = st.binary(max_size=12) | st.sampled_from([f"_dlq_{name}".encode() for name in OURS])
FIELDS = st.lists(st.tuples(NAMES, NAMES | st.binary(max_size=30)), max_size=8).map(
    lambda pairs: [part for pair in pairs for part in pair]
)


@given(FIELDS)
@example([b"_dlq_reason", b"rejected", b"_dlq_error", b"older"])
@example([b"_dlq_packed", b"not packed"])
@example([b"_dlq_packed", b"1:a1:b"])
@example([])
def test_the_original_fields_come_back_byte_for_byte(fields: Fields) -> None:
    """Even where they have our names: a dead letter that became a dead letter again."""
    written = write_dead_letter(a_delivery(fields=fields), an_obituary())

    record = read_dead_letter(written)

    assert fields == record.fields
    assert "exhausted" == record.notes["reason"]
    assert "ValueError: no" == record.notes["error"]


@given(st.lists(st.tuples(NAMES.filter(lambda name: name != b"_dlq_packed"), st.binary(max_size=30)), max_size=8))
def test_the_original_fields_stand_in_front_as_they_are(pairs: list[tuple[bytes, bytes]]) -> None:
    """Whoever reads the stream with another program finds them where they were."""
    fields = [part for pair in pairs for part in pair]

    written = write_dead_letter(a_delivery(fields=fields), an_obituary())

    assert fields == written[: len(fields)]
    assert b"_dlq_reason" == written[len(fields)]


def test_everything_known_about_the_end_is_noted() -> None:
    """In this order, the reason first."""
    delivery = a_delivery(attempt=5, crashes=1, first_failed_at=A_MOMENT - timedelta(hours=1))

    written = write_dead_letter(delivery, an_obituary())

    assert {
        "reason": "exhausted",
        "error": "ValueError: no",
        "traceback": "Traceback (most recent call last):\nValueError: no",
        "stream": "orders",
        "id": AN_ENTRY_ID,
        "group": "billing",
        "handler": "charge",
        "attempts": "5",
        "crashes": "1",
        "first_failed_at": "2030-01-02T02:04:05+00:00",
        "failed_at": "2030-01-02T03:04:05+00:00",
        "consumer": "worker-1",
        "version": "1.2.3",
    } == read_dead_letter(written).notes
    assert [b"_dlq_reason", b"exhausted"] == written[2:4]


@pytest.mark.parametrize("missing", ["error", "traceback", "handler"])
def test_a_note_that_says_nothing_is_left_out(missing: str) -> None:
    """A field is there when it has something to say."""
    written = write_dead_letter(a_delivery(), an_obituary(**{missing: None}))

    assert f"_dlq_{missing}".encode() not in written
    assert missing not in read_dead_letter(written).notes


def test_the_first_failure_may_be_the_last() -> None:
    """Then both have the same time."""
    notes = read_dead_letter(write_dead_letter(a_delivery(), an_obituary())).notes

    assert A_MOMENT.isoformat() == notes["first_failed_at"] == notes["failed_at"]


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_written_as_its_word(reason: Reason) -> None:
    """The words are part of the contract."""
    written = write_dead_letter(a_delivery(), an_obituary(reason=reason))

    assert reason.value == read_dead_letter(written).notes["reason"]


@pytest.mark.parametrize(("count", "packed"), [(MOST_VALUES, False), (MOST_VALUES + 2, True), (200_000, True)])
def test_an_entry_of_too_many_fields_for_a_script_is_packed(count: int, packed: bool) -> None:
    """More than 3,500 fields are kept in one, and come back as they were."""
    fields = [b"%d" % number for number in range(count)]

    written = write_dead_letter(a_delivery(fields=fields), an_obituary())

    assert packed == (b"_dlq_packed" == written[0])
    assert len(written) < 8_000
    assert fields == read_dead_letter(written).fields


@pytest.mark.parametrize("fields", [[], [b"a", b"1"], [b"_dlq_packed", b"1:a1:b"]])
def test_an_entry_that_is_no_dead_letter_is_read_as_it_is(fields: Fields) -> None:
    """Somebody else may have written to the stream."""
    record = read_dead_letter(fields)

    assert fields == record.fields
    assert {} == record.notes


@given(st.lists(st.tuples(NAMES, st.binary(max_size=30)), max_size=8))
@example([(b"_dlq_packed", b"5:a"), (b"_dlq_reason", b"rejected")])
def test_reading_never_raises(pairs: list[tuple[bytes, bytes]]) -> None:
    """Whatever lies in the stream, an operator can look at it."""
    record = read_dead_letter([part for pair in pairs for part in pair])

    assert all(isinstance(value, str) for value in record.notes.values())


def test_half_a_surrogate_pair_does_not_prevent_a_dead_letter() -> None:
    """JSON in an envelope can hold one, and UTF-8 cannot."""
    written = write_dead_letter(a_delivery(id="\ud800"), an_obituary(error="\udfff"))

    assert "\\udfff" == read_dead_letter(written).notes["error"]


def test_notes_that_are_not_text_are_shown_with_backslashes() -> None:
    """They were written by somebody else."""
    notes: dict[str, Any] = dict(read_dead_letter([*SOME_FIELDS, b"_dlq_reason", b"\xff"]).notes)

    assert {"reason": "\\xff"} == notes
