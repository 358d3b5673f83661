"""An exception as text: capped, printable, and without the payload."""

from __future__ import annotations

from time import perf_counter
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from streamworker.errors import Reject
from streamworker.observe.descriptions import ERROR_LIMIT, TRACEBACK_LIMIT, cap, describe, trace

SECRET = "hunter2-4111111111111111"


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Wrong(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


def _refuse(value: Any) -> Any:
    raise ValueError(f"cannot use {value}")


class Card(BaseModel):
    number: int
    owner: Annotated[str, Field(max_length=3)]
    kind: Literal["debit"]
    when: float
    checked: Annotated[str, AfterValidator(_refuse)]
    nested: list[dict[str, int]]


def _error_of(annotation: Any, value: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(annotation).validate_python(value)
    return caught.value


# ---- describe ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (Reject("card refused"), "Reject: card refused"),
        (KeyError("customer"), "KeyError: 'customer'"),
        (ExceptionGroup("two", [ValueError(SECRET)]), "ExceptionGroup: two (1 sub-exception)"),
        (Mute(), "Mute: <its text cannot be printed>"),
        (Wrong(), "Wrong: <its text cannot be printed>"),
        (ValueError("half \ud800"), "ValueError: half \\ud800"),
    ],
)
def test_an_error_is_its_type_and_its_text(error: BaseException, expected: str) -> None:
    """Whatever its text does."""
    assert expected == describe(error)


def test_a_validation_error_says_where_and_what_but_not_the_value() -> None:
    """Its own text would quote the input."""
    body = {"number": SECRET, "owner": SECRET, "kind": SECRET, "when": SECRET, "checked": SECRET, "nested": [{"deep": SECRET}]}

    error = _error_of(Card, body)
    text = describe(error) + trace(error)

    assert SECRET in str(error)
    assert SECRET not in text
    assert "ValidationError: 6 validation errors: number: int_parsing; owner: string_too_long; kind: literal_error" in text
    assert "; …" in text


def test_one_validation_error_is_named() -> None:
    """By its place and type."""
    assert "nested.0.deep: int_parsing" in describe(_error_of(Card, {**_SOUND, "nested": [{"deep": SECRET}]}))


_SOUND = {"number": 1, "owner": "me", "kind": "debit", "when": 1.5, "checked": "x", "nested": []}


def test_a_validation_error_under_another_one_does_not_leak() -> None:
    """Causes and contexts are not printed."""
    error = LookupError("no such card")
    error.__cause__ = error.__context__ = _error_of(int, SECRET)

    assert SECRET not in trace(error) + describe(error)


@pytest.mark.parametrize("keys", ["x" * 10_000, "\ud800" * 100])
def test_a_place_from_the_input_is_capped(keys: str) -> None:
    """The keys of a dictionary come from outside."""
    text = describe(_error_of(dict[str, int], {keys: "a"}))

    assert len(text) < 600


def test_two_hundred_thousand_errors_are_counted_quickly() -> None:
    """Their list alone would take half a second, their text megabytes."""
    error = _error_of(list[int], ["a"] * 200_000)

    began = perf_counter()
    text = describe(error)
    took = perf_counter() - began

    assert "ValidationError: 200000 validation errors" == text
    assert took < 0.1


def test_a_text_of_megabytes_is_capped() -> None:
    """It ends in a dead letter."""
    text = describe(ValueError("x" * 40_000_000))

    assert ERROR_LIMIT == len(text)
    assert text.endswith("x…")


# ---- trace ---------------------------------------------------------------------------------------------------------------------


def _fail(depth: int) -> None:
    if depth:
        _fail(depth - 1)
    raise ValueError("the innermost")


def test_a_trace_shows_where_the_error_came_from() -> None:
    """Its frames, then its description."""
    with pytest.raises(ValueError, match="innermost") as caught:
        _fail(1)

    text = trace(caught.value)

    assert text.startswith("Traceback (most recent call last):\n")
    assert 'raise ValueError("the innermost")' in text
    assert text.endswith("ValueError: the innermost")


def _deep(depth: int) -> None:
    """Fail in two functions that call each other (Python folds the frames of one that calls itself), of a module with a long name."""
    source = """
def ping(depth):
    pong(depth - 1)

def pong(depth):
    if depth <= 0:
        raise ValueError("the innermost")
    ping(depth - 1)
"""
    names: dict[str, Any] = {}
    exec(compile(source, f"/app/{'very_long_name' * 20}.py", "exec"), names)
    names["ping"](depth)


