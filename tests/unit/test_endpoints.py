"""The health endpoints over real sockets: whatever is sent to them, they answer the next one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from streamworker.addresses import parse_address
from streamworker.cli.probing import read_quickly
from streamworker.errors import SetupError
from streamworker.supervisor import endpoints
from streamworker.supervisor.endpoints import health_endpoints
from streamworker.supervisor.verdicts import Seen
from tests.unit.test_verdicts import a_worker
from tests.waiting import wait_until

LIMIT = timedelta(seconds=30)


class Workers:
    """What the endpoints see."""

    seen = Seen([a_worker()])

    def __call__(self) -> Seen:
        return self.seen


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def address(workers: Workers) -> Iterator[tuple[str, int]]:
    """Where they listen."""
    with ExitStack() as stack:
        with capture_logs() as lines:
            stack.enter_context(health_endpoints(("127.0.0.1", 0), workers, LIMIT, structlog.get_logger()))
        yield parse_address(lines[0]["address"])


def get(address: tuple[str, int], path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://{address[0]}:{address[1]}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def say(address: tuple[str, int], what: bytes) -> bytes:
    with socket.create_connection(address, timeout=5) as client:
        client.sendall(what)
        answer = b""
        while chunk := client.recv(65_536):
            answer += chunk
    return answer


@pytest.mark.parametrize("probe", ["livez", "readyz", "startupz"])
def test_a_sound_worker_is_well(address: Any, probe: str) -> None:
    """200 and a word, for GET and HEAD."""
    assert (200, "ok\n") == get(address, f"/{probe}")
    assert (200, "") == get(address, f"/{probe}", "HEAD")


def test_what_is_not_well_is_503_with_the_reason(address: Any, workers: Workers) -> None:
    """In plain text, or as JSON with all that is known."""
    workers.seen = Seen([a_worker(7), a_worker(8, silent=40)])
    reason = "process 8: its event loop has stood still for 40 s"
    status, body = get(address, "/livez?verbose")
    told = json.loads(body)

    assert (503, f"{reason}\n") == get(address, "/livez")
    assert (503, False, reason) == (status, told["ok"], told["reason"])
    assert [(7, True), (8, False)] == [(process["pid"], process["well"]) for process in told["processes"]]
    assert 40 == told["processes"][1]["silent_seconds"]
    assert told["processes"][1]["status"]["reading"] is True


def test_what_is_not_there_names_what_is(address: Any) -> None:
    """And nothing but GET and HEAD is taken."""
    assert (404, "there is /livez, /readyz, /startupz\n") == get(address, "/")
    assert 405 == get(address, "/livez", "POST")[0]


@pytest.mark.parametrize("request_", [b"GET\r\n\r\n", b"\xff" * 100 + b"\r\n\r\n", b"GET http://[ HTTP/1.1\r\n\r\n"])
def test_what_is_no_request_gets_an_answer_too(address: Any, request_: bytes) -> None:
    """One of 4xx."""
    assert say(address, request_).startswith(b"HTTP/1.1 4")


def test_a_request_without_end_is_cut_off(address: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one that never ends nor one that never begins holds its thread."""
    monkeypatch.setattr(endpoints, "WITHIN_SECONDS", 0.2)

    with socket.create_connection(address, timeout=5) as endless:
        endless.sendall(b"GET /livez HTTP/1.1\r\n")
        assert b"" == endless.recv(1)
    with socket.create_connection(address, timeout=5) as silent:
        assert b"" == silent.recv(1)
    assert (200, "ok\n") == get(address, "/livez")


@pytest.mark.parametrize("said", [b"", b"GET /livez HTTP/1.1\r\nX-"])
def test_two_hundred_slow_clients_do_not_keep_a_probe_away(address: Any, said: bytes) -> None:
    """A probe is answered within a second while they are open, again and again: the oldest are cut off, and few threads serve them."""
    with ExitStack() as stack:
        for _ in range(200):
            client = stack.enter_context(socket.create_connection(address, timeout=5))
            client.sendall(said)
        began = monotonic()
        for _ in range(3):
            assert (200, "ok\n") == get(address, "/livez")
        took = monotonic() - began
        wait_until(lambda: len(serving()) <= endpoints.MOST_AT_ONCE)

    assert took < 1


