"""Which entries are handled together, when, and what happened to each: decided without a server, a clock or a loop."""

from __future__ import annotations

from datetime import timedelta

import pytest

from streamworker.batching import BatchContext
from streamworker.delivery import SUCCEEDED, Failed, Interrupted, Interruption, Outcome, Outgoing, Succeeded
from streamworker.errors import EntryFailed, Reject
from streamworker.policies import BatchLimits, judge_entry
from streamworker.worker.batches import Batch, Line
from streamworker.worker.trips import BatchedTrip
from tests.factories import a_delivery, a_handler, a_publish


def a_trip(size: int = 10) -> BatchedTrip:
    return BatchedTrip(a_delivery(fields=[b"x" * size]), a_handler())


def a_line(*, max_size: int = 3, max_wait: float = 1.0, max_bytes: int | None = None, places: int = 1) -> Line:
    return Line(a_handler(), BatchLimits(max_size, timedelta(seconds=max_wait), max_bytes), places)


def length(batch: Batch | None) -> int | None:
    return None if batch is None else len(batch.trips)


# ---- the line --------------------------------------------------------------------------------------------------------------------


def test_of_a_batch_only_so_many_entries_start_as_may() -> None:
    """The rest goes first the next time, and counts as waiting; without leave nothing does."""
    line = a_line(places=3)
    for size in (1, 20, 300):
        line.put(a_trip(size), 0.0)

    assert (3, 3) == (line.waiting, line.due(0.0))
    assert line.take(0.0, 0) is None
    first, rest = line.take(0.0, 1), line.take(0.0, 5)
    assert first is not None
    assert rest is not None
    assert ([1], [20, 300]) == ([trip.delivery.size for trip in first.trips], [trip.delivery.size for trip in rest.trips])
    assert (1, 320) == (first.size, rest.size)
    assert (0, 0) == (line.waiting, line.due(0.0))


def test_a_batch_is_closed_when_it_is_full() -> None:
    """Only what opens or closes one has to be looked after."""
    line = a_line(places=2)

    assert [True, False, True] == [line.put(a_trip(), 0.0) for _ in range(3)]
    assert 3 == length(line.take(0.0))
    assert line.take(0.0) is None


def test_a_batch_that_is_not_full_may_start_after_its_time() -> None:
    """Counted from its first entry."""
    line = a_line()
    line.put(a_trip(), 0.0)
    line.put(a_trip(), 0.9)

    assert 1.0 == line.due_at(0.9)
    assert line.take(0.9) is None
    assert 2 == length(line.take(1.1))
    assert line.due_at(1.1) is None


def test_a_batch_whose_time_has_come_goes_on_growing_until_there_is_a_place() -> None:
    """So that a busy handler is given full batches."""
    line = a_line()
    line.put(a_trip(), 0.0)
    assert 1 == length(line.take(2.0))
    line.put(a_trip(), 2.0)

    assert line.take(4.0) is None
    assert line.due_at(4.0) is None, "time alone will not start it"
    line.put(a_trip(), 4.0)
    line.release()
    assert 2 == length(line.take(4.0))


def test_full_batches_start_before_those_that_still_grow_in_the_order_of_their_entries() -> None:
    """And never more at once than there are places."""
    line = a_line(max_size=2, places=2)
    trips = [a_trip() for _ in range(5)]
    for trip in trips:
        line.put(trip, 0.0)
    first, second, third = line.take(9.0), line.take(9.0), line.take(9.0)

    assert first is not None
    assert second is not None
    assert third is None
    assert trips[:4] == [*first.trips, *second.trips]


@pytest.mark.parametrize(
    ("sizes", "batches"),
    [((40, 40, 40), [2]), ((60, 60), [1]), ((100, 10), [1]), ((500,), [1]), ((10, 500, 10), [1, 1]), ((50, 50, 10), [2])],
)
def test_a_batch_is_closed_before_it_holds_too_many_bytes(sizes: tuple[int, ...], batches: list[int]) -> None:
    """An entry that is too large by itself is alone; the last one given here still waits for its time, or is full."""
    line = a_line(max_size=99, max_bytes=100, places=9)
    for size in sizes:
        line.put(a_trip(size), 0.0)
    taken = []
    while (batch := line.take(0.0)) is not None:
        taken.append(len(batch.trips))

    assert batches == taken


