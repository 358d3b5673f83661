"""What goes to a process of a handler and comes back is what went in, whatever it holds."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.delivery import DeadLetter as Verdict
from streamworker.delivery import Failed, History, Interrupted, Interruption, Outgoing, Reason, RetryLater, Succeeded
from streamworker.effects import Write
from streamworker.errors import HandlerDied, HandlerFailed, Reject, Retry, Snooze
from streamworker.observe.descriptions import describe, trace
from streamworker.policies import Backoff, RetryPolicy, decide
from streamworker.worker.calls import Hello, read_call, read_hello, read_outcome, write_call, write_hello, write_outcome
from tests.factories import a_delivery

fields = st.lists(st.tuples(st.binary(), st.binary()), max_size=4).map(lambda pairs: [part for pair in pairs for part in pair])
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
publishes = st.builds(Outgoing, names, fields, st.none() | st.integers(1), st.booleans())
writes = st.builds(Write, st.sampled_from(["SET", "HSET"]), names, st.lists(st.binary(), max_size=3).map(tuple))
histories = st.builds(
    History,
    attempt=st.integers(1, 99),
    crashes=st.integers(0, 9),
    crashes_alone=st.integers(0, 9),
    first_failed_at=st.none() | st.datetimes().map(lambda moment: moment.replace(tzinfo=UTC)),
    last_error=st.none() | names,
)
POLICY = RetryPolicy(max_attempts=3, backoff=Backoff.constant(timedelta(seconds=1)), give_up_on=(KeyError, ConnectionResetError))


@given(histories, fields, names, names)
def test_a_delivery_arrives_as_it_was(history: History, values: list[bytes], stream: str, handler: str) -> None:
    """Id, fields byte for byte, history, names."""
    delivery = a_delivery(stream=stream, fields=values)
    delivery.history = history

    found, name = read_call(write_call(delivery, handler))

    assert handler == name
    for fact in ("id", "stream", "group", "consumer", "fields", "history", "headers", "attempt", "crashes"):
        assert getattr(delivery, fact) == getattr(found, fact)
    assert not found.lease.lost


@given(st.lists(publishes).map(tuple), st.lists(writes).map(tuple))
def test_what_a_handler_asks_for_comes_back_as_it_was(published: tuple[Outgoing, ...], written: tuple[Write, ...]) -> None:
    """Entries and writes, in their order."""
    outcome = Succeeded(published, written)

    assert outcome == read_outcome(write_outcome(outcome, POLICY))


def test_the_greeting_arrives_as_it_was() -> None:
    """A process knows by it where the program is."""
    hello = Hello("sums:app", False, "/srv", ["/srv", "/lib"], ["add"], {"log_level": "info", "redis_url": "redis://a"}, 7)

    assert hello == read_hello(write_hello(hello))


class CardRefused(Reject):
    """A user's own rejection."""


class Busy(Retry, ConnectionResetError):
    """A retry that is given up on."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        ValueError("half a pair: \ud800"),
        KeyError("gone"),
        ConnectionResetError(),
        Reject("never"),
        CardRefused("stolen"),
        Retry("later"),
        Retry(after=timedelta(seconds=7)),
        Busy("full"),
        Snooze("not yet", after=timedelta(milliseconds=1500)),
        SystemExit(3),
        BaseExceptionGroup("two", [KeyboardInterrupt(), ValueError()]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("attempt", [1, 3])
def test_an_error_is_decided_about_and_described_as_where_it_was_raised(error: BaseException, attempt: int) -> None:
    """As if the worker had caught it itself."""
    try:
        raise error
    except BaseException as raised:
        caught = raised
    told = read_outcome(write_outcome(Failed(caught), POLICY))
    assert isinstance(told, BaseException)

    here, there = (decide(Failed(one), a_delivery(attempt=attempt), POLICY, 0.5) for one in (caught, told))

    assert type(here) is type(there)
    if isinstance(here, Verdict) and isinstance(there, Verdict):
        assert here.reason == there.reason
    if isinstance(here, RetryLater) and isinstance(there, RetryLater):
        assert (here.after, here.history) == (there.after, there.history)
    assert (describe(caught), trace(caught)) == (describe(told), trace(told))


def test_what_never_comes_of_a_handler_is_not_sent() -> None:
    """It would be read as something else."""
    with pytest.raises(TypeError, match="comes to no Interrupted"):
        write_outcome(Interrupted(Interruption.DRAIN), POLICY)


def test_a_death_counts_as_a_crash_and_as_no_attempt_until_it_is_one_too_many() -> None:
    """Not even where nothing is retried: a death is no failure."""
    once = RetryPolicy(max_attempts=1, max_crashes=2, backoff=Backoff.constant(timedelta(seconds=1)), give_up_on=Exception)
    died = Failed(HandlerDied("the process of the handler ended with SIGKILL"))

    first = decide(died, a_delivery(), once, 0.5)
    assert isinstance(first, RetryLater)
    assert (1, 1, 1, False) == (first.history.attempt, first.history.crashes, first.history.crashes_alone, first.history.suspect)
    assert first.after <= timedelta(seconds=1)

    second = decide(died, a_delivery(crashes=2, crashes_alone=1), once, 0.5)
    assert isinstance(second, Verdict)
    assert (Reason.CRASHED, 3) == (second.reason, second.crashes)
    assert "WorkerDied: the process of the handler ended with SIGKILL, and 1 more died of it before" == describe(
        second.error or died.error
    )


def test_an_error_of_a_process_is_known_by_its_words() -> None:
    """And where it led to another one, that one by its own."""
    told = HandlerFailed("ValueError: no", "the trace")

    assert ("ValueError: no", "the trace") == (describe(told), trace(told))
    worse = RuntimeError("worse")
    worse.__cause__ = told
    assert "RuntimeError: worse" == describe(worse)
    assert "caused by ValueError: no" in trace(worse)
