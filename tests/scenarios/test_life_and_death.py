"""A worker as a process: killed, told to stop, blocked, without a server. Every figure is counted by the handlers' own ledger."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from datetime import datetime, timedelta

import pytest

from tests.scenarios.workers import a_fleet
from tests.waiting import wait_until


def add(client, count: int, stream: str = "orders", first: int = 0, seconds: float = 0.0) -> None:
    with client.pipeline(transaction=False) as pipe:
        for number in range(first, first + count):
            pipe.xadd(stream, {"number": number, "seconds": seconds})
        pipe.execute()


def pending(client, stream: str = "orders") -> int:
    return client.xpending(stream, "billing")["pending"]


@pytest.mark.parametrize("successor", ["after a restart", "beside it"])
def test_a_worker_killed_in_the_middle_of_a_thousand_entries_loses_none(server, redis_client, tmp_path, successor):
    """SIGKILL under load: a second worker, or the same one started again, handles the rest, within a lease and a sweep."""
    add(redis_client, 1000, seconds=0.002)
    with a_fleet(server.url, tmp_path) as fleet:
        victim = fleet.start()
        if successor == "beside it":
            fleet.start()
        fleet.until("done", 300)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        if successor == "after a restart":
            fleet.start()
        wait_until(lambda: set(range(1000)) <= set(fleet.numbers()), within=20)
        wait_until(lambda: pending(redis_client) == 0)
        finished = fleet.numbers()

        assert set(range(1000)) == set(finished)
        assert len(finished) - 1000 <= 10, "only what was in flight may run twice"
        assert 0 == redis_client.exists("{orders}:dlq:billing")


def test_a_worker_told_to_stop_finishes_what_runs_and_exits_with_0(server, redis_client, tmp_path):
    """SIGTERM under load: exit 0, every started handler ended, nothing pending; the rest is there for another worker, uncounted."""
    add(redis_client, 1000, seconds=0.01)
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start()
        fleet.until("done", 200)
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(10)
        started, done = fleet.numbers("started"), fleet.numbers()
        left = pending(redis_client)
        fleet.start("--burst", ready=False).wait(30)

        assert 0 == code
        assert sorted(started) == sorted(done)
        assert 0 == left
        assert list(range(1000)) == sorted(fleet.numbers())
        assert {(1, 0)} == {(line["attempt"], line["crashes"]) for line in fleet.ledger("started")}


def test_what_the_grace_cuts_off_is_handled_elsewhere_within_a_second_and_uncounted(server, redis_client, tmp_path):
    """Handlers that outlast the grace are interrupted and their entries released: the worker exits with 4, another one runs them."""
    add(redis_client, 5, seconds=30)
    with a_fleet(server.url, tmp_path, lease_ms=60_000) as fleet:
        worker = fleet.start("--grace", "300ms")
        fleet.until("started", 5)
        other = fleet.start("--grace", "0s")
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(10)
        exited_at = time.monotonic()
        fleet.until("started", 10, within=5)
        again = fleet.ledger("started")[5:]

        assert 4 == code
        assert 5 == len({line["number"] for line in again})
        assert {(1, 0)} == {(line["attempt"], line["crashes"]) for line in again}
        assert all(line["at"] - exited_at < 1 for line in again)
        assert {other.pid} == {line["pid"] for line in again}


def test_a_drain_that_interrupts_a_handler_does_not_speak_in_its_name(server, redis_client, tmp_path):
    """TERM while a handler blocks the event loop: the worker's lines say which worker, and carry no facts of that handler's entry."""
    add(redis_client, 1, stream="blocking", seconds=1.5)
    with a_fleet(server.url, tmp_path, lease_ms=60_000) as fleet:
        worker = fleet.start()
        fleet.until("started", 1)
        worker.send_signal(signal.SIGTERM)
        assert 0 == worker.wait(10)
        lines = fleet.logged(worker, "worker.draining") + fleet.logged(worker, "worker.stopped")

        assert 2 == len(lines)
        assert [] == [line for line in lines if line.keys() & {"entry_id", "stream", "handler", "attempt"}]
        assert {(fleet.ledger("started")[0]["consumer"], worker.pid)} == {(line["consumer"], line["pid"]) for line in lines}


FAILING_LIFESPAN = """
from contextlib import asynccontextmanager
from streamworker import StreamWorker

