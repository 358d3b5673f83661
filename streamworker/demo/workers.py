"""The demo's two workers: real processes, started with the command that a user would use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from streamworker.demo.ledger import LEDGER_VARIABLE, STREAM_VARIABLE

LONGEST_LIFE = "60s"
"""They end by themselves then, in case the demo itself is killed and cannot end them."""


class Worker:
    """A worker process with a consumer name of its own."""

    def __init__(self, name: str, url: str, stream: str, folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        environment = os.environ | {
            LEDGER_VARIABLE: str(folder),
            STREAM_VARIABLE: stream,
            # In the environment and not in the arguments, where every user of the machine could read a password.
            "STREAMWORKER_REDIS_URL": url,
        }
        command = [sys.executable, "-m", "streamworker", "run", "streamworker.demo.app:app"]
        # Whatever this shell or pod says of its own workers, each of these is one process.
        alone = ["--workers", "1", "--health-addr", "off"]
        options = ["--consumer", name, "--log-format", "json", "--max-runtime", LONGEST_LIFE, *alone]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own command, with our own arguments
                [*command, *options], env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    @property
    def state(self) -> str:
        """In a word: starting, working, killed, or its exit code."""
        match self._process.poll():
            case None:
                return "working" if self.is_ready else "starting"
            case code if code == -signal.SIGKILL:
                return "killed"
            case code:
                return f"exit {code}"

    @property
    def is_ready(self) -> bool:
        """Whether it has said that it reads."""
        return '"worker.ready"' in self.log

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text(errors="replace")

    def freeze(self) -> None:
        """Stop it where it is (SIGSTOP)."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: no handler of ours sees it coming."""
        self._process.kill()
        self._process.wait()

    def drain(self) -> int:
        """Tell it to stop (SIGTERM) and wait; answers its exit code."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(10)
        self.kill()
        return self._process.returncode
