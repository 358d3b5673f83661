"""What should be done about what happened. Pure: no clock, no randomness, no I/O; a random number in [0, 1) comes in as argument.

`decide` is the only place where an attempt is compared with a limit, and the only place where a verdict is born.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import assert_never

from streamworker.delivery import (
    ACK,
    SUCCEEDED,
    Abandon,
    Ack,
    Crashed,
    DeadLetter,
    Delivery,
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
from streamworker.errors import NoHandler, Reject, Retry, SetupError, Snooze, WorkerDied

MAX_MISROUTES = 10
"""How often an entry without a handler here waits for a newer worker before it is set aside: about five minutes in all."""

LONGEST_DELAY = timedelta(days=365)
"""Nothing waits longer; it also keeps a user's own backoff function from overflowing the server's clock."""

FALLBACK_DELAY = timedelta(minutes=5)
"""The base delay where a user's own backoff function raises, or gives something else than a timedelta."""


TRY_ALONE_AGAIN_AFTER = timedelta(minutes=1)
"""How long an entry that must run alone waits for another worker, where the one that has it does not come to rest."""

LOOK_AFTER_TWIN = timedelta(seconds=5)
"""How long an entry waits while another one with the same idempotency key is being handled."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before an attempt: a base delay by attempt number, and the share of it that chance may take off.

    `jitter` 0 waits exactly the base delay, 1 (full jitter) anything between nothing and the base delay. Build one with
    `constant`, `linear`, `exponential`, `steps` or `by`.
    """

    base: Callable[[int], timedelta]
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not callable(self.base):
            raise SetupError(f"base is a function of the attempt, not {self.base!r}; or use Backoff.constant(…)")
        if not isinstance(self.jitter, (int, float)) or not 0 <= self.jitter <= 1:
            raise SetupError(f"jitter is a share between 0 and 1, not {self.jitter!r}")

    @classmethod
    def constant(cls, delay: timedelta, *, jitter: float = 0.0) -> Backoff:
        """The same delay before every attempt."""
        _need_duration("delay", delay)
        return cls(lambda _attempt: delay, jitter)

    @classmethod
    def linear(cls, first: timedelta, *, cap: timedelta = timedelta(minutes=5), jitter: float = 0.0) -> Backoff:
        """`first` times the attempts so far, never above `cap`."""
        _need_duration("first", first)
        _need_duration("cap", cap)
        return cls(lambda attempt: min(cap, first * min(attempt, 1_000_000)), jitter)

    @classmethod
    def exponential(
        cls,
        first: timedelta = timedelta(seconds=1),
        *,
        cap: timedelta = timedelta(minutes=5),
        factor: float = 2.0,
        jitter: float = 1.0,
    ) -> Backoff:
        """`first`, then each time `factor` times as long, never above `cap`; full jitter unless told otherwise."""
        _need_duration("first", first)
        _need_duration("cap", cap)
        if not isinstance(factor, (int, float)) or not factor >= 1:
            raise SetupError(f"factor is at least 1, not {factor!r}: a backoff does not shrink")
        return cls(lambda attempt: _grow(first, factor, attempt, cap), jitter)

    @classmethod
    def steps(cls, delays: Sequence[timedelta], *, jitter: float = 0.0) -> Backoff:
        """The delays as listed; the last one repeats."""
        listed = tuple(delays)
        if not listed:
            raise SetupError("Backoff.steps needs at least one delay")
        for delay in listed:
            _need_duration("every delay", delay)
        return cls(lambda attempt: listed[min(attempt, len(listed)) - 1], jitter)

    @classmethod
    def by(cls, base: Callable[[int], timedelta], *, jitter: float = 0.0) -> Backoff:
        """A function of the attempt that failed (1, 2, …). Where it raises or gives no timedelta, five minutes are waited."""
        backoff = cls(base, jitter)
        _need_duration("what the function gives for attempt 1", base(1))
        return backoff

    def delay(self, attempt: int, random: float) -> timedelta:
        """How long to wait after attempt number `attempt` failed; `random` is in [0, 1)."""
        return _bounded(_base_of(self, attempt)) * (1 - self.jitter * random)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often an entry is tried, how long between, and which errors are hopeless.

    A handler is started at most `max_attempts` times with a counted end. An entry whose worker died is run again alone, with nothing else
    in flight beside it; when its worker has died so `max_crashes` times it is set aside before any user code runs again. Errors of a type
    in `give_up_on` are not retried.
    """

    max_attempts: int = 5
    backoff: Backoff = field(default_factory=Backoff.exponential)
    give_up_on: type[BaseException] | tuple[type[BaseException], ...] = ()
    max_crashes: int = 3

    def __post_init__(self) -> None:
        _need_count("max_attempts", self.max_attempts)
        _need_count("max_crashes", self.max_crashes)
        _need_backoff(self.backoff)
        object.__setattr__(self, "give_up_on", _error_types(self.give_up_on))


@dataclass(frozen=True, slots=True)
class DeadLetterPolicy:
    """How dead letters are kept: the newest `keep_last` per stream and group (`None`: all), with or without the traceback."""

    keep_last: int | None = None
    traceback: bool = True

    def __post_init__(self) -> None:
        if self.keep_last is not None:
            _need_count("keep_last", self.keep_last, ", or None to keep all")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch is closed: at `max_size` entries, before it would hold more than `max_bytes`, or `max_wait` after its first entry."""

    max_size: int
    max_wait: timedelta
    max_bytes: int | None = None


