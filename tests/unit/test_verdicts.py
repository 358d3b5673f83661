"""Alive, ready, started: decided from what the workers said last, and when."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from streamworker.supervisor.verdicts import Seen, alive, ready, started
from streamworker.worker.status import Status, Watched

LIMIT = timedelta(seconds=30)


def a_worker(pid: int = 1, silent: float = 0.5, **status: Any) -> Watched:
    """One that reads, but for what is said otherwise."""
    well: dict[str, Any] = {
        "started": True,
        "connected": True,
        "reading": True,
        "draining": False,
        "why_draining": "",
        "gave_up": False,
        "paused": False,
        "in_flight": 0,
        "deliveries": 0,
        "memory_bytes": 1,
    }
    return Watched(pid, Status(**well | status), silent)


STARTING = Watched(1, None, 300.0)
LONG_LIFESPAN = a_worker(silent=300, started=False, reading=False)


def test_a_worker_that_reads_is_all_three() -> None:
    """And the answer is a word."""
    for judge in (alive, ready, started):
        assert (True, "ok") == (judge(Seen([a_worker()]), LIMIT).ok, judge(Seen([a_worker()]), LIMIT).reason)


def test_an_event_loop_that_stands_still_is_dead_only_after_the_limit() -> None:
    """One of several is enough; the reason names it."""
    assert alive(Seen([a_worker(silent=30)]), LIMIT).ok

    verdict = alive(Seen([a_worker(7), a_worker(8, silent=31)]), LIMIT)

    assert (False, "process 8: its event loop has stood still for 31 s") == (verdict.ok, verdict.reason)
    assert [True, False] == [finding.well for finding in verdict.findings]


def test_what_starts_is_alive_but_neither_started_nor_ready() -> None:
    """However long it takes, and even where the lifespan blocks the loop: /startupz is there to bound it."""
    for worker in (STARTING, LONG_LIFESPAN):
        seen = Seen([worker])
        assert (True, False, False) == (alive(seen, LIMIT).ok, started(seen, LIMIT).ok, ready(seen, LIMIT).ok)


def test_what_keeps_a_worker_from_starting_is_said() -> None:
    """To whoever asks whether it has started, or is ready."""
    seen = Seen([a_worker(7, started=False, reading=False, waits_for="the consumer name 'a'")])

    for judge in (started, ready):
        assert "process 7: starting; it waits for the consumer name 'a'" == judge(seen, LIMIT).reason


def test_one_that_is_ready_makes_all_ready() -> None:
    """The others may still start, or drain, or have died."""
    seen = Seen([STARTING, a_worker(2), a_worker(3, draining=True, reading=False)])

    assert ready(seen, LIMIT).ok
    assert started(seen, LIMIT).ok


def test_what_keeps_a_worker_from_being_ready_is_said() -> None:
    """Each reason by its own words."""
    cases = {
        "draining": {"draining": True},
        "paused": {"paused": True, "reading": False},
        "the server does not answer": {"connected": False, "reading": False},
        "cannot read a, b": {"reading": False, "troubled": ("a", "b")},
        "its event loop has stood still for 31 s": {"silent": 31},
    }
    for reason, status in cases.items():
        verdict = ready(Seen([a_worker(**status)]), LIMIT)
        assert (False, f"process 1: {reason}") == (verdict.ok, verdict.reason)


def test_a_troubled_stream_beside_a_sound_one_is_no_reason_against_it() -> None:
    """But it is said."""
    verdict = ready(Seen([a_worker(troubled=("a",))]), LIMIT)

    assert verdict.ok
    assert "reading, but not a" == verdict.findings[0].reason


def test_what_was_lost_or_is_held_back_is_no_reason_against_it_but_is_said() -> None:
    """Of all processes together, behind the ok; of each in full."""
    held = ("orders: undelivered in group search",)
    verdict = ready(Seen([a_worker(trimmed=2), a_worker(2, trimmed=1, held_back=held), a_worker(3, held_back=held)]), LIMIT)

    assert (True, "ok; 3 found trimmed while pending; held back: orders: undelivered in group search") == (
        verdict.ok,
        verdict.reason,
    )
    assert "reading; 2 found trimmed while pending" == verdict.findings[0].reason


def test_when_all_are_to_end_none_is_ready_whatever_it_said_last() -> None:
    """A drain is alive even where a handler blocks it: the watchdog ends it, not the kubelet."""
    seen = Seen([a_worker(silent=300, draining=True, reading=False)], draining=True)

    assert alive(seen, LIMIT).ok
    assert (False, "draining") == (ready(Seen([a_worker()], draining=True), LIMIT).ok, ready(seen, LIMIT).reason)


def test_without_any_worker_it_lives_and_is_not_ready() -> None:
    """The supervisor is about to restart it, or gives up by itself; a restart from outside would not help."""
    assert alive(Seen([]), LIMIT).ok
    assert (False, "no worker process is there at the moment") == (ready(Seen([]), LIMIT).ok, ready(Seen([]), LIMIT).reason)
