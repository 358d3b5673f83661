"""From an entry as it was read to a delivery, and to its handler."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.codecs.envelope import Envelope, pack
from streamworker.delivery import Fields, History, Lease
from streamworker.errors import DecodeError, ServerError
from streamworker.worker.bindings import order_of, receive
from tests.factories import A_MOMENT, AN_ENTRY_ID, SOME_FIELDS, Recorder, a_binding, a_delivery, a_handler, a_taken

RETRY_KEY = "{orders}:retry:billing"
A_HISTORY = History(attempt=3, crashes=1, misrouted=2, first_failed_at=A_MOMENT, last_error="ValueError: no")
AN_ENVELOPE = Envelope("1600000000000-7", A_HISTORY, [b"order_id", b"8", b"_type", b"order"])


# ---- receive -------------------------------------------------------------------------------------------------------------------


def test_a_new_entry_is_a_first_attempt() -> None:
    """Its lease counts from the moment the read was sent."""
    arrival = receive(a_taken(), a_binding(), "worker-1", 12.5)

    assert arrival.damage is None
    assert a_delivery(lease=Lease("orders", AN_ENTRY_ID, "worker-1", 1, 12.5)) == arrival.delivery
    assert (1, 0) == (arrival.delivery.attempt, arrival.delivery.crashes)


def test_headers_are_read_from_the_fields() -> None:
    """Whoever routes by type needs no body."""
    arrival = receive(a_taken(fields=[b"_type", b"order", b"_key", b"k"]), a_binding(), "worker-1", 0.0)

    assert {"type": "order", "key": "k"} == arrival.delivery.headers
    assert "k" == arrival.delivery.key


@pytest.mark.parametrize(
    ("count", "attempt", "crashes", "turn"), [(3_000_000_001, 4, 0, 1), (2_001_003_008, 3, 4, 8)], ids=["lives", "after deaths"]
)
def test_attempts_that_failed_in_place_are_in_the_delivery_count(count: int, attempt: int, crashes: int, turn: int) -> None:
    """Above the deaths; on top of those in the envelope, where it has one."""
    fresh = receive(a_taken(count=count), a_binding(), "worker-1", 0.0).delivery
    retried = receive(
        a_taken(key=RETRY_KEY, fields=[b"delivery", pack(AN_ENVELOPE)], count=count), a_binding(), "worker-1", 0.0
    ).delivery

    assert (attempt, crashes, turn, attempt - 1) == (fresh.attempt, fresh.crashes, fresh.lease.turn, fresh.lease.failed)
    assert attempt - 1 + A_HISTORY.attempt == retried.attempt


@pytest.mark.parametrize(
    ("count", "crashes", "alone"),
    [(1, 0, 0), (2, 1, 0), (3, 1, 0), (1_004, 2, 1), (1_005, 2, 1), (3_008, 4, 3), (2_003_008, 4, 3), (6, 1, 0)],
    ids=[
        "new",
        "after a death in company",
        "alone",
        "after a death alone",
        "alone again",
        "after three deaths alone",
        "and two stays that were too long",
        "after three deaths in company",
    ],
)
def test_the_delivery_count_tells_the_deaths(count: int, crashes: int, alone: int) -> None:
    """The first death was in company, those in the thousands alone, and none of them costs an attempt."""
    delivery = receive(a_taken(count=count), a_binding(), "worker-1", 0.0).delivery

    assert (1, crashes, alone) == (delivery.attempt, delivery.crashes, delivery.history.crashes_alone)
    assert (crashes > 0) == delivery.history.suspect
    assert (count % 1_000, count // 1_000_000) == (delivery.lease.turn, delivery.lease.outstayed)


def test_a_retry_is_its_original_entry_with_what_it_has_been_through() -> None:
    """Its lease is that of the entry in the retry stream."""
    taken = a_taken(key=RETRY_KEY, fields=[b"delivery", pack(AN_ENVELOPE)])

    arrival = receive(taken, a_binding(), "worker-1", 0.0)

    assert arrival.damage is None
    assert AN_ENVELOPE.id == arrival.delivery.id
    assert AN_ENVELOPE.history == arrival.delivery.history
    assert AN_ENVELOPE.fields == arrival.delivery.fields
    assert {"type": "order"} == arrival.delivery.headers
    assert "orders" == arrival.delivery.stream
    assert (RETRY_KEY, AN_ENTRY_ID) == (arrival.delivery.lease.key, arrival.delivery.lease.entry_id)


@pytest.mark.parametrize(
    ("count", "suspect", "crashes", "alone"),
    [
        (1, False, 1, 0),
        (2, False, 2, 0),
        (1_004, False, 3, 1),
        (1, True, 1, 0),
        (2, True, 1, 0),
        (3, True, 1, 0),
        (1_004, True, 2, 1),
    ],
)
def test_crashes_of_a_retry_add_up(count: int, suspect: bool, crashes: int, alone: int) -> None:
    """Those before it was parked, and those since; one that was a suspect already has begun at 2 without a death."""
    envelope = AN_ENVELOPE._replace(history=replace(A_HISTORY, suspect=suspect))

    delivery = receive(
        a_taken(key=RETRY_KEY, fields=[b"delivery", pack(envelope)], count=count), a_binding(), "worker-1", 0.0
    ).delivery

    assert (3, crashes, alone) == (delivery.attempt, delivery.crashes, delivery.history.crashes_alone)
    assert (suspect or count > 1) == delivery.history.suspect


def test_an_entry_of_the_main_stream_is_never_taken_for_an_envelope() -> None:
    """A user's field may be called `delivery`."""
    fields = [b"delivery", pack(AN_ENVELOPE)]

    arrival = receive(a_taken(fields=fields), a_binding(), "worker-1", 0.0)

    assert AN_ENTRY_ID == arrival.delivery.id
    assert fields == arrival.delivery.fields