@asynccontextmanager
async def lifespan(app):
    raise RuntimeError("no payments today")
    yield

app = StreamWorker(group="billing", lifespan=lifespan)

@app.handler("orders")
async def charge(order: dict[str, str]) -> None: ...
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_lifespan_that_raises_is_one_record(server, tmp_path, workers):
    """Away from a terminal: its traceback once, as JSON, however many processes die of it; and exit code 1 for the first."""
    (tmp_path / "failing.py").write_text(FAILING_LIFESPAN)
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start("--workers", workers, app=str(tmp_path / "failing.py"), ready=False)
        if workers == "1":
            assert 1 == worker.wait(20)
            told = fleet.logged(worker, "worker.failed")
        else:
            told = fleet.until_logged(worker, "child.exited", 3)
            assert ["RuntimeError: no payments today"] * len(told) == [line["said"] for line in told]
        text = (tmp_path / "worker-0.log").read_text()

        assert 1 == len([line for line in told if "no payments today" in line.get("exception", "")])
        assert 1 == text.count("Traceback")
        assert "\u256d" not in text


def test_a_worker_on_a_terminal_says_why_it_does_not_roll(server, tmp_path):
    """HUP is what a terminal sends when it closes."""
    master, terminal = os.openpty()
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start(stdin=terminal)
        worker.send_signal(signal.SIGHUP)

        assert 0 == worker.wait(10)
        assert "standard input is a terminal" in fleet.logged(worker, "worker.draining")[0]["why"]
    os.close(master)
    os.close(terminal)


def test_a_second_interrupt_stops_at_once_with_130(server, redis_client, tmp_path):
    """Handlers are cancelled and their entries released, whatever the grace."""
    add(redis_client, 3, seconds=60)
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start("--grace", "10m")
        fleet.until("started", 3)
        worker.send_signal(signal.SIGINT)
        wait_until(lambda: fleet.has_logged(worker, "worker.draining"))
        worker.send_signal(signal.SIGINT)
        code = worker.wait(10)

        assert 130 == code
        assert 0 == pending(redis_client)
        assert 3 == redis_client.xlen("{orders}:retry:billing")


def test_the_first_interrupt_after_a_term_says_that_one_more_stops_at_once(server, redis_client, tmp_path):
    """It is no surprise end, and no silence; the next one is obeyed."""
    add(redis_client, 3, seconds=60)
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start("--grace", "10m")
        fleet.until("started", 3)
        worker.send_signal(signal.SIGTERM)
        fleet.until_logged(worker, "worker.draining")
        worker.send_signal(signal.SIGINT)
        said = fleet.until_logged(worker, "signal.ignored")
        assert worker.poll() is None
        worker.send_signal(signal.SIGINT)

        assert 130 == worker.wait(10)
        assert ["SIGINT: it drains already; once more to stop at once"] == [line["why"] for line in said]


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_a_worker_told_to_stop_while_its_program_is_imported_ends_with_0(valkey, tmp_path, options):
    """A pod that is deleted in its first seconds has not failed."""
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_suffix('.begun').touch()\ntime.sleep(60)\n"
    )
    with a_fleet(valkey.url, tmp_path) as fleet:
        worker = fleet.start("--app-dir", str(tmp_path), *options, app="slow:app", ready=False)
        wait_until((tmp_path / "slow.begun").exists, within=20)
        worker.send_signal(signal.SIGTERM)

        assert 0 == worker.wait(10)


