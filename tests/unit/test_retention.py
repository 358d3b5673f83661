"""What a program may say about what of a stream is kept."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamworker import Retention, StreamWorker
from streamworker.errors import SetupError
from streamworker.handlers import Handler
from streamworker.streams.keys import Removal
from streamworker.worker.choosing import bindings_of
from streamworker.worker.trimmer import groups_by_stream
from tests.factories import Recorder

WHEN_ACKED, A_WEEK = Retention(delete_when_acked=True), Retention(max_age=timedelta(days=7))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"max_length": 0},
            "max_length is a whole number of at least 1, not 0: leave it out to keep all, or say delete_when_acked=True",
        ),
        ({"max_length": -5}, "max_length is a whole number of at least 1, not -5"),
        ({"max_length": 1.5}, "max_length is a whole number"),
        ({"max_length": True}, "max_length is a whole number of at least 1, not True"),
        ({"max_age": timedelta(0)}, "max_age is a timedelta of at least 1 s, not datetime.timedelta(0): leave it out to keep all"),
        ({"max_age": timedelta(days=-1)}, "max_age is a timedelta of at least 1 s"),
        ({"max_age": 60}, "max_age is a timedelta of at least 1 s, not 60"),
        ({"delete_when_acked": 1}, "delete_when_acked is True or False, not 1"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_repair(options: dict[str, Any], sentence: str) -> None:
    """When it is made."""
    with pytest.raises(SetupError) as refused:
        Retention(**options)

    assert str(refused.value).startswith(sentence)


@given(acked=st.booleans(), seconds=st.none() | st.integers(1, 10**6), length=st.none() | st.integers(1, 10**9))
def test_it_keeps_all_unless_it_says_otherwise(acked: bool, seconds: int | None, length: int | None) -> None:
    """Any combination is possible."""
    age = None if seconds is None else timedelta(seconds=seconds)

    assert Retention(acked, age, length).keeps_all is (not acked and age is None and length is None)


def test_a_program_says_it_in_one_place_for_all_or_at_each_stream() -> None:
    """Where the same is said twice, that is no contradiction."""
    app = StreamWorker(group="g", retention={"orders": WHEN_ACKED})

    app.stream("clicks", dict[str, str], retention=A_WEEK)
    app.stream("orders", dict[str, str], retention=Retention(delete_when_acked=True))
    app.stream("others", dict[str, str])

    assert {"orders": WHEN_ACKED, "clicks": A_WEEK} == app.retentions


def test_two_for_one_stream_are_refused() -> None:
    """They could not both hold."""
    app = StreamWorker(group="g", retention={"orders": WHEN_ACKED})

    with pytest.raises(SetupError, match="stream 'orders' has two retentions: say it in one place"):
        app.stream("orders", dict[str, str], retention=A_WEEK)


@pytest.mark.parametrize(
    ("retention", "sentence"),
    [
        (WHEN_ACKED, 'retention has one for each stream, {"orders": Retention(…)}, and is not Retention('),
        ({"orders": 7}, "retention of 'orders' is a Retention(…), not 7"),
        ({"": WHEN_ACKED}, "retention: a stream's name is a non-empty string, not ''"),
        ({"a}b": WHEN_ACKED}, "stream 'a}b' has a closing brace but no hash tag"),
    ],
)
def test_what_is_no_retention_is_refused(retention: Any, sentence: str) -> None:
    """With a sentence that says the form."""
    with pytest.raises(SetupError) as refused:
        StreamWorker(group="g", retention=retention)

    assert str(refused.value).startswith(sentence)


def test_a_listener_and_entries_that_go_when_they_are_acknowledged_exclude_each_other() -> None:
    """Whichever comes first; a bound in time is no such trouble."""
    first, second = StreamWorker(group="g", retention={"prices": A_WEEK}), StreamWorker(group="g")

    for app in (first, second):
        app.listener("prices")(_listen)
    with pytest.raises(
        SetupError, match=r"stream 'prices' has a listener, .* say how long they stay instead, Retention\(max_age=…\)"
    ):
        second.stream("prices", dict[str, str], retention=WHEN_ACKED)
    with pytest.raises(SetupError, match="stream 'orders' has a listener"):
        StreamWorker(group="g", retention={"orders": WHEN_ACKED}).listener("orders")(_listen)


def test_only_what_is_removed_makes_its_groups_look_closer() -> None:
    """The plain way stays as it was for all other streams."""
    app = StreamWorker(group="g")
    for stream in ("plain", "kept", "bounded", "emptied"):
        app.handler(stream, name=stream)(_listen)
    retentions = {"kept": Retention(), "bounded": A_WEEK, "emptied": WHEN_ACKED}

    [bindings] = bindings_of(app.handlers, "resume", Recorder(), retentions).values()

    removals = {binding.keys.stream: binding.keys.removal for binding in bindings}
    assert {"plain": 0, "kept": 0, "bounded": Removal.TRIMMED, "emptied": Removal.WHEN_ACKED} == removals
    witnesses = {binding.keys.stream: binding.keys.witnesses(binding.keys.stream) for binding in bindings}
    assert {"plain": [], "kept": [], "bounded": ["{bounded}:sw:settled:g"], "emptied": ["{emptied}:sw:settled:g"]} == witnesses
    assert [] == [name for binding in bindings for name in binding.keys.witnesses(binding.keys.retry)]


def test_a_program_waits_for_all_groups_that_it_reads_a_stream_in() -> None:
    """Those of handlers, each once."""
    app = StreamWorker(group="g")
    app.handler("a", "b", name="one")(_listen)
    app.handler("b", group="other", name="two")(_listen)
    handlers: list[Handler] = app.handlers

    assert {"a": ["g"], "b": ["g", "other"]} == groups_by_stream(handlers)


async def _listen(body: dict[str, str]) -> None: ...
