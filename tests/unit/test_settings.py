"""Where settings come from, which source wins, and what is said about a wrong one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker.app import StreamWorker
from streamworker.errors import SetupError
from streamworker.settings import (
    DEFAULT_REDIS_URL,
    Settings,
    format_duration,
    from_environment,
    misspelt,
    parse_duration,
    parse_size,
    workers_wanted,
)

Values: TypeAlias = dict[str, Any]

SECRET_URL = "redis://admin:hunter2@redis.internal:6379/0"


def _load(environment: Values | None = None, flags: Values | None = None, arguments: Values | None = None) -> Settings:
    return Settings.load(environment or {}, flags or {}, arguments or {})


# ---- precedence ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "flags", "arguments", "expected"),
    [
        ({}, {}, {}, 10),
        ({"STREAMWORKER_CONCURRENCY": "2"}, {}, {}, 2),
        ({"STREAMWORKER_CONCURRENCY": "2"}, {"concurrency": 3}, {}, 3),
        ({"STREAMWORKER_CONCURRENCY": "2"}, {"concurrency": 3}, {"concurrency": 4}, 4),
        ({"STREAMWORKER_CONCURRENCY": "2"}, {"concurrency": None}, {"concurrency": None}, 2),
        ({"STREAMWORKER_CONCURRENCY": ""}, {}, {}, 10),
    ],
)
def test_an_argument_wins_over_a_flag_over_the_environment_over_the_default(
    environment: dict[str, str], flags: dict[str, Any], arguments: dict[str, Any], expected: int
) -> None:
    """What is `None`, or an empty variable, counts as not given."""
    assert expected == _load(environment, flags, arguments).concurrency


def test_a_program_says_only_what_it_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings given to the program leave the rest to flags and environment, even where they equal a default."""
    monkeypatch.setenv("STREAMWORKER_CONCURRENCY", "2")
    monkeypatch.setenv("STREAMWORKER_GRACE", "1s")

    settings = StreamWorker(settings=Settings(concurrency=10)).settings({"concurrency": 3, "log_level": "debug"})

    assert (10, timedelta(seconds=1), "debug") == (settings.concurrency, settings.grace, settings.log_level)


def test_the_programs_url_wins_over_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """`redis_url=` is the more special of the two."""
    app = StreamWorker(redis_url="redis://one", settings=Settings(redis_url="redis://two"))

    assert "redis://one" == app.settings({"redis_url": "redis://three"}).redis_url.get_secret_value()
    assert app.says_where_redis_is


def test_without_any_source_the_defaults_hold() -> None:
    """They are the ones that the documentation names."""
    settings = _load()

    assert DEFAULT_REDIS_URL == settings.redis_url.get_secret_value()
    assert (10, timedelta(seconds=25), "info", "auto", "auto") == (
        settings.concurrency,
        settings.grace,
        settings.log_level,
        settings.log_format,
        settings.loop,
    )
    assert not settings.burst


# ---- the environment -----------------------------------------------------------------------------------------------------------