def test_a_misspelt_variable_is_said_at_the_start(valkey, tmp_path):
    """With the one that was probably meant, and without its value."""
    with a_fleet(valkey.url, tmp_path, STREAMWORKER_CONCURENCY="7") as fleet:
        worker = fleet.start()
        said = fleet.until_logged(worker, "setting.ignored")
        text = (tmp_path / "worker-0.log").read_text()

    line = next(line for line in said if line["variable"] == "STREAMWORKER_CONCURENCY")
    assert "no setting has this name; did you mean STREAMWORKER_CONCURRENCY?" == line["why"]
    assert '"7"' not in text


def test_an_idle_worker_told_to_stop_is_gone_within_a_second(server, redis_client, tmp_path):
    """A blocked read is ended, not waited for; and the worker leaves no consumer name behind."""
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start()
        wait_until(lambda: redis_client.info("clients")["blocked_clients"] == 1)
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(10)
        draining, stopped = (
            next(line["timestamp"] for line in fleet.log_of(worker) if line["event"] == event)
            for event in ("worker.draining", "worker.stopped")
        )

        assert 0 == code
        assert datetime.fromisoformat(stopped) - datetime.fromisoformat(draining) < timedelta(seconds=1)
        assert [] == redis_client.xinfo_consumers("orders", "billing")


def test_a_handler_that_blocks_the_event_loop_keeps_its_lease(server, redis_client, tmp_path):
    """For three leases and more nothing is handed to the other worker: one run, no crash counted."""
    add(redis_client, 1, stream="blocking", seconds=3.5)
    with a_fleet(server.url, tmp_path, lease_ms=1000) as fleet:
        fleet.start()
        fleet.start()
        fleet.until("done", 1)
        wait_until(lambda: pending(redis_client, "blocking") == 0)

        assert [(0, 1, 0)] == [(line["number"], line["attempt"], line["crashes"]) for line in fleet.ledger("started")]


def test_a_thread_that_outlasts_the_grace_does_not_hold_the_process(server, redis_client, tmp_path):
    """A thread cannot be stopped; its entry is released, and the process ends without it."""
    add(redis_client, 1, stream="threads", seconds=120)
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start("--grace", "100ms")
        fleet.until("started", 1)
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(15)

        assert 4 == code
        assert 1 == redis_client.xlen("{threads}:retry:billing")


def test_a_handler_that_swallows_its_cancellation_cannot_keep_the_process_alive(server, redis_client, tmp_path):
    """The end is forced a few seconds after the grace; the entry stays pending for whoever reclaims it."""
    add(redis_client, 1, stream="stubborn")
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start("--grace", "0s")
        fleet.until("started", 1)
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(20)

        assert 4 == code
        assert 1 == pending(redis_client, "stubborn")
        assert fleet.has_logged(worker, "worker.ended_hard")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_whose_log_nobody_reads_ends_all_the_same(server, redis_client, tmp_path, workers):
    """The pipe is full, so the event loop waits in a log line, and holds the lock that the watchdog's own line needs."""
    with a_fleet(server.url, tmp_path) as fleet:
        log = tmp_path / "pipe"
        os.mkfifo(log)
        reading = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
        worker = fleet.start("--workers", str(workers), "--grace", "0s", "--log-level", "debug", log=log, ready=False)
        add(redis_client, 2_000)
        wait_until(lambda: is_full(log), within=20)
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(30)
        os.close(reading)

    assert 4 == code


def test_a_worker_without_standard_files_works(server, redis_client, tmp_path):
    """As some start a program in the background: its connections would get the numbers of those files."""
    add(redis_client, 3)
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start("--burst", ready=False, wrapper=("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"))
        code = worker.wait(20)

        assert 0 == code
        assert [0, 1, 2] == sorted(fleet.numbers())


def is_full(pipe) -> bool:
    """Whether who writes to it has to wait."""
    writing = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    try:
        return not select.select([], [writing], [], 0.2)[1]
    finally:
        os.close(writing)