@pytest.mark.parametrize("depth", [30, 500])
def test_a_long_trace_keeps_its_innermost_frames(depth: int) -> None:
    """They say most; the whole stays below its limit."""
    with pytest.raises(ValueError, match="innermost") as caught:
        _deep(depth)

    text = trace(caught.value)

    assert text.startswith("Traceback (most recent call last):\n…\n")
    assert text.endswith("in pong\nValueError: the innermost")
    assert len(text) <= TRACEBACK_LIMIT


def test_an_error_that_was_never_raised_has_a_trace_too() -> None:
    """Without frames."""
    assert "Traceback (most recent call last):\nValueError: no" == trace(ValueError("no"))


class Odd(str):
    """Text whose every method lies."""

    def __getitem__(self, _: Any) -> str:
        raise RuntimeError

    def __format__(self, _: str) -> str:
        return SECRET * 1_000

    def encode(self, *_: Any) -> bytes:
        raise RuntimeError


class Strange(Exception):
    def __init__(self, told: Any) -> None:
        self.told = told

    def __str__(self) -> str:
        return self.told() if callable(self.told) else self.told

    def __repr__(self) -> str:
        raise RuntimeError


def _forever() -> str:
    return _forever()


@pytest.mark.parametrize(
    "told",
    [
        Odd("odd"),
        lambda: 5,
        lambda: None,
        lambda: b"bytes",
        lambda: "x" * 100_000_000,
        _forever,
        lambda: "\ud800" * 10_000,
        lambda: "a\nb",
    ],
    ids=["odd text", "number", "None", "bytes", "100 MB", "for ever", "surrogates", "lines"],
)
def test_the_strangest_error_is_described(told: Any) -> None:
    """Capped, and as text that can be written."""
    try:
        raise Strange(told) from Strange(told)
    except Strange as error:
        text, traced = describe(error), trace(error)

    assert text.startswith("Strange: ")
    assert len(text) <= ERROR_LIMIT
    assert len(traced) <= TRACEBACK_LIMIT
    assert SECRET not in traced
    traced.encode()


def test_an_error_that_ends_the_program_is_only_an_error_to_report() -> None:
    """Its text may call `sys.exit`."""

    def leave() -> str:
        raise SystemExit

    assert "Strange: <its text cannot be printed>" == describe(Strange(leave))


def test_a_trace_names_what_caused_the_error_and_the_members_of_a_group() -> None:
    """A few of them, each once, in one line each."""
    first, second = OSError("no route"), _error_of(int, SECRET)
    group = ExceptionGroup("unhandled errors in a TaskGroup", [first, second])
    error = ValueError("cannot charge")
    error.__cause__ = group
    first.__context__ = error  # a circle

    text = trace(error)

    expected = ["caused by ExceptionGroup: unhandled errors in a TaskGroup (2 sub-exceptions)", "with OSError: no route"]
    assert [*expected, "with ValidationError: 1 validation errors: : int_parsing"] == text.splitlines()[-3:]
    assert SECRET not in text


def test_ten_thousand_causes_and_members_are_bounded() -> None:
    """In length and in time."""
    error: BaseException = ValueError("x" * 10_000)
    for number in range(10_000):
        outer = ValueError(f"{number} " + "x" * 10_000) if number % 2 else ExceptionGroup("g", [ValueError("y" * 10_000)] * 10)
        outer.__cause__, error = error, outer

    began = perf_counter()
    text = trace(error)

    assert perf_counter() - began < 0.5
    assert len(text) <= TRACEBACK_LIMIT


def test_a_deeply_nested_group_is_bounded() -> None:
    """Its members are not walked to the ground."""
    error: Exception = ValueError("ground")
    for _ in range(500):
        error = ExceptionGroup("g", [error])

    assert len(trace(error)) < 1_000


def test_notes_are_not_shown() -> None:
    """Whoever adds them may add the payload."""
    error = ValueError("no")
    error.add_note(SECRET)

    assert SECRET not in trace(error)


# ---- cap -----------------------------------------------------------------------------------------------------------------------


@given(st.text(st.characters()), st.integers(1, 50))
def test_a_capped_text_is_short_and_fit_for_utf8(text: str, limit: int) -> None:
    """Half a surrogate pair becomes six characters, and even then it is not too long."""
    capped = cap(text, limit)

    assert len(capped) <= limit
    assert capped == capped.encode().decode()
    if len(text) <= limit and "\\ud" not in capped:
        assert text == capped


@pytest.mark.parametrize(("text", "expected"), [("", ""), ("abc", "abc"), ("abcd", "ab…"), ("\ud800", "\\u…")])
def test_a_text_is_cut_with_an_ellipsis(text: str, expected: str) -> None:
    """Only where it is too long."""
    assert expected == cap(text, 3)