def test_every_setting_can_come_from_the_environment() -> None:
    """Durations with their unit, lists with commas."""
    settings = _load(
        {
            "STREAMWORKER_REDIS_URL": "redis://elsewhere",
            "STREAMWORKER_WORKERS": "2",
            "STREAMWORKER_CONCURRENCY": "3",
            "STREAMWORKER_MAX_CONCURRENCY": "30",
            "STREAMWORKER_IN_FLIGHT_BYTES": "1MB",
            "STREAMWORKER_HANDLERS": "charge, refund,",
            "STREAMWORKER_EXCLUDE": "count",
            "STREAMWORKER_CONSUMER": "worker-1",
            "STREAMWORKER_BURST": "true",
            "STREAMWORKER_GRACE": "1m",
            "STREAMWORKER_MAX_DELIVERIES": "7",
            "STREAMWORKER_MAX_RUNTIME": "1h",
            "STREAMWORKER_MAX_MEMORY": "512MB",
            "STREAMWORKER_HEALTH_ADDR": "0.0.0.0:81",
            "STREAMWORKER_LIVENESS_LIMIT": "10s",
            "STREAMWORKER_LOG_LEVEL": "debug",
            "STREAMWORKER_LOG_FORMAT": "json",
            "STREAMWORKER_LOOP": "asyncio",
            "STREAMWORKER_UNKNOWN": "left alone",
        }
    )

    assert {
        "workers": 2,
        "concurrency": 3,
        "max_concurrency": 30,
        "in_flight_bytes": 1_000_000,
        "handlers": ("charge", "refund"),
        "exclude": ("count",),
        "consumer": "worker-1",
        "burst": True,
        "grace": timedelta(minutes=1),
        "max_deliveries": 7,
        "max_runtime": timedelta(hours=1),
        "max_memory": 512_000_000,
        "health_addr": "0.0.0.0:81",
        "liveness_limit": timedelta(seconds=10),
        "log_level": "debug",
        "log_format": "json",
        "loop": "asyncio",
    } == settings.model_dump(exclude={"redis_url"})
    assert "redis://elsewhere" == settings.redis_url.get_secret_value()
    assert set(Settings.model_fields) == settings.model_fields_set


def test_redis_url_stands_in_where_the_prefixed_name_is_not_set() -> None:
    """Platforms set the bare name; ours is the more special one."""
    both = {"REDIS_URL": "redis://bare", "STREAMWORKER_REDIS_URL": "redis://ours"}

    assert {"redis_url": "redis://bare"} == from_environment({"REDIS_URL": "redis://bare"})
    assert {"redis_url": "redis://ours"} == from_environment(both)


@pytest.mark.parametrize("variable", ["STREAMWORKER_REDIS_URL", "REDIS_URL"])
def test_a_value_can_come_from_a_file(variable: str, tmp_path: Path) -> None:
    """As secrets are mounted: without the newline at its end."""
    file = tmp_path / "url"
    file.write_text(f"{SECRET_URL}\n")

    assert {"redis_url": SECRET_URL} == from_environment({f"{variable}_FILE": str(file)})


def test_a_variable_and_its_file_exclude_each_other(tmp_path: Path) -> None:
    """Nobody should have to guess which of the two is in force."""
    file = tmp_path / "url"
    file.write_text(SECRET_URL)

    with pytest.raises(SetupError, match="REDIS_URL and REDIS_URL_FILE are both set: keep one") as caught:
        _load({"REDIS_URL": SECRET_URL, "REDIS_URL_FILE": str(file)})

    assert "hunter2" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing one, a folder, and one that is not text."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfehunter2")

    for path in (tmp_path / "nowhere", tmp_path, binary):
        with pytest.raises(SetupError, match=r"STREAMWORKER_REDIS_URL_FILE names .* which cannot be read") as caught:
            _load({"STREAMWORKER_REDIS_URL_FILE": str(path)})

        assert str(path) in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_an_empty_file_is_an_error_and_not_the_default(tmp_path: Path) -> None:
    """Or a worker whose secret is not there yet would run against localhost."""
    file = tmp_path / "url"
    file.write_text("\n")

    with pytest.raises(SetupError, match=r"STREAMWORKER_REDIS_URL_FILE names .* which is empty"):
        _load({"STREAMWORKER_REDIS_URL_FILE": str(file)})