def judge_entry(outcome: Outcome, error: BaseException | None, publishes: tuple[Outgoing, ...]) -> Outcome:
    """What happened to one entry of a batch: `outcome` is the whole batch's, `error` and `publishes` are what was said of this entry.

    An exception fails every entry; one that had its own error by then keeps that.
    """
    match outcome:
        case Succeeded() if error is None:
            return Succeeded(publishes) if publishes else SUCCEEDED
        case Succeeded() | Failed() if error is not None:
            return Failed(error)
        case _:
            return outcome


def decide(outcome: Outcome, delivery: Delivery, policy: RetryPolicy, random: float, *, crowded: bool = False) -> Verdict:
    """What to do about `outcome`; the first case that fits wins. Where it is `crowded` behind this delivery, a snooze counts too."""
    match outcome:
        case Succeeded((), ()):
            return ACK
        case Succeeded(publishes, writes):
            return Ack(publishes, writes)
        case Interrupted(Interruption.HELD_BACK, timedelta() as after):
            return RetryLater(_bounded(after), delivery.history)
        case Interrupted(why):
            return _decide_interrupted(why, delivery)
        case Malformed(error):
            return DeadLetter(Reason.MALFORMED, error)
        case Unroutable(kind, known):
            return _decide_unroutable(kind, known, delivery)
        case Crashed():
            return DeadLetter(Reason.CRASHED, _died_of_it(delivery.history))
        case Failed(error):
            return _decide_failed(error, delivery, policy, random, crowded)
        case _:
            assert_never(outcome)


def _decide_interrupted(why: Interruption, delivery: Delivery) -> Verdict:
    match why:
        case Interruption.LEASE_LOST:
            return Abandon()
        case Interruption.NOT_ALONE:
            return RetryLater(TRY_ALONE_AGAIN_AFTER, delivery.history)
        case Interruption.TWIN_RUNS:
            return RetryLater(LOOK_AFTER_TWIN, delivery.history)
        case Interruption.DRAIN | Interruption.NO_ROOM | Interruption.MAKES_ROOM | Interruption.HELD_BACK:
            return Release()
        case _:
            assert_never(why)


def is_suspect(delivery: Delivery) -> bool:
    """Whether a worker died with this entry in its hands, of it or of another one: then it is run alone next time."""
    return delivery.history.suspect


def is_crash_loop(delivery: Delivery, policy: RetryPolicy) -> bool:
    """Whether workers died of this entry so often that it must not run again; a death in company proves nothing about it."""
    return delivery.history.crashes_alone >= policy.max_crashes


