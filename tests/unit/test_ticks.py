"""When schedules are due, and what is wrong with those that cannot be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamworker import SetupError, StreamWorker
from streamworker.ticks import MISSED_AFTER, Cron, Every, due

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
LATE = int(MISSED_AFTER / timedelta(milliseconds=1))


def ms(text: str, zone: str = "UTC", fold: int = 0) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1000)


def test_an_interval_ticks_at_its_multiples():
    """Whenever a process has started."""
    ticks = Every.of(timedelta(seconds=10))

    assert [(20_000, 30_000), (20_000, 30_000), (20_000, 30_000), (30_000, 40_000)] == [
        (ticks.latest(now), ticks.following(now)) for now in (20_000, 20_001, 29_999, 30_000)
    ]


def test_cron_ticks_in_its_zone():
    """Half past two in Berlin, which is another hour of UTC in winter than in summer."""
    ticks = Cron.of("30 2 * * *", "Europe/Berlin")

    assert ms("2024-01-11T01:30") == ticks.following(ms("2024-01-11T00:00"))
    assert ms("2024-07-11T00:30") == ticks.following(ms("2024-07-11T00:00"))
    assert ms("2024-07-10T00:30") == ticks.latest(ms("2024-07-11T00:29:59"))


def test_a_skipped_and_a_repeated_hour_have_one_tick_each():
    """The night the clocks go forward it comes when the hour is over; the night they go back it comes once."""
    ticks = Cron.of("30 2 * * *", "Europe/Berlin")
    spring = [ticks.following(ms("2024-03-30T12:00")), ticks.following(ms("2024-03-31T12:00"))]
    first, after = ticks.following(ms("2024-10-26T12:00")), ticks.following(ms("2024-10-27T00:30"))

    assert [ms("2024-03-31T01:00"), ms("2024-04-01T00:30")] == spring
    assert [ms("2024-10-27T00:30"), ms("2024-10-28T01:30")] == [first, after]
    # In the second half past two, the first one is the latest.
    assert first == ticks.latest(ms("2024-10-27T02:10", "Europe/Berlin", fold=1))


@settings(max_examples=60)
@given(
    st.sampled_from(["*/5 * * * *", "30 2 * * *", "0 */6 * * *", "15 2 * * 0", "0 0 1 * *", "*/15 2 * * *", "0 30 2 * * *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.one_of(
        st.integers(ms("2024-03-28T00:00"), ms("2024-04-02T00:00")), st.integers(ms("2024-10-25T00:00"), ms("2024-11-05T00:00"))
    ),
)
def test_looking_back_and_looking_forward_find_the_same_ticks(expression, zone, now):
    """Else a tick could be published that no other process knows."""
    ticks = Cron.of(expression, zone)
    latest, following = ticks.latest(now), ticks.following(now)

    assert latest <= now < following
    assert following == ticks.following(latest)
    assert latest == ticks.latest(following - 1) == ticks.latest(latest)


def test_ticks_go_forward_through_a_whole_year():
    """Each is later than the one before it."""
    ticks, now, found = Cron.of("*/30 1,2,3 * * *", "America/New_York"), ms("2024-01-01T00:00"), []
    while now < ms("2025-01-01T00:00"):
        now = ticks.following(now)
        found.append(now)

    assert all(one < other for one, other in pairwise(found))
    assert 366 * 6 - 2 <= len(found) <= 366 * 6 + 3


@pytest.mark.parametrize(
    ("missed", "last", "now", "expected"),
    [
        ("skip", HOUR, HOUR + 10, (None, None)),
        ("skip", 0, HOUR + 10, (HOUR, None)),
        ("skip", 0, HOUR + LATE, (HOUR, None)),
        ("skip", 0, HOUR + LATE + 1, (None, HOUR)),
        ("once", 0, HOUR + LATE + 1, (HOUR, HOUR)),
        ("once", 0, 5 * HOUR + LATE + 1, (5 * HOUR, 5 * HOUR)),
        ("once", 6 * HOUR, 5 * HOUR + LATE + 1, (None, None)),
    ],
)
def test_what_is_due(missed, last, now, expected):
    """The latest tick only, unless it is done; a minute late it was missed."""
    assert expected == due(Every(HOUR), missed, last, now)


def body() -> dict[str, str]:
    return {"n": "1"}


@pytest.mark.parametrize(
    ("register", "repair"),
    [
        (lambda app: app.every(timedelta(0), "s"), "takes a timedelta from 100 ms"),
        (lambda app: app.every(30, "s"), "takes a timedelta"),
        (lambda app: app.cron("* * *", "s"), "no cron expression .Wrong number of fields.: write five fields"),
        (lambda app: app.cron("61 * * * *", "s"), "no cron expression"),
        (lambda app: app.cron("0 0 31 2 *", "s"), "cron expression"),
        (lambda app: app.cron(5, "s"), "takes an expression"),
        (lambda app: app.cron("* * * * *", "s", timezone="Mars/Olympus"), "no time zone 'Mars/Olympus'"),
        (lambda app: app.cron("* * * * *", "s", timezone="../etc/passwd"), "no time zone"),
        (lambda app: app.every(timedelta(1), "s", missed="all")(body), "missed is 'skip' or 'once'"),
        (lambda app: app.every(timedelta(1), "")(body), "non-empty string"),
        (lambda app: app.every(timedelta(1), "a}b")(body), "closing brace"),
        (lambda app: app.every(timedelta(1), "s")({"n": 1}), "needs name="),
        (lambda app: app.every(timedelta(1), "s", name="x")({"_n": 1}), "schedule 'x'"),
        (lambda app: app.every(timedelta(1), "s", max_length=0)(body), "max_length"),
        (lambda app: app.every(timedelta(1), "s", headers={"tick": "x"})(body), "leave it out"),
        (lambda app: app.every(timedelta(1), "s")(lambda a, b: {}), "is called with the tick only"),
        (lambda app: app.every(timedelta(1), "s")(timedelta), "no function that returns a body"),
        (lambda app: app.every(timedelta(1), "s", name="taken")({"n": 1}), "two schedules are called 'taken'"),
    ],
)
def test_a_wrong_schedule_is_one_sentence_at_registration(register, repair):
    """With the repair in it."""
    app = StreamWorker()
    app.every(timedelta(1), "other", name="taken")(body)

    with pytest.raises(SetupError, match=repair) as raised:
        register(app)
    assert "\n" not in str(raised.value)


def test_without_the_extra_cron_says_which_one(monkeypatch):
    """`every` needs none."""
    monkeypatch.setitem(__import__("sys").modules, "cronsim", None)
    app = StreamWorker()

    app.every(timedelta(1), "s")(body)
    with pytest.raises(SetupError, match=r"pip install 'streamworker\[cron\]'"):
        app.cron("* * * * *", "s")


def test_the_moment_of_a_tick_is_in_the_schedules_zone():
    """What the function is given, and what the header says."""
    app = StreamWorker()
    app.cron("0 8 * * *", "s", timezone="Europe/Berlin")(body)
    [schedule] = app.schedules
    entry = schedule.entry(ms("2024-07-11T06:00"), body())

    assert "2024-07-11T08:00:00+02:00" == schedule.moment(ms("2024-07-11T06:00")).isoformat()
    assert [b"_tick", b"2024-07-11T08:00:00+02:00"] == entry.fields[-2:]
    assert UTC == Every.of(timedelta(1)).zone