# ---- wrong values --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "flags", "arguments", "says"),
    [
        ({"STREAMWORKER_CONCURRENCY": "many"}, {}, {}, ["environment variable STREAMWORKER_CONCURRENCY", "it is a whole number"]),
        (
            {"STREAMWORKER_CONCURRENCY": "0"},
            {},
            {},
            ["environment variable STREAMWORKER_CONCURRENCY", "it is 1 at least"],
        ),
        ({"STREAMWORKER_GRACE": "25"}, {}, {}, ["environment variable STREAMWORKER_GRACE", "with its unit", "25s"]),
        ({"STREAMWORKER_BURST": "perhaps"}, {}, {}, ["environment variable STREAMWORKER_BURST", "it is true or false"]),
        ({}, {"log_level": "loud"}, {}, ["option --log-level", "'debug', 'info', 'warning' or 'error'"]),
        ({}, {"max_runtime": "0s"}, {}, ["option --max-runtime", "it is more than 0s"]),
        ({}, {"max_deliveries": 0}, {}, ["option --max-deliveries", "it is 1 at least"]),
        ({}, {"consumer": ""}, {}, ["option --consumer", "it is not empty"]),
        ({}, {"loop": "trio"}, {}, ["option --loop", "'auto', 'asyncio' or 'uvloop'"]),
        ({}, {}, {"redis_url": 5}, ["argument redis_url=", "valid string"]),
        ({}, {}, {"grace": "soon"}, ["argument grace=", "not a duration"]),
        ({"STREAMWORKER_LOOP": "trio"}, {"grace": "5"}, {}, ["STREAMWORKER_LOOP", "--grace"]),
    ],
)
def test_a_wrong_value_is_named_by_where_it_came_from(
    environment: dict[str, str], flags: dict[str, Any], arguments: dict[str, Any], says: list[str]
) -> None:
    """And the sentence says what would be right."""
    with pytest.raises(SetupError) as caught:
        _load(environment, flags, arguments)

    assert all(part in str(caught.value) for part in says), str(caught.value)


def test_a_wrong_value_from_a_file_names_the_variable_with_the_files_name(tmp_path: Path) -> None:
    """Or people look for a variable that is not set."""
    file = tmp_path / "concurrency"
    file.write_text("many")

    with pytest.raises(SetupError, match="STREAMWORKER_CONCURRENCY_FILE"):
        _load({"STREAMWORKER_CONCURRENCY_FILE": str(file)})


def test_no_error_shows_the_url() -> None:
    """Its password would be in the log."""
    with pytest.raises(SetupError) as caught:
        _load({"REDIS_URL": SECRET_URL, "STREAMWORKER_CONCURRENCY": "0"}, {}, {"redis_url": [SECRET_URL]})

    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_settings_do_not_show_the_url() -> None:
    """Neither printed nor logged."""
    settings = _load({"REDIS_URL": SECRET_URL})

    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


# ---- durations -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("25s", timedelta(seconds=25)),
        ("5m", timedelta(minutes=5)),
        ("1h30m", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("1.5s", timedelta(milliseconds=1500)),
        (" 25S ", timedelta(seconds=25)),
        ("0s", timedelta(0)),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, expected: timedelta) -> None:
    """With their unit, in any case."""
    assert expected == parse_duration(text)