@pytest.mark.parametrize(
    "fields",
    [
        [b"order_id", b"7"],
        [b"delivery", b""],
        [b"delivery", b"{}\n"],
        [b"delivery", pack(AN_ENVELOPE)[:-1]],
        [b"delivery", pack(AN_ENVELOPE) + b"1:x"],
        [b"delivery", pack(AN_ENVELOPE), b"more", b""],
    ],
)
def test_a_damaged_envelope_is_a_delivery_with_its_damage(fields: Fields) -> None:
    """What is there is kept, so that a dead letter can be made of it."""
    arrival = receive(a_taken(key=RETRY_KEY, fields=fields, count=2), a_binding(), "worker-1", 0.0)

    assert isinstance(arrival.damage, DecodeError)
    assert AN_ENTRY_ID == arrival.delivery.id
    assert fields == arrival.delivery.fields
    assert 1 == arrival.delivery.crashes


@given(st.lists(st.tuples(st.binary(max_size=9) | st.just(b"delivery"), st.binary(max_size=50))), st.integers(1, 9))
def test_whatever_is_read_becomes_a_delivery(pairs: list[tuple[bytes, bytes]], count: int) -> None:
    """Nothing that lies in a stream can stop the reader."""
    fields = [part for pair in pairs for part in pair]

    for key in ("orders", RETRY_KEY):
        arrival = receive(a_taken(key=key, fields=fields, count=count), a_binding(), "worker-1", 0.0)

        assert int(count > 1) == arrival.delivery.crashes


# ---- routes --------------------------------------------------------------------------------------------------------------------


def test_an_entry_goes_to_the_handler_of_its_type() -> None:
    """And any other to the handler without one."""
    refunds, rest = a_handler(name="refunds", type="refund"), a_handler(name="rest")
    binding = a_binding("orders", refunds, rest)

    assert refunds is binding.route(a_delivery(fields=[b"_type", b"refund"]))
    assert rest is binding.route(a_delivery(fields=[b"_type", b"order"]))
    assert rest is binding.route(a_delivery(fields=SOME_FIELDS))


def test_an_entry_of_unknown_type_has_no_handler() -> None:
    """Where no handler takes the rest."""
    binding = a_binding("orders", a_handler(type="refund"))

    assert binding.route(a_delivery(fields=[b"_type", b"order"])) is None
    assert binding.route(a_delivery()) is None


# ---- the newest known id -------------------------------------------------------------------------------------------------------


def test_the_newest_id_is_kept_whatever_comes_after() -> None:
    """Ids are numbers: 10 comes after 9."""
    binding = a_binding()

    for entry_id in ("9-9", "9-10", "10-0", "9-11"):
        binding.knows(entry_id)

    assert "10-0" == binding.known_id


PAIRS = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@given(PAIRS, PAIRS)
def test_ids_sort_as_redis_sorts_them(one: tuple[int, int], other: tuple[int, int]) -> None:
    """First the millisecond, then the sequence."""
    assert (one < other) == (order_of(f"{one[0]}-{one[1]}") < order_of(f"{other[0]}-{other[1]}"))


def test_an_id_without_sequence_is_the_first_of_its_millisecond() -> None:
    """As XADD and XRANGE read it."""
    assert order_of("5-0") == order_of("5")


# ---- trouble -------------------------------------------------------------------------------------------------------------------


def test_a_stream_that_cannot_be_read_is_left_alone_and_said_once() -> None:
    """The log names stream and group."""
    log = Recorder()
    binding = a_binding(log=log)

    binding.is_out_of_order(ServerError("WRONGTYPE", "it holds a string"))
    binding.is_out_of_order(ServerError("WRONGTYPE", "it holds a string"))

    assert not binding.ready
    assert binding.next_try_at > 0
    assert [("error", "stream.failing")] == [line[:2] for line in log.lines]
    facts = log.lines[0][2]
    assert ("orders", "billing", 1) == (facts["stream"], facts["group"], facts["failures"])
    assert facts["error"].startswith("it holds a string (a key holds another type")


def test_a_vanished_group_is_made_again_at_once() -> None:
    """There is nothing to wait for, and nothing to complain about."""
    log = Recorder()
    binding = a_binding(log=log)

    binding.is_missing()

    assert not binding.ready
    assert 0 == binding.next_try_at
    assert [] == log.lines
