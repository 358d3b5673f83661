"""What a worker sees of handlers in processes of their own: replies, middleware, programs that are not found there; and of its threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import structlog

from streamworker import SetupError, StreamWorker
from streamworker.loading import load_app
from streamworker.settings import Settings
from streamworker.worker.process import WorkerProcess
from tests.conformance import cpu_app
from tests.harness import an_app, dead_letters, pending, working
from tests.waiting import eventually

LONG = timedelta(seconds=20)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[StreamWorker]:
    monkeypatch.setenv("WORKER", str(os.getpid()))
    cpu_app.SEEN.clear()
    return load_app("tests.conformance.cpu_app:make", factory=True)


async def test_the_reply_comes_from_the_process_and_middleware_stands_around_it_in_the_worker(app, server, aredis):
    """One reply, what both have published, and an error by its words."""
    async with working(app, server.url), StreamWorker(settings=Settings(redis_url=server.url)) as asker:
        assert {"cents": "700"} == await asker.request("orders", {"n": 7}, timeout=LONG)
        await aredis.xadd("orders", {"n": "-1"})

        async def is_over() -> bool:
            return bool(await dead_letters(aredis)) and await pending(aredis) == 0

        await eventually(is_over, within=20)
        [letter] = await dead_letters(aredis)

    assert ["7: 1 published", *["-1: ValueError: no price"] * 3] == cpu_app.SEEN
    [(_, priced)] = await aredis.xrange("priced")
    assert str(os.getpid()).encode() != priced[b"pid"]
    assert [{b"n": b"7"}] == [fields for _, fields in await aredis.xrange("seen")]
    assert ("exhausted", "ValueError: no price") == (letter.notes["reason"], letter.notes["error"])
    assert "cpu_app.py" in letter.notes["traceback"]


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (
            "handler",
            "handler 'price' has executor='process', but a process of its own does not find it in 'tests.conf",
        ),
        ("lifespan", "the lifespan has failed in a process of a handler: RuntimeError: no model"),
    ],
)
async def test_a_program_that_cannot_run_in_a_process_of_its_own_ends_the_worker_at_its_start(
    monkeypatch, server, aredis, breaks, says
):
    """With a sentence, before an entry is taken."""
    monkeypatch.setenv("WORKER", str(os.getpid()))
    monkeypatch.setenv("BREAKS", breaks)
    app = load_app("tests.conformance.cpu_app:make", factory=True)
    await aredis.xadd("orders", {"n": 1})

    with pytest.raises(SetupError) as caught:
        await WorkerProcess(app, Settings(redis_url=server.url)).run()

    assert says in str(caught.value)
    assert [] == await aredis.xinfo_groups("orders")


def test_a_program_that_was_not_started_by_its_name_has_no_processes():
    """It says so before anything is done."""
    app = an_app()

    @app.handler("orders", executor="process")
    def work(body: dict[str, str]) -> None: ...

    with pytest.raises(SetupError, match="start it with `streamworker run module:app`"):
        WorkerProcess(app, Settings())


async def test_a_thread_past_its_timeout_keeps_its_place_and_the_log_says_so(server, aredis):
    """Its entry has failed and is settled; the next one begins when the thread has really ended."""
    app, gate = an_app(), threading.Event()
    begun: list[str] = []

    @app.handler("orders", concurrency=1, timeout=timedelta(milliseconds=100), executor="thread")
    def hang(body: dict[str, str]) -> None:
        begun.append(body["n"])
        if body["n"] == "1":
            gate.wait(20)

    with structlog.testing.capture_logs() as lines:
        async with working(app, server.url):
            await aredis.xadd("orders", {"n": "1"})

            async def is_said() -> bool:
                return any(line["event"] == "handler.overdue" for line in lines)

            await eventually(is_said, within=10)
            await aredis.xadd("orders", {"n": "2"})
            await asyncio.sleep(0.2)  # nothing says that something does not begin
            assert ["1"] == begun
            gate.set()

            async def both_began() -> bool:
                return "2" in begun

            await eventually(both_began, within=10)
    [overdue] = [line for line in lines if line["event"] == "handler.overdue"]
    assert ("hang", "orders", "error") == (overdue["handler"], overdue["stream"], overdue["log_level"])
