"""`@app.every` and `@app.cron`: what a program says about entries that are to be published at their times."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, Unpack, get_args

from streamworker.codecs import Codec
from streamworker.delivery import Outgoing, PublishOptions
from streamworker.errors import EncodeError, SetupError
from streamworker.handlers import is_async, name_of
from streamworker.outgoing import check_stream, encode_outgoing
from streamworker.ticks import Cron, Every, Missed, Ticks

Made = TypeVar("Made")

TICK_HEADER = "tick"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A registered schedule: when, where to, and what makes its body.

    `make` is the function, `None` where `body` is given as such; `wants_tick` says that it takes the moment for which it is called.
    """

    name: str
    stream: str
    ticks: Ticks
    missed: Missed
    make: Callable[..., Any] | None
    wants_tick: bool
    body: Any
    codec: Codec
    options: PublishOptions

    def moment(self, tick_ms: int) -> datetime:
        """The tick in the schedule's time zone."""
        return datetime.fromtimestamp(tick_ms / 1000, self.ticks.zone)

    def entry(self, tick_ms: int, body: Any) -> Outgoing:
        """The entry for a tick: it carries the moment as header. Raises `EncodeError`."""
        given = self.options.get("headers")
        headers = {**({} if given is None else given), TICK_HEADER: self.moment(tick_ms).isoformat()}
        options: PublishOptions = {**self.options, "headers": headers}
        return encode_outgoing(self.codec, self.stream, body, **options)


class Schedules:
    """The part of an application where schedules are registered."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.schedules: list[Schedule] = []

    def every(
        self,
        interval: timedelta,
        stream: str,
        *,
        missed: Missed = "skip",
        name: str | None = None,
        **options: Unpack[PublishOptions],
    ) -> Callable[[Made], Made]:
        """Publish to `stream` at each multiple of `interval` (since 1970, UTC), once, however many workers there are.

        What is decorated is returned unchanged: a function that returns the body (with one parameter it is given the tick, an aware
        `datetime`; when it returns `None`, nothing is published), or the body itself, and then with a `name`. A tick that nobody has
        published for a minute was missed: `"skip"` leaves it out, `"once"` publishes the last one missed. Raises `SetupError`.
        """
        return self._register(Every.of(interval), stream, missed, name, options)

    def cron(
        self,
        expression: str,
        stream: str,
        *,
        timezone: str = "UTC",
        missed: Missed = "skip",
        name: str | None = None,
        **options: Unpack[PublishOptions],
    ) -> Callable[[Made], Made]:
        """Publish to `stream` whenever the cron expression matches in `timezone`, as `every` does. Needs the extra `cron`."""
        return self._register(Cron.of(expression, timezone), stream, missed, name, options)

    def _register(
        self, ticks: Ticks, stream: str, missed: Missed, name: str | None, options: PublishOptions
    ) -> Callable[[Made], Made]:
        def register(made: Made) -> Made:
            schedule = _schedule(made, ticks, stream, missed, name, options, self._codec)
            _check(schedule, self.schedules)
            self.schedules.append(schedule)
            return made

        return register


def _schedule(
    made: Any, ticks: Ticks, stream: str, missed: Missed, name: str | None, options: PublishOptions, codec: Codec
) -> Schedule:
    if inspect.isclass(made) or inspect.isgeneratorfunction(made) or inspect.isasyncgenfunction(made):
        raise SetupError(f"schedule {name_of(made)!r} is no function that returns a body: decorate an `async def` or a `def`")
    function = made if inspect.isroutine(made) or is_async(made) else None
    if name is None and function is None:
        raise SetupError("a schedule with a body in place of a function needs name=")
    called = name_of(made) if name is None else name
    wants = False if function is None else _wants_tick(function, called)
    return Schedule(called, stream, ticks, missed, function, wants, None if function else made, codec, options)


def _wants_tick(function: Callable[..., Any], name: str) -> bool:
    parameters = list(inspect.signature(function).parameters.values())
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise SetupError(f"schedule {name!r} needs {needed[-1].name!r}, but it is called with the tick only, or with nothing")
    return bool(needed)


def _check(schedule: Schedule, others: Iterable[Schedule]) -> None:
    name = schedule.name
    if not isinstance(name, str) or not name:
        raise SetupError(f"a schedule's name is a non-empty string, not {name!r}")
    if any(other.name == name for other in others):
        raise SetupError(f"two schedules are called {name!r}: rename one, or give it name=")
    if schedule.missed not in get_args(Missed):
        raise SetupError(f"schedule {name!r}: missed is 'skip' or 'once', not {schedule.missed!r}")
    try:
        check_stream(schedule.stream)
        if TICK_HEADER in (schedule.options.get("headers") or ()):
            raise EncodeError(f"the header {TICK_HEADER!r} is written for you; leave it out")
        # What is known by now fails now, and not at each tick.
        schedule.entry(0, {"n": "1"} if schedule.make else schedule.body)
    except EncodeError as error:
        raise SetupError(f"schedule {name!r}: {error}") from error
