"""What is decided about each outcome, and how long a retry waits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.delivery import (
    Abandon,
    Ack,
    Crashed,
    DeadLetter,
    Failed,
    History,
    Interrupted,
    Interruption,
    Malformed,
    Outcome,
    Outgoing,
    Reason,
    Release,
    RetryLater,
    Succeeded,
    Unroutable,
    Verdict,
)
from streamworker.errors import DecodeError, HandlerTimeout, Reject, Retry, SetupError, Snooze
from streamworker.policies import (
    FALLBACK_DELAY,
    LONGEST_DELAY,
    MAX_MISROUTES,
    TRY_ALONE_AGAIN_AFTER,
    Backoff,
    DeadLetterPolicy,
    RetryPolicy,
    decide,
    is_crash_loop,
)
from tests.factories import A_MOMENT, a_delivery

SECOND = timedelta(seconds=1)
STEADY = RetryPolicy(max_attempts=3, backoff=Backoff.constant(SECOND))

DELAYS = st.timedeltas(timedelta(0), timedelta(days=400))
ATTEMPTS = st.integers(1, 10**6)
RANDOM = st.floats(0, 1, exclude_max=True)
JITTERS = st.floats(0, 1)
BACKOFFS = st.one_of(
    st.builds(Backoff.constant, DELAYS, jitter=JITTERS),
    st.builds(Backoff.linear, DELAYS, cap=DELAYS, jitter=JITTERS),
    st.builds(Backoff.exponential, DELAYS, cap=DELAYS, factor=st.floats(1, 1e6) | st.integers(1, 10), jitter=JITTERS),
    st.builds(Backoff.steps, st.lists(DELAYS, min_size=1, max_size=4), jitter=JITTERS),
)
ERRORS = st.sampled_from(
    [ValueError("no"), HandlerTimeout("late"), Reject("no"), Retry(), Retry(after=SECOND), Snooze(after=SECOND)]
)
OUTCOMES = st.one_of(
    st.builds(Succeeded),
    st.builds(Failed, ERRORS),
    st.builds(Malformed, st.just(DecodeError("no"))),
    st.builds(Unroutable, st.none() | st.just("refund")),
    st.builds(Crashed),
    st.builds(Interrupted, st.sampled_from(Interruption)),
)


# ---- decide: one row of the table each -----------------------------------------------------------------------------------------


def test_success_is_acknowledged_with_what_it_published() -> None:
    """What the handler published goes with the acknowledgement."""
    publishes = (Outgoing("invoices", [b"order_id", b"7"]),)

    verdict = decide(Succeeded(publishes), a_delivery(), STEADY, 0.0)

    assert Ack(publishes) == verdict


@pytest.mark.parametrize("why", [Interruption.DRAIN, Interruption.NO_ROOM])
def test_an_interrupted_delivery_is_given_back_uncounted(why: Interruption) -> None:
    """Whoever reads next gets it at once, even at the last attempt."""
    verdict = decide(Interrupted(why), a_delivery(attempt=99), STEADY, 0.0)

    assert Release() == verdict


def test_a_delivery_whose_lease_was_lost_is_left_alone() -> None:
    """It is no longer ours, so nothing may be written about it."""
    verdict = decide(Interrupted(Interruption.LEASE_LOST), a_delivery(attempt=99), STEADY, 0.0)

    assert Abandon() == verdict


def test_a_malformed_entry_is_dead_lettered_on_its_first_delivery() -> None:
    """Its bytes will not change, so no attempt is worth anything."""
    error = DecodeError("cents: missing")

    verdict = decide(Malformed(error), a_delivery(attempt=1), STEADY, 0.0)

    assert DeadLetter(Reason.MALFORMED, error) == verdict


def test_an_entry_whose_worker_died_too_often_is_dead_lettered() -> None:
    """It must not take down another worker."""
    verdict = decide(Crashed(), a_delivery(crashes=4, crashes_alone=3, suspect=True), STEADY, 0.0)

    assert isinstance(verdict, DeadLetter)
    assert Reason.CRASHED == verdict.reason
    assert "3 workers died while it ran alone, without a verdict" == str(verdict.error)


def test_a_rejected_entry_is_dead_lettered_at_once() -> None:
    """The handler knows that it will never succeed."""
    error = Reject("card refused")

    verdict = decide(Failed(error), a_delivery(attempt=1), STEADY, 0.0)

    assert DeadLetter(Reason.REJECTED, error) == verdict


def test_a_snooze_waits_as_long_as_asked_and_counts_nothing() -> None:
    """Its history stays as it was."""
    delivery = a_delivery(attempt=2, crashes=1, first_failed_at=A_MOMENT, last_error="ValueError: no")

    verdict = decide(Failed(Snooze(after=30 * SECOND)), delivery, STEADY, 0.9)

    assert RetryLater(30 * SECOND, delivery.history) == verdict


def test_a_snooze_counts_where_it_is_crowded_behind_it() -> None:
    """So a key that never gets on cannot hold up all others for ever: in the end it is out of attempts."""
    snooze = Failed(Snooze(after=30 * SECOND))
    first, last = a_delivery(attempt=1), a_delivery(attempt=STEADY.max_attempts)

    assert (30 * SECOND, 2) == ((verdict := decide(snooze, first, STEADY, 0.9, crowded=True)).after, verdict.history.attempt)
    assert DeadLetter(Reason.EXHAUSTED, snooze.error) == decide(snooze, last, STEADY, 0.9, crowded=True)


def test_a_hopeless_error_is_dead_lettered_at_once() -> None:
    """Subclasses of a class in `give_up_on` are hopeless too."""
    policy = RetryPolicy(give_up_on=(LookupError,))
    error = KeyError("customer")

    verdict = decide(Failed(error), a_delivery(attempt=1), policy, 0.0)

    assert DeadLetter(Reason.UNRETRYABLE, error) == verdict


@pytest.mark.parametrize("error", [ValueError("no"), HandlerTimeout("late"), Retry(after=SECOND), Retry()])
@pytest.mark.parametrize("attempt", [3, 4])
def test_an_exhausted_entry_becomes_a_dead_letter(error: Exception, attempt: int) -> None:
    """The last attempt is the last, whatever the handler asks for."""
    verdict = decide(Failed(error), a_delivery(attempt=attempt), STEADY, 0.0)

    assert DeadLetter(Reason.EXHAUSTED, error) == verdict


def test_a_retry_waits_as_long_as_asked_and_counts() -> None:
    """What the handler asks for goes before the backoff; the crashes stay as they are."""
    error = Retry(after=30 * SECOND)

    verdict = decide(Failed(error), a_delivery(attempt=2, crashes=1), STEADY, 0.9)

    assert RetryLater(30 * SECOND, History(attempt=3, crashes=1), error) == verdict


@pytest.mark.parametrize("error", [Retry("again"), HandlerTimeout("late"), ValueError("no"), SystemExit(1), KeyboardInterrupt()])
def test_any_other_failure_waits_for_the_backoff(error: BaseException) -> None:
    """The attempt that failed decides how long."""
    policy = RetryPolicy(backoff=Backoff.linear(SECOND))

    verdict = decide(Failed(error), a_delivery(attempt=2), policy, 0.0)

    assert RetryLater(2 * SECOND, History(attempt=3), error) == verdict


def test_an_entry_without_a_handler_waits_for_a_newer_worker() -> None:
    """Uncounted as an attempt, with growing pauses."""
    first = decide(Unroutable("refund", ("order",)), a_delivery(attempt=2), STEADY, 0.5)
    later = decide(Unroutable("refund", ("order",)), a_delivery(attempt=2, misrouted=4), STEADY, 0.5)

    assert isinstance(first, RetryLater)
    assert isinstance(later, RetryLater)
    assert (SECOND, History(attempt=2, misrouted=1)) == (first.after, first.history)
    assert (16 * SECOND, History(attempt=2, misrouted=5)) == (later.after, later.history)
    assert "no handler of this worker takes an entry with _type 'refund': it knows 'order'" == str(first.error)


def test_an_entry_without_a_handler_waits_a_bounded_number_of_times() -> None:
    """Then it is set aside, so that it does not go round for ever."""
    delivery = a_delivery()
    waited = timedelta(0)
    verdict: Verdict = decide(Unroutable(None), delivery, STEADY, 0.0)
    rounds = 0
    while isinstance(verdict, RetryLater):
        rounds += 1
        waited += verdict.after
        verdict = decide(Unroutable(None), a_delivery(misrouted=verdict.history.misrouted), STEADY, 0.0)

    assert isinstance(verdict, DeadLetter)
    assert Reason.UNROUTABLE == verdict.reason
    assert "no _type" in str(verdict.error)
    assert MAX_MISROUTES == rounds
    assert timedelta(minutes=4) < waited < timedelta(minutes=7)


# ---- decide: which row goes first ----------------------------------------------------------------------------------------------


def test_reject_goes_before_everything_else() -> None:
    """Even where its class is hopeless and the attempts are used up."""
    policy = RetryPolicy(max_attempts=1, give_up_on=(Exception,))
    error = Reject("no")

    assert DeadLetter(Reason.REJECTED, error) == decide(Failed(error), a_delivery(attempt=9), policy, 0.0)


def test_snooze_goes_before_give_up_and_the_limit() -> None:
    """It counts nothing, so no limit applies to it."""
    policy = RetryPolicy(max_attempts=1, give_up_on=(Exception,))
    delivery = a_delivery(attempt=9)

    assert RetryLater(SECOND, delivery.history) == decide(Failed(Snooze(after=SECOND)), delivery, policy, 0.0)


@pytest.mark.parametrize("error", [ValueError("no"), Retry(after=SECOND)])
def test_give_up_goes_before_the_limit(error: Exception) -> None:
    """The dead letter names the better reason."""
    policy = RetryPolicy(max_attempts=1, give_up_on=(Exception,))

    assert DeadLetter(Reason.UNRETRYABLE, error) == decide(Failed(error), a_delivery(attempt=9), policy, 0.0)


@pytest.mark.parametrize(("error", "counted"), [(Retry, True), (Snooze, False)])
@pytest.mark.parametrize(("asked", "waits"), [(timedelta(-1), timedelta(0)), (timedelta.max, LONGEST_DELAY)])
def test_a_delay_that_no_clock_can_hold_is_bounded(
    error: Callable[..., Exception], counted: bool, asked: timedelta, waits: timedelta
) -> None:
    """Nothing waits less than nothing or more than a year."""
    verdict = decide(Failed(error(after=asked)), a_delivery(), STEADY, 0.0)

    assert isinstance(verdict, RetryLater)
    assert waits == verdict.after
    assert (2 if counted else 1) == verdict.history.attempt


@given(OUTCOMES, st.integers(1, 10), st.integers(1, 10), BACKOFFS, RANDOM)
def test_every_outcome_has_a_verdict(outcome: Outcome, attempt: int, limit: int, backoff: Backoff, random: float) -> None:
    """An ack only for a success, never a counted retry at or past the limit, and the attempt grows by one or not at all."""
    verdict = decide(outcome, a_delivery(attempt=attempt), RetryPolicy(max_attempts=limit, backoff=backoff), random)

    assert isinstance(outcome, Succeeded) == isinstance(verdict, Ack)
    if isinstance(verdict, RetryLater):
        assert verdict.history.attempt == attempt or (verdict.history.attempt == attempt + 1 <= limit)
        assert timedelta(0) <= verdict.after <= LONGEST_DELAY


@given(st.integers(0, 10), st.integers(1, 10))
def test_a_crash_loop_begins_at_the_limit(crashes: int, limit: int) -> None:
    """One death alone fewer, and it may run once more; deaths in company prove nothing, however many."""
    delivery = a_delivery(crashes=100, crashes_alone=crashes, suspect=True)

    assert (crashes >= limit) == is_crash_loop(delivery, RetryPolicy(max_crashes=limit))


def test_what_ran_to_an_end_may_run_in_company_again() -> None:
    """Its crashes stay written down."""
    delivery = a_delivery(crashes=2, crashes_alone=1, suspect=True)

    for error in (ValueError("no"), Snooze(after=SECOND)):
        verdict = decide(Failed(error), delivery, STEADY, 0.0)

        assert isinstance(verdict, RetryLater)
        assert (2, 1, False) == (verdict.history.crashes, verdict.history.crashes_alone, verdict.history.suspect)


def test_what_could_not_be_alone_waits_uncounted() -> None:
    """For another worker, or a quieter hour; it stays a suspect."""
    delivery = a_delivery(attempt=2, crashes=1, suspect=True)

    assert RetryLater(TRY_ALONE_AGAIN_AFTER, delivery.history) == decide(Interrupted(Interruption.NOT_ALONE), delivery, STEADY, 0.0)


def test_what_makes_room_for_one_that_must_be_alone_is_given_back() -> None:
    """At once, and uncounted."""
    assert Release() == decide(Interrupted(Interruption.MAKES_ROOM), a_delivery(), STEADY, 0.0)


# ---- backoff -------------------------------------------------------------------------------------------------------------------


@given(BACKOFFS, ATTEMPTS, RANDOM)
def test_a_delay_is_never_negative_and_never_above_its_base(backoff: Backoff, attempt: int, random: float) -> None:
    """Jitter takes off, it never adds; a million attempts overflow nothing."""
    delay = backoff.delay(attempt, random)

    assert timedelta(0) <= delay <= min(backoff.base(attempt), LONGEST_DELAY)


@given(DELAYS, DELAYS, st.floats(1, 1e6) | st.integers(1, 10), ATTEMPTS)
def test_an_exponential_backoff_never_exceeds_its_cap_and_never_shrinks(
    first: timedelta, cap: timedelta, factor: float, attempt: int
) -> None:
    """Whatever the factor and the attempt."""
    backoff = Backoff.exponential(first, cap=cap, factor=factor, jitter=0)

    assert backoff.delay(attempt, 0.0) <= backoff.delay(attempt + 1, 0.0) <= cap


@given(DELAYS, DELAYS, ATTEMPTS)
def test_a_linear_backoff_never_exceeds_its_cap_and_never_shrinks(first: timedelta, cap: timedelta, attempt: int) -> None:
    """Whatever the attempt."""
    backoff = Backoff.linear(first, cap=cap)

    assert backoff.delay(attempt, 0.0) <= backoff.delay(attempt + 1, 0.0) <= cap


@given(ATTEMPTS)
def test_nothing_times_anything_is_nothing(attempt: int) -> None:
    """A backoff that begins with zero stays there, and does not jump to its cap where the power overflows."""
    assert timedelta(0) == Backoff.exponential(timedelta(0), factor=10.0).delay(attempt, 0.0)


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        (Backoff.constant(2 * SECOND), [2, 2, 2, 2, 2]),
        (Backoff.linear(2 * SECOND, cap=7 * SECOND), [2, 4, 6, 7, 7]),
        (Backoff.exponential(SECOND, cap=7 * SECOND, jitter=0), [1, 2, 4, 7, 7]),
        (Backoff.exponential(SECOND, factor=1, jitter=0), [1, 1, 1, 1, 1]),
        (Backoff.exponential(SECOND, factor=3, jitter=0), [1, 3, 9, 27, 81]),
        (Backoff.steps([SECOND, 5 * SECOND, 3 * SECOND]), [1, 5, 3, 3, 3]),
        (Backoff.by(lambda attempt: attempt * attempt * SECOND), [1, 4, 9, 16, 25]),
    ],
)
def test_each_backoff_has_its_series(backoff: Backoff, expected: list[int]) -> None:
    """The first five delays, without chance."""
    assert expected == [backoff.delay(attempt, 0.0) / SECOND for attempt in range(1, 6)]


@pytest.mark.parametrize("jitter", [0.25, 1.0])
def test_jitter_covers_its_whole_range_evenly(jitter: float) -> None:
    """A thousand even random numbers give a thousand even delays, from the base down to the share that chance may take off."""
    backoff = Backoff.constant(1000 * SECOND, jitter=jitter)
    lowest = 1000 * (1 - jitter)

    delays = sorted(backoff.delay(1, number / 1000) / SECOND for number in range(1000))

    assert 1000 == delays[-1]
    assert lowest < delays[0] <= lowest + jitter
    assert all(abs((after - before) - jitter) < 1e-5 for before, after in pairwise(delays))


@pytest.mark.parametrize("given", [timedelta(-1), timedelta.max])
def test_a_users_own_backoff_is_bounded(given: timedelta) -> None:
    """Between nothing and a year."""
    delay = Backoff.by(lambda _: given if _ > 1 else SECOND).delay(2, 0.0)

    assert min(max(given, timedelta(0)), LONGEST_DELAY) == delay


def _raise(attempt: int) -> timedelta:
    if attempt > 1:
        raise IndexError(attempt)
    return SECOND


@pytest.mark.parametrize("base", [_raise, lambda attempt: SECOND if attempt == 1 else None])
def test_a_users_own_backoff_that_fails_does_not_stop_the_worker(base: Callable[[int], timedelta]) -> None:
    """The entry waits for a fixed while instead."""
    assert FALLBACK_DELAY == Backoff.by(base).delay(2, 0.0)


# ---- wrong arguments -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Backoff.constant(5), "delay is a timedelta"),
        (lambda: Backoff.constant(-SECOND), "delay cannot be negative"),
        (lambda: Backoff.linear(None), "first is a timedelta"),
        (lambda: Backoff.linear(SECOND, cap=60), "cap is a timedelta"),
        (lambda: Backoff.exponential(1), "first is a timedelta"),
        (lambda: Backoff.exponential(cap=-SECOND), "cap cannot be negative"),
        (lambda: Backoff.exponential(factor=0.5), "factor is at least 1"),
        (lambda: Backoff.exponential(factor=float("nan")), "factor is at least 1"),
        (lambda: Backoff.exponential(factor="2"), "factor is at least 1"),
        (lambda: Backoff.exponential(jitter=1.5), "jitter is a share between 0 and 1"),
        (lambda: Backoff.constant(SECOND, jitter=-0.1), "jitter is a share between 0 and 1"),
        (lambda: Backoff.constant(SECOND, jitter="full"), "jitter is a share between 0 and 1"),
        (lambda: Backoff.constant(SECOND, jitter=float("nan")), "jitter is a share between 0 and 1"),
        (lambda: Backoff.steps([]), "at least one delay"),
        (lambda: Backoff.steps([SECOND, 2]), "every delay is a timedelta"),
        (lambda: Backoff.by(lambda _: 5), "attempt 1 is a timedelta"),
        (lambda: Backoff(SECOND), "base is a function"),
        (lambda: RetryPolicy(max_attempts=0), "max_attempts is a whole number of at least 1"),
        (lambda: RetryPolicy(max_attempts="5"), "max_attempts is a whole number of at least 1"),
        (lambda: RetryPolicy(max_attempts=None), "max_attempts is a whole number of at least 1"),
        (lambda: RetryPolicy(max_crashes=0), "max_crashes is a whole number of at least 1"),
        (lambda: RetryPolicy(max_crashes=1.5), "max_crashes is a whole number of at least 1"),
        (lambda: RetryPolicy(backoff=SECOND), "Backoff.exponential()"),
        (lambda: RetryPolicy(give_up_on="ValueError"), "exception classes"),
        (lambda: RetryPolicy(give_up_on=(ValueError("no"),)), "exception classes"),
        (lambda: RetryPolicy(give_up_on=[ValueError, int]), "exception classes"),
        (lambda: DeadLetterPolicy(keep_last=0), "keep_last is a whole number of at least 1, or None"),
        (lambda: DeadLetterPolicy(keep_last="all"), "keep_last is a whole number of at least 1, or None"),
        (lambda: Retry(after=30), "Retry(after=…) is a timedelta"),
        (lambda: Snooze(after=30), "Snooze(after=…) is a timedelta"),
    ],
)
def test_a_wrong_argument_fails_with_a_sentence(make: Callable[[], Any], says: str) -> None:
    """Where it is written, not at the first failure in production."""
    with pytest.raises(SetupError) as caught:
        make()

    assert says in str(caught.value)


@pytest.mark.parametrize("given", [ValueError, [ValueError], (ValueError,), {ValueError}, frozenset({ValueError})])
def test_give_up_on_takes_one_class_or_several(given: Any) -> None:
    """Whatever was given, a tuple of classes is kept."""
    assert (ValueError,) == RetryPolicy(give_up_on=given).give_up_on


@pytest.mark.parametrize("word", [Retry, Snooze])
@pytest.mark.parametrize("number", [5, 2.5, timedelta(seconds=5)], ids=str)
def test_a_number_is_no_reason_to_wait(word: type[Retry | Snooze], number: Any) -> None:
    """Who means seconds is told how to say when."""
    with pytest.raises(SetupError, match=rf"write {word.__name__}\(after=timedelta"):
        word(number, after=timedelta(seconds=1))
