"""The life of a pod: a worker as Kubernetes starts, probes and ends it, alone and with children."""

from __future__ import annotations

import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scenarios.test_life_and_death import add, pending
from tests.scenarios.workers import Fleet, a_fleet
from tests.waiting import wait_until

APP = "tests.scenarios.pod_app:app"
LIMIT_SECONDS = 1.5


@pytest.fixture
def fleet(valkey, tmp_path) -> Iterator[Fleet]:
    with a_fleet(valkey.url, tmp_path, STREAMWORKER_LIVENESS_LIMIT=f"{LIMIT_SECONDS * 1000:.0f}ms") as fleet:
        yield fleet


Probe = Callable[[str], int]


def start(fleet: Fleet, workers: str, *options: str) -> tuple[subprocess.Popen[bytes], Probe]:
    """A worker, and what asks it: the status of a probe, 0 when nobody answers."""
    worker = fleet.start("--workers", workers, "--health-addr", "127.0.0.1:0", *options, app=APP, ready=False)
    [listening] = fleet.until_logged(worker, "health.listening")

    def probe(name: str) -> int:
        try:
            with urllib.request.urlopen(f"http://{listening['address']}/{name}", timeout=5) as response:
                return response.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    return worker, probe


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_pod_starts_works_drains_and_ends_in_time(fleet, client, tmp_path: Path, workers: str) -> None:
    """Not started, then ready; TERM under load: not ready but alive while it drains, then exit 0. Nothing is lost or handled twice."""
    (tmp_path / "wait").touch()
    worker, probe = start(fleet, workers, "--concurrency", "5")
    while_starting = [probe(name) for name in ("livez", "startupz", "readyz")]
    (tmp_path / "wait").unlink()
    wait_until(lambda: probe("readyz") == 200, within=20)
    when_ready = [probe(name) for name in ("livez", "startupz", "readyz")]
    add(client, 60, seconds=0.5)
    fleet.until("done", 10)
    worker.send_signal(signal.SIGTERM)
    told_at = time.monotonic()
    while_draining = set()
    while worker.poll() is None:
        while_draining.add((probe("readyz"), probe("livez")))
    seconds = time.monotonic() - told_at
    left, started, done = pending(client), fleet.numbers("started"), fleet.numbers()
    fleet.start("--burst", "--concurrency", "50", app=APP, ready=False).wait(30)

    assert [200, 503, 503] == while_starting
    assert [200, 200, 200] == when_ready
    assert (503, 200) in while_draining
    assert while_draining <= {(200, 200), (503, 200), (503, 0), (0, 0)}, "ready once more, or dead, while it drained"
    assert 0 == worker.returncode
    assert seconds < 5
    assert 0 == left
    assert sorted(started) == sorted(done)
    assert list(range(60)) == sorted(fleet.numbers())
    assert {(1, 0)} == {(line["attempt"], line["crashes"]) for line in fleet.ledger("started")}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_blocked_event_loop_is_dead_after_the_limit_and_not_before(fleet, client, workers: str) -> None:
    """The endpoints answer all the while; when the loop turns again the pod is well again."""
    worker, probe = start(fleet, workers)
    wait_until(lambda: probe("readyz") == 200, within=20)
    add(client, 1, stream="blocking", seconds=4)
    fleet.until("started", 1)
    blocked_at = fleet.ledger("started")[0]["at"]
    wait_until(lambda: probe("livez") == 503, within=4)
    dead_at = time.monotonic()
    wait_until(lambda: probe("livez") == 200, within=10)
    well_at = time.monotonic()
    [done] = fleet.ledger("done")
    worker.send_signal(signal.SIGTERM)

    # The last status came up to a second before the loop stood still.
    assert LIMIT_SECONDS - 1.2 < dead_at - blocked_at < LIMIT_SECONDS + 1
    assert well_at > done["at"]
    assert 0 == worker.wait(15)


def test_an_outage_of_the_server_makes_a_pod_not_ready_and_leaves_it_alive(private_server, tmp_path: Path) -> None:
    """A restart would not help; when the server is back it is ready by itself."""
    server = private_server("valkey", data_dir=tmp_path / "data")
    with a_fleet(server.url, tmp_path) as fleet:
        worker, probe = start(fleet, "1")
        wait_until(lambda: probe("readyz") == 200, within=20)
        server.kill()
        wait_until(lambda: probe("readyz") == 503, within=10)
        alive = probe("livez")
        server.restart()
        wait_until(lambda: probe("readyz") == 200, within=20)
        worker.send_signal(signal.SIGTERM)

        assert 200 == alive
        assert 0 == worker.wait(15)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port_is_a_sentence_and_exit_code_2(fleet, workers: str) -> None:
    """It names the address and the repair, and starts nothing."""
    other, _ = start(fleet, "1")
    [listening] = fleet.logged(other, "health.listening")
    worker = fleet.start("--workers", workers, "--health-addr", listening["address"], app=APP, ready=False)
    code = worker.wait(20)
    said = (fleet.folder / "worker-1.log").read_text()

    assert 2 == code
    assert 1 == said.count(f"Error: cannot listen on {listening['address']} for health probes: ")
    assert "--health-addr off" in said
    assert "Traceback" not in said
