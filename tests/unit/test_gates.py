"""Rates, permits, kill switches and gates as pure things, and what a registration may say of them."""

from __future__ import annotations

import heapq
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamworker import KillSwitch, RateLimit, StreamWorker
from streamworker.delivery import ACK, DeadLetter, Interrupted, Interruption, Reason, Release, RetryLater, Verdict
from streamworker.errors import SetupError
from streamworker.flow import Timing
from streamworker.policies import RetryPolicy, decide
from streamworker.worker.gate import LONGEST_WAIT, Gate
from streamworker.worker.kill_switch import Change, Switch, is_good
from streamworker.worker.permits import Permits
from tests.factories import a_delivery

SECOND = timedelta(seconds=1)


# ---- what may be said ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"count": 0}, "at least 1, not 0: to let nothing start, pause the handler"),
        ({"count": -5}, "at least 1, not -5"),
        ({"count": 1.5}, "whole number"),
        ({"count": True}, "whole number"),
        ({"count": 1, "per": timedelta(0)}, "per is a positive timedelta"),
        ({"count": 1, "per": 60}, "per is a positive timedelta"),
        ({"count": 1, "burst": 0}, "burst is a whole number of at least 1, not 0"),
        ({"count": 100, "burst": 3}, "burst is a whole number of at least 11: at this rate"),
    ],
)
def test_a_wrong_rate_limit_is_refused_with_the_repair(values: dict[str, Any], words: str) -> None:
    """When it is made, which is at import."""
    with pytest.raises(SetupError, match=words):
        RateLimit(**values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"after": 0}, "after is a whole number of at least 1"),
        ({"share": 0}, "share is above 0 and at most 1"),
        ({"share": 50}, "share is above 0 and at most 1"),
        ({"rest": timedelta(0)}, "rest is a positive timedelta"),
    ],
)
def test_a_wrong_kill_switch_is_refused_with_the_repair(values: dict[str, Any], words: str) -> None:
    """When it is made."""
    with pytest.raises(SetupError, match=words):
        KillSwitch(**values)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate_limit": 100}, "rate_limit is a RateLimit, for example"),
        ({"kill_switch": True}, "kill_switch is a KillSwitch"),
    ],
)
def test_what_is_no_limit_is_refused_at_registration(options: dict[str, Any], words: str) -> None:
    """With the name of the handler."""
    app = StreamWorker(group="g")

    with pytest.raises(SetupError, match=f"handler 'charge': {words}"):

        @app.handler("orders", **options)
        async def charge(order: dict[str, str]) -> None: ...


def test_a_batch_that_could_never_start_is_refused_at_registration() -> None:
    """More entries than the rate lets start together."""
    app = StreamWorker(group="g")

    with pytest.raises(SetupError, match="takes up to 500 entries at once, but its rate_limit lets 90 start together"):

        @app.batch_handler("orders", max_size=500, rate_limit=RateLimit(100))
        async def charge(orders: list[dict[str, str]]) -> None: ...


@pytest.mark.parametrize("option", ["rate_limit", "kill_switch"])
def test_a_listener_can_have_no_gate(option: str) -> None:
    """It hears each entry as it comes, in every process."""
    app = StreamWorker(group="g")
    options: dict[str, Any] = {option: RateLimit(5)}

    with pytest.raises(SetupError, match=f"a listener cannot have {option}=: .* @app.handler"):

        @app.listener("prices", **options)
        async def hear(price: dict[str, str]) -> None: ...


# ---- rates -------------------------------------------------------------------------------------------------------------------


