"""What goes over the line between a supervisor and its children."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from streamworker.settings import Settings
from streamworker.supervisor.messages import MOST_WORDS, Hello, LastWords, Message, decode, encode
from streamworker.supervisor.shares import share_of
from streamworker.worker.status import Status

STATUS = Status(
    started=True,
    connected=True,
    reading=True,
    draining=False,
    why_draining="",
    gave_up=False,
    paused=False,
    in_flight=3,
    deliveries=7,
    memory_bytes=10**9,
    troubled=("orders",),
)


@pytest.mark.parametrize("message", [Hello(25.0, 4.0), STATUS, LastWords("cannot import 'ordérs'\nhere")], ids=repr)
def test_what_is_said_is_what_is_heard(message: Message) -> None:
    """In one line, whatever is in it."""
    line = encode(message)

    assert message == decode(line)
    assert 1 == line.count(b"\n")


def test_last_words_are_capped() -> None:
    """The other end reads lines of at most 64 KiB, and every character may need six bytes."""
    assert len(encode(LastWords("\x00" * 100_000))) < 65_536
    assert LastWords("\x00" * MOST_WORDS) == decode(encode(LastWords("\x00" * 100_000)))


def test_a_newer_child_may_say_more() -> None:
    """Its other fields are left out; a kind that is not known is not understood."""
    name, values = json.loads(encode(Hello(1.0, 2.0)))

    assert Hello(1.0, 2.0) == decode(json.dumps([name, values | {"mood": "good"}]).encode())
    assert decode(b'["greeting", {}]') is None


@pytest.mark.parametrize("line", [b"", b"\n", b'["hello", {"grace_sec', b"[]", b"3", b'["hello", 3]', b'["hello", {}]', b"\xff\n"])
def test_what_is_no_message_is_nothing(line: bytes) -> None:
    """A child may be killed in the middle of a word."""
    assert decode(line) is None


def test_a_childs_share_is_its_own_name_and_limits_a_little_below() -> None:
    """Never above what was given, never by more than a tenth."""
    whole = Settings(consumer="web", max_deliveries=100, max_runtime=timedelta(hours=1), max_memory=1000)

    early, late = share_of(whole, 2, 1.0), share_of(whole, 3, 0.0)

    assert ("web-2", 90, timedelta(minutes=54), 900) == (early.consumer, early.max_deliveries, early.max_runtime, early.max_memory)
    assert whole == late.model_copy(update={"consumer": "web"})
    assert "web-3" == late.consumer
    assert Settings() == share_of(Settings(), 1, 0.5)
