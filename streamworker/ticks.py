"""When a schedule is due: at each multiple of an interval, or as cron says. Pure: what time it is comes in as an argument.

All moments are ms since 1970 by the server's clock, so that every process finds the same ticks, whenever it has started.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, Literal, Protocol, TypeAlias
from zoneinfo import ZoneInfo

from streamworker.errors import SetupError

Missed: TypeAlias = Literal["skip", "once"]

SHORTEST = timedelta(milliseconds=100)
LONGEST = timedelta(days=3660)
MISSED_AFTER = timedelta(minutes=1)
"""A tick that nobody has published for so long has been missed."""

_MILLISECOND = timedelta(milliseconds=1)


class Ticks(Protocol):
    """The moments of one schedule."""

    def latest(self, now_ms: int) -> int:
        """The last tick up to this moment."""
        ...

    def following(self, now_ms: int) -> int:
        """The first tick after this moment."""
        ...

    @property
    def zone(self) -> tzinfo:
        """Whose days and hours they are."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """The multiples of an interval since 1970 in UTC."""

    interval_ms: int

    @classmethod
    def of(cls, interval: timedelta) -> Every:
        """Every so often. Raises `SetupError`."""
        if not isinstance(interval, timedelta) or not SHORTEST <= interval <= LONGEST:
            least = f"{SHORTEST / _MILLISECOND:.0f} ms"
            raise SetupError(f"app.every takes a timedelta from {least} to {LONGEST.days} days, not {interval!r}")
        return cls(round(interval / _MILLISECOND))

    def latest(self, now_ms: int) -> int:
        """The last tick up to this moment."""
        return now_ms - now_ms % self.interval_ms

    def following(self, now_ms: int) -> int:
        """The first tick after this moment."""
        return self.latest(now_ms) + self.interval_ms

    @property
    def zone(self) -> tzinfo:
        """Whose days and hours they are."""
        return timezone.utc  # noqa: UP017  # a value, not a clock

    def __str__(self) -> str:
        return f"every {timedelta(milliseconds=self.interval_ms)}"


@dataclass(frozen=True, slots=True)
class Cron:
    """The moments of a cron expression in a time zone; a skipped or repeated hour is cronsim's matter, which does as Debian's cron."""

    expression: str
    zone: ZoneInfo

    @classmethod
    def of(cls, expression: str, timezone: str) -> Cron:
        """As the expression says. Raises `SetupError`, for one that never comes too."""
        simulator, wrong = _library()
        if not isinstance(expression, str):
            raise SetupError(f"app.cron takes an expression such as '*/5 * * * *', not {expression!r}")
        try:
            zone = ZoneInfo(timezone)
        except (KeyError, ValueError, TypeError, OSError) as error:
            raise SetupError(
                f"there is no time zone {timezone!r}: name one such as 'Europe/Berlin', and install tzdata where the system has none"
            ) from error
        made = cls(" ".join(expression.split()), zone)
        try:
            next(simulator(made.expression, datetime(2024, 1, 1, tzinfo=zone)))
        except wrong as error:
            raise SetupError(f"{expression!r} is no cron expression ({error}): write five fields, such as '*/5 * * * *'") from error
        except StopIteration:
            raise SetupError(f"the cron expression {expression!r} never comes: there is no such day") from None
        return made

    def latest(self, now_ms: int) -> int:
        """The last tick up to this moment."""
        # Its search backwards leaves out fractions of a second, and knows one side of a repeated hour: going forward finds the rest.
        simulator, _ = _library()
        backwards = simulator(self.expression, self._moment(now_ms + 1), reverse=True)
        found = next(ms for ms in map(_ms, backwards) if ms <= now_ms)
        while (later := self.following(found)) <= now_ms:
            found = later
        return found

    def following(self, now_ms: int) -> int:
        """The first tick after this moment."""
        simulator, _ = _library()
        return next(ms for ms in map(_ms, simulator(self.expression, self._moment(now_ms))) if ms > now_ms)

    def _moment(self, ms: int) -> datetime:
        return datetime.fromtimestamp(ms / 1000, self.zone)

    def __str__(self) -> str:
        return f"{self.expression} {self.zone.key}"


def due(ticks: Ticks, missed: Missed, last_ms: int, now_ms: int) -> tuple[int | None, int | None]:
    """The tick that is to be published now, if any, and one that was missed, if any; with `missed="once"` they are the same."""
    latest = ticks.latest(now_ms)
    if latest <= last_ms:
        return None, None
    if now_ms - latest <= MISSED_AFTER / _MILLISECOND:
        return latest, None
    return (latest if missed == "once" else None), latest


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _library() -> tuple[Any, type[Exception]]:
    """What knows cron's grammar, and what it raises."""
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise SetupError("app.cron needs the extra `cron`: pip install 'streamworker[cron]'") from None
    return CronSim, CronSimError