def test_nothing_is_taken_in_the_moment_in_which_it_came() -> None:
    """With a wait of nothing, what is read together is still handled together."""
    line = a_line(max_wait=0.0)
    line.put(a_trip(), 5.0)

    assert line.take(5.0) is None
    assert 5.0 == line.due_at(5.0)
    line.put(a_trip(), 5.0)
    assert 2 == length(line.take(5.001))


def test_a_batch_may_be_hastened_or_closed() -> None:
    """Where there is no memory to fill it, or nothing more will come."""
    line = a_line(places=2)
    assert not line.hasten(0.0)
    line.put(a_trip(), 0.0)

    assert line.hasten(0.5)
    assert not line.hasten(0.6)
    assert 1 == length(line.take(0.6))
    line.put(a_trip(), 0.7)
    line.close()
    assert 1 == length(line.take(0.7))


def test_what_waits_can_be_taken_out_and_what_runs_still_counts() -> None:
    """Closed batches and the open one."""
    line = a_line(max_size=2)
    for _ in range(5):
        line.put(a_trip(), 0.0)
    assert 2 == length(line.take(0.0))

    assert 3 == len(line.clear())
    assert [] == line.clear()
    line.release()
    with pytest.raises(ValueError, match="no batch runs"):
        line.release()


def test_what_runs_beside_takes_a_place() -> None:
    """An entry that has run alone and goes on in company."""
    line = a_line(max_size=1)
    line.join()
    line.put(a_trip(), 0.0)

    assert line.take(0.0) is None
    line.release()
    assert 1 == length(line.take(0.0))


# ---- each entry's outcome ------------------------------------------------------------------------------------------------------------

ERROR, OWN = ValueError("all"), Reject("this one")
OUT = (Outgoing("invoices", []),)


@pytest.mark.parametrize(
    ("of_all", "error", "publishes", "of_one"),
    [
        (SUCCEEDED, None, (), SUCCEEDED),
        (SUCCEEDED, None, OUT, Succeeded(OUT)),
        (SUCCEEDED, OWN, OUT, Failed(OWN)),
        (Failed(ERROR), None, OUT, Failed(ERROR)),
        (Failed(ERROR), OWN, (), Failed(OWN)),
        (Interrupted(Interruption.DRAIN), OWN, OUT, Interrupted(Interruption.DRAIN)),
    ],
)
def test_what_happened_to_one_entry(
    of_all: Outcome, error: BaseException | None, publishes: tuple[Outgoing, ...], of_one: Outcome
) -> None:
    """Its own error before the batch's; what it publishes only where it succeeded; an interruption is nobody's failure."""
    assert of_one == judge_entry(of_all, error, publishes)


def test_what_is_said_of_a_position_is_kept_for_it() -> None:
    """A text becomes an error; the last word counts; everything can be taken back."""
    context = BatchContext([a_delivery(), a_delivery()], a_handler(), [{}, {}], {}, a_publish)
    assert context.is_all_good
    context.fail(1, "not stored")
    context.publish(0, "invoices", {"n": 1})
    error, publishes = context.said_of(1)

    assert isinstance(error, EntryFailed)
    assert "not stored" == str(error)
    assert () == publishes
    assert (None, "invoices") == (context.said_of(0)[0], context.said_of(0)[1][0].stream)
    context.fail(1, OWN)
    assert OWN is context.said_of(1)[0]
    context.forget()
    assert context.is_all_good


@pytest.mark.parametrize("position", [2, -1, "0", 1.0, None])
def test_a_position_that_there_is_not_is_refused(position: object) -> None:
    """From the end is no position either."""
    context = BatchContext([a_delivery(), a_delivery()], a_handler(), [{}, {}], {}, a_publish)

    with pytest.raises(IndexError, match="a batch of 2 entries has no position"):
        context.fail(position, "no")  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="count from 0"):
        context.publish(position, "invoices", {})  # type: ignore[arg-type]


def test_a_context_knows_when_its_time_ends_and_which_entries_are_lost() -> None:
    """No deadline without a timeout; lost entries by position."""
    deliveries = [a_delivery(), a_delivery()]
    context = BatchContext(deliveries, a_handler(timeout=timedelta(seconds=5)), [{}, {}], {}, a_publish)
    deliveries[1].lease.lost = True

    assert context.deadline is not None
    assert BatchContext(deliveries, a_handler(), [{}, {}], {}, a_publish).deadline is None
    assert [1] == context.lost
