"""Workers as processes of their own, started as a user starts them, and the ledger that they keep."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]


class Fleet:
    """Starts workers and reads what they noted. Whatever still runs at the end is killed."""

    def __init__(self, url: str, folder: Path, lease_ms: int = 1000, **environment: str) -> None:
        self.url = url
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self._environment = os.environ | {"LEDGER": str(folder), "LEASE_MS": str(lease_ms), "PYTHONPATH": str(ROOT), **environment}

    def start(
        self,
        *options: str,
        app: str = "tests.scenarios.apps:app",
        ready: bool = True,
        stdin: int = subprocess.DEVNULL,
        log: Path | None = None,
        wrapper: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a worker; unless told otherwise, wait until it says that it reads."""
        log = self.folder / f"worker-{len(self.workers)}.log" if log is None else log
        command = [
            *wrapper,
            sys.executable,
            "-m",
            "streamworker",
            "run",
            app,
            "--redis-url",
            self.url,
            "--log-format",
            "json",
            *options,
        ]
        with log.open("wb") as output:
            # In a process group of its own, as a terminal or an init system starts it.
            worker = subprocess.Popen(command, stdin=stdin, stderr=output, env=self._environment, cwd=ROOT, start_new_session=True)
        self.workers.append(worker)
        if ready:
            wait_until(lambda: worker.poll() is not None or self.has_logged(worker, "worker.ready"), within=20)
        return worker

    def log_of(self, worker: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
        """What a worker has logged, line by line."""
        text = (self.folder / f"worker-{self.workers.index(worker)}.log").read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    def logged(self, worker: subprocess.Popen[bytes], event: str) -> list[dict[str, Any]]:
        """The lines of one event."""
        return [line for line in self.log_of(worker) if line["event"] == event]

    def until_logged(
        self, worker: subprocess.Popen[bytes], event: str, count: int = 1, within: float = 20.0
    ) -> list[dict[str, Any]]:
        """Wait until it has logged this event so often; answers the lines."""
        wait_until(lambda: len(self.logged(worker, event)) >= count, within)
        return self.logged(worker, event)

    def has_logged(self, worker: subprocess.Popen[bytes], event: str) -> bool:
        return any(line["event"] == event for line in self.log_of(worker))

    def ledger(self, event: str) -> list[dict[str, Any]]:
        """What the handlers noted of this event, in the order of time."""
        lines = []
        for file in self.folder.glob("*.jsonl"):
            # A reader may see a line while it is being written: what has no end yet is read the next time.
            whole, _, _ = file.read_bytes().rpartition(b"\n")
            lines += [json.loads(line) for line in whole.splitlines()]
        return sorted((line for line in lines if line["event"] == event), key=lambda line: line["at"])

    def numbers(self, event: str = "done") -> list[int]:
        return [line["number"] for line in self.ledger(event)]

    def until(self, event: str, count: int, within: float = 20.0) -> None:
        wait_until(lambda: len(self.ledger(event)) >= count, within)

    def end(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGKILL)
            worker.wait()


@contextmanager
def a_fleet(url: str, folder: Path, **options: Any) -> Iterator[Fleet]:
    """A fleet that is gone at the end of the block."""
    fleet = Fleet(url, folder, **options)
    try:
        yield fleet
    finally:
        fleet.end()