def test_slow_clients_that_come_again_and_again_do_not_keep_a_probe_away(address: Any) -> None:
    """While two threads open connections as fast as they can and say half a request."""
    over = threading.Event()

    def storm() -> None:
        while not over.is_set():
            with suppress(OSError), ExitStack() as stack:
                for _ in range(50):
                    client = stack.enter_context(socket.create_connection(address, timeout=5))
                    client.sendall(b"GET /livez HTTP/1.1\r\n")

    attackers = [threading.Thread(target=storm) for _ in range(2)]
    for attacker in attackers:
        attacker.start()
    try:
        for _ in range(5):
            assert (200, "ok\n") == get(address, "/livez")
    finally:
        over.set()
        for attacker in attackers:
            attacker.join()


def test_a_request_that_is_long_beyond_reason_is_not_read(address: Any) -> None:
    """It fills no memory: the connection ends, whatever it was."""
    with socket.create_connection(address, timeout=5) as client, suppress(ConnectionError):
        for _ in range(1_000):
            client.sendall(b"X-Long: " + b"x" * 60_000 + b"\r\n")

        pytest.fail("all of it was taken")
    assert (200, "ok\n") == get(address, "/livez")


def serving() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]


def test_a_place_that_is_taken_is_a_sentence(address: Any) -> None:
    """It names the address and the repair."""
    where = f"127.0.0.1:{address[1]}"
    with (
        pytest.raises(SetupError, match=rf"cannot listen on {where}.*--health-addr"),
        health_endpoints(address, Workers(), LIMIT, None),
    ):
        pass


# ---- streamworker health ----------------------------------------------------------------------------------------------------


def health(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "streamworker", "health", *words], capture_output=True, text=True, timeout=20)


def test_the_command_asks_and_says_in_one_line(address: Any, workers: Workers) -> None:
    """0 when it is well, 1 when it is not."""
    where = f"127.0.0.1:{address[1]}"
    well = health("--addr", where)
    workers.seen = Seen([a_worker(reading=False, paused=True)])
    unwell = health(f"--addr={where}", "--probe", "readyz")

    assert (0, "livez: ok\n", "") == (well.returncode, well.stdout, well.stderr)
    assert (1, "readyz: process 1: paused\n", "") == (unwell.returncode, unwell.stdout, unwell.stderr)


def test_where_nobody_answers_it_says_so() -> None:
    """One line, and 1; a wrong address is 2."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        where = f"127.0.0.1:{unused.getsockname()[1]}"
    nobody, wrong = health("--addr", where), health("--addr", "here")

    hint = "; outside of Kubernetes a worker answers only with --health-addr HOST:PORT"
    assert (1, f"livez: nobody answers at {where}: Connection refused{hint}\n") == (nobody.returncode, nobody.stdout)
    assert (2, "") == (wrong.returncode, wrong.stdout)
    assert wrong.stderr.startswith("Error: 'here' is not an address")


@pytest.mark.parametrize("words", [["--help"], ["--nonsense"], ["--probe", "healthz"], ["--addr"]])
def test_what_is_not_a_plain_probe_is_left_to_the_whole_command_line(words: list[str]) -> None:
    """Which has the help, and the words for what is wrong."""
    assert read_quickly(words) is None
    assert "╭─" in (shown := health(*words)).stdout + shown.stderr


def test_the_command_loads_nothing_of_the_stack() -> None:
    """A container runs it every few seconds."""
    program = """
import sys
sys.argv = ["streamworker", "health", "--addr", "127.0.0.1:1"]
from streamworker.cli.entry import main
try:
    main()
except SystemExit as end:
    code = end.code
heavy = {"typer", "rich", "pydantic", "redis", "structlog", "asyncio", "logging"} & set(sys.modules)
print(code, sorted(heavy))
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)

    assert "1 []" == shown.stdout.splitlines()[-1]


def test_a_supervisor_loads_neither_redis_nor_the_worker() -> None:
    """It is beside every few workers, and is to be small."""
    program = """
import sys
import streamworker.cli.main, streamworker.cli.supervising
print(sorted({"redis", "streamworker.worker.process", "streamworker.app", "uvloop"} & set(sys.modules)))
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)

    assert "[]" == shown.stdout.strip()