class Server:
    """What `permits.lua` does, on a clock of its own that is `offset` away from the workers'."""

    def __init__(self, timing: Timing, offset: float) -> None:
        self.timing, self.offset, self.free = timing, offset, 0

    def ask(self, at: float, wanted: int, *, together: bool) -> tuple[int, int, int, int]:
        now = round((at + self.offset) * 1e6)
        ahead = wanted * self.timing.interval_us if together else 0
        first = free = max(self.free, now - self.timing.back_us)
        count = 0
        if together and free <= now + ahead:
            count = wanted
        elif not together and free <= now:
            count = min(wanted, (now - free) // self.timing.interval_us + 1)
        if count:
            self.free = free = free + count * self.timing.interval_us
        return now, first, count, free


limits = st.one_of(
    st.builds(RateLimit, st.integers(1, 2_000), st.sampled_from([SECOND, SECOND / 10, 10 * SECOND, 60 * SECOND])),
    st.builds(lambda burst: RateLimit(100, SECOND, burst), st.integers(11, 500)),
    st.builds(lambda count, burst: RateLimit(count, 60 * SECOND, burst), st.integers(1, 60), st.integers(1, 5)),
)


@settings(max_examples=60, deadline=None)
@given(limit=limits, workers=st.integers(1, 4), seed=st.integers(0, 10_000), together=st.booleans())
def test_a_fleet_never_starts_more_than_its_rate_and_burst(limit: RateLimit, workers: int, seed: int, together: bool) -> None:
    """Over any length of time: with slow replies, lost replies, pauses of whole workers, and permits that are used as late as they may."""
    random, timing = Random(seed), limit.timing
    server = Server(timing, offset=random.uniform(1e3, 1e6))
    held = [Permits(timing, 5 if together else 1) for _ in range(workers)]
    starts: list[float] = []
    span = min(120.0, max(3.0, 12 * timing.interval_us / 1e6))
    turns = [(random.uniform(0, 0.1), number) for number in range(workers)]
    heapq.heapify(turns)
    while len(starts) < 3_000:
        now, number = heapq.heappop(turns)
        if now > span:
            break
        permits = held[number]
        usable = permits.usable(now)
        if usable and random.random() < 0.8:
            count = random.randint(1, usable)
            permits.use(count, now)
            starts += [now] * count
        elif permits.ask_at(now) <= now:
            sent, came = now, now + random.choice((0.0002, 0.003, 0.2))
            wanted = random.randint(1, min(5, timing.most_at_once)) if together else random.randint(1, 200)
            granted = server.ask(random.uniform(sent, came), wanted, together=together)
            if random.random() < 0.9:
                permits.grant(*granted, sent, came)
            now = came
        heapq.heappush(turns, (now + random.choice((0.0, 0.001, 0.05, 1.0)) * random.random() + 1e-6, number))

    rate, burst = limit.count / limit.per.total_seconds(), limit.burst or 0
    for position, start in enumerate(starts):
        for later in range(position, min(len(starts), position + 400)):
            most = rate * (starts[later] - start) + burst
            assert later - position + 1 <= most + 1e-6


@given(limit=limits)
def test_a_fleet_that_asks_in_time_gets_its_rate(limit: RateLimit) -> None:
    """Nothing of it is lost but what keeps single starts apart, a tenth at most."""
    timing = limit.timing
    server, permits = Server(timing, 100.0), Permits(timing)
    now, started, interval = 0.0, 0, timing.interval_us / 1e6
    # What is there at the beginning is the burst.
    for _ in range(300):
        granted = server.ask(now, 10_000, together=False)
        permits.grant(*granted, now, now)
        usable = permits.usable(now)
        permits.use(usable, now)
        started += usable
        now = max(permits.ask_at(now), now + min(0.02, max(interval, timing.back_us / 2e6)))

    rate = limit.count / limit.per.total_seconds()
    assert started >= 0.89 * rate * (now - 2 * interval) - 2


def test_permits_that_were_not_used_in_time_are_worth_nothing() -> None:
    """They would come on top of those that are granted later."""
    permits = Permits(RateLimit(10, SECOND, burst=3).timing)
    permits.grant(1_000_000, 900_000, 2, 1_100_000, 5.0, 5.001)

    assert 2 == permits.usable(5.05)
    assert 1 == permits.usable(5.15)
    assert 0 == permits.usable(5.21)


def test_a_chunk_grows_as_long_as_nothing_of_it_goes_to_waste() -> None:
    """So that a fast handler asks seldom, and a slow one takes nothing from others."""
    permits = Permits(RateLimit(400).timing)
    asked = []
    for turn in range(6):
        wanted = permits.wanted(100, 1, float(turn))
        asked.append(wanted)
        permits.grant(10_000_000, 9_950_000, wanted, 10_000_000, float(turn), float(turn))
        permits.use(wanted, float(turn))
    assert [1, 1, 3, 3, 7, 7] == asked

    permits.grant(10_000_000, 9_950_000, 5, 10_000_000, 10.0, 10.0)
    before = permits.wanted(100, 1, 10.5)
    assert 0 == permits.usable(20.0)
    permits.grant(10_000_000, 9_950_000, 1, 10_000_000, 20.0, 20.0)
    assert before > permits.wanted(100, 1, 25.0)


# ---- kill switches -----------------------------------------------------------------------------------------------------------


def tripped(rest: float = 30.0) -> Switch:
    switch = Switch(KillSwitch(after=4, share=0.5, rest=timedelta(seconds=rest)))
    changes = [switch.note(good, 0.0, 100.0) for good in (True, False, True, False)]
    assert [None, None, None, Change.TRIPPED] == changes
    return switch


def test_a_switch_trips_at_its_share_of_its_last_results_and_not_before() -> None:
    """Fewer results say too little, and older ones do not count any more."""
    switch = Switch(KillSwitch(after=4, share=0.5))
    for good in (False, True, True, True, True, False, True):
        assert switch.note(good, 0.0, 0.0) is None
    assert switch.note(None, 0.0, 0.0) is None
    assert None is switch.may_start(0.0)
    assert Change.TRIPPED is switch.note(False, 0.0, 0.0)


def test_a_switch_that_has_tripped_tries_one_after_its_rest() -> None:
    """What was under way does not count; a failure rests again, a success is the end of it, with nothing remembered."""
    switch = tripped()
    assert [0, 0, 1] == [switch.may_start(at) for at in (100.0, 129.0, 130.0)]

    switch.began(7.0)
    assert 0 == switch.may_start(130.0)
    assert switch.note(True, 6.0, 131.0) is None
    assert Change.TRIPPED is switch.note(False, 7.0, 131.0)
    assert [0, 1] == [switch.may_start(at) for at in (160.0, 161.0)]

    switch.began(8.0)
    assert switch.note(None, 8.0, 162.0) is None
    assert 1 == switch.may_start(162.0)
    switch.began(9.0)
    assert Change.RESET is switch.note(True, 9.0, 163.0)
    assert None is switch.may_start(163.0)
    assert 0 == switch.failed


@pytest.mark.parametrize(
    ("verdict", "good"),
    [
        (ACK, True),
        (DeadLetter(Reason.REJECTED), True),
        (DeadLetter(Reason.UNRETRYABLE), True),
        (DeadLetter(Reason.EXHAUSTED), False),
        (DeadLetter(Reason.MALFORMED), None),
        (DeadLetter(Reason.CRASHED), None),
        (Release(), None),
        (RetryLater(SECOND, a_delivery(attempt=1).history), None),
        (RetryLater(SECOND, a_delivery(attempt=2).history), False),
    ],
)
def test_what_a_verdict_says_of_the_handler(verdict: Verdict, good: bool | None) -> None:
    """An attempt that was spent is a failure; a snooze and what never ran say nothing."""
    assert good is is_good(verdict, a_delivery(attempt=1))


# ---- gates -------------------------------------------------------------------------------------------------------------------


def gate_of(**options: Any) -> Gate:
    app = StreamWorker(group="g")
    app.handler("orders", **options)(_handle)
    return Gate(app.handlers[0])


async def _handle(body: dict[str, str]) -> None: ...


def test_a_gate_that_nothing_shuts_is_not_needed() -> None:
    """Until somebody pauses the handler."""
    gate = gate_of()
    assert not gate.is_needed
    gate.pause(0.0)
    assert (True, 0, 0, None) == (gate.is_needed, gate.may_start(1.0), gate.soon(1.0), gate.opens_at(1.0))
    gate.resume()
    assert not gate.is_needed


def test_what_waits_for_a_paused_handler_comes_back_the_less_the_longer_it_lasts() -> None:
    """And yet not so seldom that it waits for long after the resume."""
    gate = gate_of()
    gate.pause(0.0)

    assert [1.0, 10.0, LONGEST_WAIT] == [gate.put_aside_for(now, 0.0) for now in (0.5, 10.0, 10_000.0)]


def test_what_waits_for_its_turn_at_a_rate_comes_back_one_by_one() -> None:
    """And not together, only to be put aside again."""
    gate = gate_of(rate_limit=RateLimit(1, per=2 * SECOND, burst=2))

    assert [2.0, 4.0, 6.0] == [gate.put_aside_for(0.0, 0.0) for _ in range(3)]


@pytest.mark.parametrize(("after", "verdict"), [(None, Release()), (SECOND, RetryLater(SECOND, a_delivery(attempt=3).history))])
def test_what_is_held_back_spends_no_attempt(after: timedelta | None, verdict: Verdict) -> None:
    """It is released where nobody reads meanwhile, and else comes back after a time."""
    outcome = Interrupted(Interruption.HELD_BACK, after)

    assert verdict == decide(outcome, a_delivery(attempt=3), RetryPolicy(max_attempts=1), 0.0)