def test_usr1_pauses_and_resumes_reading(server, redis_client, tmp_path):
    """While paused, entries stay undelivered."""
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start()
        worker.send_signal(signal.SIGUSR1)
        wait_until(lambda: fleet.has_logged(worker, "worker.paused"))
        wait_until(lambda: redis_client.info("clients")["blocked_clients"] == 0)
        add(redis_client, 3)
        undelivered = redis_client.xinfo_groups("orders")[0]["lag"]
        worker.send_signal(signal.SIGUSR1)
        fleet.until("done", 3)

        assert 3 == undelivered


def test_hup_rolls_the_process(server, redis_client, tmp_path):
    """It drains, and goes on as a fresh process of the same number."""
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start()
        worker.send_signal(signal.SIGHUP)
        wait_until(lambda: len([line for line in fleet.log_of(worker) if line["event"] == "worker.ready"]) == 2, within=20)
        add(redis_client, 1)
        fleet.until("done", 1)

        assert [worker.pid] == [line["pid"] for line in fleet.ledger("done")]


@pytest.mark.parametrize(("option", "value"), [("--max-deliveries", "20"), ("--max-runtime", "500ms")])
def test_a_limited_worker_drains_and_exits_with_0(server, redis_client, tmp_path, option, value):
    """At the limit it stops reading, finishes what runs, and leaves nothing pending."""
    add(redis_client, 100, seconds=0.05)
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start(option, value)
        code = worker.wait(10)

        assert 0 == code
        assert sorted(fleet.numbers("started")) == sorted(fleet.numbers())
        assert 20 <= len(fleet.numbers()) <= 30 or option == "--max-runtime"
        assert 0 == pending(redis_client)


def test_burst_waits_for_retries_and_for_other_workers(server, redis_client, tmp_path):
    """It ends with 0 when nothing is undelivered, pending with anybody, or waiting for a retry."""
    add(redis_client, 1, seconds=1)
    with a_fleet(server.url, tmp_path) as fleet:
        fleet.start()
        fleet.until("started", 1)
        burst = fleet.start("--burst", ready=False)
        code = burst.wait(20)

        assert 0 == code
        assert [0] == fleet.numbers()
        assert 0 == pending(redis_client)


def test_without_a_server_a_worker_says_so_and_exits_with_3(tmp_path):
    """It never falls back to a server of its own; it names `streamworker dev`, and no password."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with a_fleet(f"redis://user:secret@127.0.0.1:{port}/0", tmp_path) as fleet:
        worker = fleet.start()
        code = worker.wait(20)
        said = (tmp_path / "worker-0.log").read_text()

        assert 3 == code
        assert "streamworker dev" in said
        assert f"127.0.0.1:{port}" in said
        assert "secret" not in said


@pytest.mark.parametrize(
    ("arguments", "repair"),
    [
        (["--nonsense"], "--nonsense"),
        (["--concurrency", "0"], "--concurrency"),
        (["--grace", "25"], "25s"),
        (["--handler", "chrage"], "charge"),
        (["--log-level", "loud"], "--log-level"),
        (["--redis-url", "http://localhost"], "redis://"),
        (["--loop", "twisted"], "--loop"),
    ],
)
def test_wrong_options_are_a_sentence_and_exit_code_2(valkey, tmp_path, arguments, repair):
    """The sentence names what is wrong and what would be right."""
    with a_fleet(valkey.url, tmp_path) as fleet:
        worker = fleet.start(*arguments)
        code = worker.wait(20)
        said = (tmp_path / "worker-0.log").read_text()

        assert 2 == code
        assert repair in said
        assert "Traceback" not in said


def test_a_drain_without_a_signal_is_forced_to_its_end_too(server, redis_client, tmp_path):
    """A handler that swallows its cancellation cannot outlive --max-runtime either."""
    add(redis_client, 1, stream="stubborn")
    with a_fleet(server.url, tmp_path) as fleet:
        worker = fleet.start("--grace", "0s", "--max-runtime", "500ms")
        code = worker.wait(30)

        assert 4 == code
        assert fleet.has_logged(worker, "worker.ended_hard")
