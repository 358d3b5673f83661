"""What a log line may look like: on a terminal nothing in it steers, as JSON it is one line, and no traceback holds a payload."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from streamworker.observe.logging import configure
from tests.command_line import unsafe

HOSTILE = "\x1b[31m\x1b]0;title\x07\x9b2J\u202etxt\u2028gone\r\x00\x85\ud800[red]"
SECRET = "4111111111111111"
Logged = Callable[..., str]


@pytest.fixture(params=["console", "json"])
def form(request: pytest.FixtureRequest) -> str:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def logged(form: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Any], object]], str]]:
    """`logged(lambda log: log.info(…))` answers what was written."""
    root = logging.getLogger()
    before = (root.handlers, root.level, logging.getLogger("asyncio").level)
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setenv("NO_COLOR", "1")
    structlog.reset_defaults()
    configure("debug", form)
    ours = list(root.handlers)

    def call(what: Callable[[Any], object]) -> str:
        root.handlers = ours  # without pytest's own, which knows no processors
        written.seek(0)
        written.truncate()
        what(structlog.get_logger("streamworker.test"))
        return written.getvalue()

    yield call
    structlog.reset_defaults()
    root.handlers = before[0]
    root.setLevel(before[1])
    logging.getLogger("asyncio").setLevel(before[2])


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError


class Huge:
    def __repr__(self) -> str:
        return "x" * 10_000_000


class Steering:
    def __repr__(self) -> str:
        return HOSTILE


def raised(error: BaseException) -> Callable[[Any], object]:
    def log_it(log: Any) -> None:
        try:
            raise error
        except BaseException:
            log.exception("delivery.unsettled")

    return log_it


TEXTS = st.text(st.characters(exclude_categories=[]) | st.sampled_from(HOSTILE), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, TEXTS)
@example(HOSTILE, HOSTILE)
@example("two words " + HOSTILE, "a=b\n" + HOSTILE)
def test_nothing_in_a_line_steers_or_forges(logged: Logged, event: str, value: str) -> None:
    """Neither the event, nor a value, nor what the standard library's loggers say."""
    calls = [
        lambda log: log.info(event, consumer=value),
        lambda log: log.info("x", steering=Steering(), listed=[value], named={value: value}, raw=value.encode(errors="replace")),
        lambda log: logging.getLogger("theirs").warning("it says %s", value, extra={"more": value}),
        lambda log: log.bind(bound=value).error("x"),
    ]
    for call in calls:
        line = logged(call)
        assert 1 == line.count("\n"), line
        assert [] == unsafe(line)


@pytest.mark.parametrize("value", [Unshowable(), Huge(), object(), 10**400, float("nan"), b"\xff\x1b", {1: {2}}])
def test_any_value_can_be_logged(value: Any, logged: Logged, form: str) -> None:
    """A value that cannot be shown does not cost the line; one of megabytes is cut."""
    line = logged(lambda log: log.info("x", value=value))

    assert 1 == line.count("\n")
    assert len(line) < 5_000
    assert form == "console" or "x" == json.loads(line)["event"]


def test_the_traceback_of_an_exception_steers_nothing(logged: Logged, form: str) -> None:
    """On a terminal it has its lines; as JSON it is in the one line."""
    text = logged(raised(ValueError(f"first\nsecond {HOSTILE}")))

    assert [] == unsafe(text)
    assert r"\x1b[31m" in text or r"\\x1b[31m" in text or r"\u001b[31m" in text
    assert (1 == text.count("\n")) == (form == "json")
    assert "raise error" in text


@pytest.mark.parametrize("payload", [SECRET, [SECRET] * 200_000], ids=["one", "200,000"])
def test_no_traceback_holds_a_payload_or_is_longer_than_it_may_be(payload: Any, logged: Logged) -> None:
    """Neither the text of a validation error, nor the frames' local variables."""
    with pytest.raises(ValueError, match="validation error") as caught:
        TypeAdapter(list[dict[str, int]]).validate_python(payload)

    text = logged(raised(caught.value))

    assert SECRET not in text
    assert "ValidationError" in text
    assert len(text) < 10_000
