"""The threads of handlers: as many as are needed, none that is waited for, and no call that is forgotten."""

from __future__ import annotations

import asyncio
import threading

import pytest

from streamworker.worker.threads import Threads


class Vacating:
    """Counts the places that were given back."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


async def test_what_a_function_returns_and_raises_comes_back() -> None:
    """`StopIteration` too, which no future can carry."""
    threads, vacated = Threads(1), Vacating()

    def stop() -> None:
        raise StopIteration

    returned, nothing = await threads.call(vacated, "a".join, ("bc",))
    _, error = await threads.call(vacated, stop, ())
    threads.shut_down()

    assert ("bac", None) == (returned, nothing)
    assert isinstance(error, StopIteration)
    assert 2 == vacated.count


async def test_a_thread_that_is_free_is_used_again() -> None:
    """There are as many as calls at once, and `most` at most."""
    threads, names = Threads(3), set[str]()

    def note() -> None:
        names.add(threading.current_thread().name)

    for _ in range(20):
        await threads.call(Vacating(), note, ())
    one = len(names)
    gate = threading.Barrier(4)
    calls = [asyncio.ensure_future(threads.call(Vacating(), gate.wait, (10,))) for _ in range(3)]
    await asyncio.to_thread(gate.wait, 10)
    await asyncio.gather(*calls)
    await asyncio.gather(*[threads.call(Vacating(), note, ()) for _ in range(20)])
    threads.shut_down()

    assert 1 == one
    assert len(names) <= 3


async def test_who_is_cancelled_gives_its_place_back_when_nothing_runs_any_more() -> None:
    """At once where its function has not begun, which then never runs; else when that has ended."""
    threads, first, second, ran = Threads(1), Vacating(), Vacating(), list[int]()
    begun, gate = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        gate.wait(10)
        ran.append(1)

    running = asyncio.ensure_future(threads.call(first, block, ()))
    waiting = asyncio.ensure_future(threads.call(second, ran.append, (2,)))
    await asyncio.to_thread(begun.wait, 10)
    for task in (running, waiting):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    at_once = (first.count, second.count)
    gate.set()
    await threads.call(Vacating(), ran.append, (3,))
    threads.shut_down()

    assert (0, 1) == at_once
    assert (1, 1) == (first.count, second.count)
    assert [1, 3] == ran


async def test_what_waits_when_all_is_shut_down_is_cancelled() -> None:
    """And does not run after what runs."""
    threads, vacated, ran = Threads(1), Vacating(), list[int]()
    begun, gate = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        gate.wait(10)

    running = asyncio.ensure_future(threads.call(Vacating(), block, ()))
    waiting = asyncio.ensure_future(threads.call(vacated, ran.append, (1,)))
    await asyncio.to_thread(begun.wait, 10)
    threads.shut_down()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await running

    assert (1, []) == (vacated.count, ran)


async def test_a_system_without_further_threads_is_said_only_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called waits for those that are there."""
    threads, none = Threads(2), Threads(2)
    gate = threading.Event()
    running = asyncio.ensure_future(threads.call(Vacating(), gate.wait, (10,)))
    await asyncio.sleep(0)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    waiting = asyncio.ensure_future(threads.call(Vacating(), len, ("four",)))
    with pytest.raises(RuntimeError, match="new thread"):
        await none.call(Vacating(), len, ("four",))
    gate.set()

    assert (4, None) == await waiting
    await running
    threads.shut_down()