def _died_of_it(history: History) -> WorkerDied:
    deaths = history.crashes_alone
    died = "its worker died" if deaths == 1 else f"{deaths} workers died"
    before = "" if history.last_error is None else f"; an earlier attempt ended with {history.last_error}"
    return WorkerDied(f"{died} while it ran alone, without a verdict{before}")


def _decide_failed(error: BaseException, delivery: Delivery, policy: RetryPolicy, random: float, crowded: bool) -> Verdict:
    history = replace(delivery.history, suspect=False)  # this time it ran to an end, so it may run in company again
    match error:
        case Reject():
            return DeadLetter(Reason.REJECTED, error)
        case Snooze(after=after) if not crowded:
            return RetryLater(_bounded(after), history)
        case _ if isinstance(error, policy.give_up_on):
            return DeadLetter(Reason.UNRETRYABLE, error)
        case _ if history.attempt >= policy.max_attempts:
            return DeadLetter(Reason.EXHAUSTED, error)
        case Retry(after=after) | Snooze(after=after) if after is not None:
            return RetryLater(_bounded(after), replace(history, attempt=history.attempt + 1), error)
        case _:
            after = policy.backoff.delay(history.attempt, random)
            return RetryLater(after, replace(history, attempt=history.attempt + 1), error)


def _decide_unroutable(kind: str | None, known: tuple[str, ...], delivery: Delivery) -> Verdict:
    """During a rolling deploy a newer worker may know the type, so wait for one, uncounted, a bounded number of times."""
    given = "no _type" if kind is None else f"_type {kind!r}"
    error = NoHandler(f"no handler of this worker takes an entry with {given}: it knows {', '.join(map(repr, known)) or 'none'}")
    misrouted = delivery.history.misrouted + 1
    if misrouted > MAX_MISROUTES:
        return DeadLetter(Reason.UNROUTABLE, error)
    after = _grow(timedelta(seconds=1), 2, misrouted, timedelta(minutes=1))
    return RetryLater(after, replace(delivery.history, misrouted=misrouted), error)


def _grow(first: timedelta, factor: float, attempt: int, cap: timedelta) -> timedelta:
    """`first` times `factor` ** (attempt - 1), at most `cap`; the power is never computed where it could overflow."""
    try:
        return min(cap, first * float(factor) ** (attempt - 1))
    except OverflowError:
        return cap if first else first


def _base_of(backoff: Backoff, attempt: int) -> timedelta:
    """The base delay; a user's function that fails must not keep an entry from being decided about."""
    try:
        base = backoff.base(attempt)
    except Exception:  # noqa: BLE001  # pure, so it cannot say so; the delay is the fallback
        return FALLBACK_DELAY
    return base if isinstance(base, timedelta) else FALLBACK_DELAY


def _bounded(delay: timedelta) -> timedelta:
    return min(max(delay, timedelta(0)), LONGEST_DELAY)


def _need_count(name: str, value: object, rest: str = "") -> None:
    if not isinstance(value, int) or value < 1:
        raise SetupError(f"{name} is a whole number of at least 1{rest}, not {value!r}")


def _need_duration(name: str, value: timedelta) -> None:
    if not isinstance(value, timedelta):
        raise SetupError(f"{name} is a timedelta, for example timedelta(seconds=1), not {value!r}")
    if value < timedelta(0):
        raise SetupError(f"{name} cannot be negative, as {value} is")


def _need_backoff(value: object) -> None:
    if not isinstance(value, Backoff):
        raise SetupError(f"backoff is a Backoff, for example Backoff.exponential(), not {value!r}")


def _error_types(given: object) -> tuple[type[BaseException], ...]:
    """Accept one class or a collection of classes where the field wants a tuple."""
    listed: tuple[object, ...] = tuple(given) if isinstance(given, (tuple, list, set, frozenset)) else (given,)
    types = tuple(item for item in listed if isinstance(item, type) and issubclass(item, BaseException))
    if len(types) < len(listed):
        raise SetupError(f"give_up_on holds exception classes, not {given!r}")
    return types