@pytest.mark.parametrize("text", ["", "25", "s", "-5s", "5 s", "1h 30m", "5sec", "1e3s", "nan", "5s!", "5s\n5", ".5s", "1.s"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    """A bare number has no unit, and guessing one costs hours."""
    with pytest.raises(SetupError, match=r"not a duration.*1h30m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["9999999999d", "9" * 400 + "d"])
def test_a_duration_that_no_clock_can_hold_is_refused(text: str) -> None:
    """As a sentence, not as an overflow."""
    with pytest.raises(SetupError, match="too long"):
        parse_duration(text)


@given(st.integers(0, 999_999_999 * 86_400_000))
def test_a_duration_comes_back_as_it_was(milliseconds: int) -> None:
    """To the millisecond."""
    duration = timedelta(milliseconds=milliseconds)

    assert duration == parse_duration(format_duration(duration))


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    """With no other error than `SetupError`."""
    try:
        duration = parse_duration(text)
    except SetupError:
        return

    assert duration >= timedelta(0)


@pytest.mark.parametrize(
    ("milliseconds", "expected"), [(0, "0s"), (500, "500ms"), (25_000, "25s"), (5_400_000, "1h30m"), (90_061_001, "1d1h1m1s1ms")]
)
def test_durations_are_written_in_their_largest_units(milliseconds: int, expected: str) -> None:
    """Without parts that are nothing."""
    assert expected == format_duration(timedelta(milliseconds=milliseconds))


# ---- sizes, and what a program cannot say ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MB", 512_000_000), ("512MiB", 512 * 2**20), ("512Mi", 512 * 2**20), ("1.5g", 1_500_000_000), (" 64kb ", 64_000)],
)
def test_a_size_is_read_as_people_write_it(text: str, size: int) -> None:
    """Decimal units, and binary ones as Kubernetes writes them."""
    assert size == parse_size(text)


@pytest.mark.parametrize("text", ["512", "MB", "-1MB", "1 000MB", "1PB", ""])
def test_a_size_without_unit_is_refused(text: str) -> None:
    """A bare number could be anything."""
    with pytest.raises(SetupError, match="512MB"):
        parse_size(text)


@pytest.mark.parametrize(("name", "value"), [("workers", 2), ("health_addr", "off"), ("liveness_limit", timedelta(seconds=1))])
def test_a_program_cannot_say_what_is_needed_before_it_is_imported(name: str, value: Any) -> None:
    """It would be ignored; the sentence names what is heeded."""
    with pytest.raises(SetupError, match=f"STREAMWORKER_{name.upper()}"):
        StreamWorker(settings=Settings(**{name: value}))


def test_the_number_of_workers_is_known_without_the_program() -> None:
    """Where nobody names one it is 1, whatever else is wrong: the program may mend that."""
    assert 1 == workers_wanted({"STREAMWORKER_GRACE": "wrong"}, {"workers": None})
    assert 3 == workers_wanted({"STREAMWORKER_WORKERS": "3"}, {"workers": None})
    assert 2 == workers_wanted({"STREAMWORKER_WORKERS": "3"}, {"workers": 2})
    with pytest.raises(SetupError, match="--workers"):
        workers_wanted({}, {"workers": 0})


def test_a_wrong_health_address_names_its_source() -> None:
    """And what would be right."""
    with pytest.raises(SetupError, match=r"option --health-addr: '8080' is not an address.*, or auto, or off"):
        _load(flags={"health_addr": "8080"})


def test_variables_that_are_no_settings_are_found_with_what_was_meant() -> None:
    """Ours and those of others are left alone, and what Kubernetes sets for a Service of our name."""
    environment = {
        "STREAMWORKER_CONCURRENCY": "1",
        "STREAMWORKER_REDIS_URL_FILE": "url",
        "STREAMWORKER_APP": "app",
        "STREAMWORKER_SERVICE_HOST": "10.0.0.1",
        "STREAMWORKER_PORT_6379_TCP_ADDR": "10.0.0.1",
        "STREAMWORKER_GRAZE": "1s",
        "STREAMWORKER_REDIS_URL_FLIE": "url",
        "STREAMWORKER_COLOUR": "red",
        "PATH": "/bin",
    }

    assert [
        ("STREAMWORKER_COLOUR", None),
        ("STREAMWORKER_GRAZE", "STREAMWORKER_GRACE"),
        ("STREAMWORKER_REDIS_URL_FLIE", "STREAMWORKER_REDIS_URL_FILE"),
    ] == misspelt(environment)


@pytest.mark.parametrize(
    ("text", "repair"),
    [("0", "write it in kB, MB"), ("1B", "write it in kB, MB"), ("0MB", "write a size above zero, such as 64MB")],
)
def test_a_size_of_nothing_or_of_bytes_names_the_repair(text: str, repair: str) -> None:
    """And the option that it was given with."""
    with pytest.raises(SetupError, match=f"option --in-flight-bytes: '{text}' is n.*{repair}"):
        Settings.load({}, {"in_flight_bytes": text}, {})
