"""The command line in a test: in this process for most, as a process of its own where signals or a terminal matter."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from typer.testing import CliRunner, Result

from streamworker.cli.main import app

COMMAND = [sys.executable, "-m", "streamworker"]
NOBODY = "redis://user:secret@127.0.0.1:1/0"
"""A port that nobody listens on, behind a URL with a secret."""


def run(*words: str | bytes, url: str | None = None, stdin: str | bytes | None = None) -> Result:
    """Run a command in this process, 80 columns wide, away from any terminal."""
    options = [] if url is None else ["-u", url]
    environment = {"COLUMNS": "80", "REDIS_URL": None, "STREAMWORKER_REDIS_URL": None, "NO_COLOR": "1"}
    return CliRunner().invoke(app, [*map(str, words), *options], input=stdin, env=environment)


def records(result: Result) -> list[dict[str, Any]]:
    """What a command printed as JSON lines."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def unsafe(text: str) -> list[str]:
    """The characters of an output that could steer a terminal or turn text around; newlines are not counted, nor odd spaces."""
    return [one for one in text if not one.isprintable() and one != "\n" and unicodedata.category(one) != "Zs"]


class Started:
    """A command that runs as a process; what it says is read with a deadline."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._rest: dict[Any, bytes] = {}

    def line(self, within: float = 10.0) -> str:
        """The next line of standard output."""
        return self._line(self.process.stdout, within)

    def error_line(self, within: float = 10.0) -> str:
        """The next line of standard error."""
        return self._line(self.process.stderr, within)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def end(self, within: float = 10.0) -> tuple[int, str, str]:
        """Its exit code, and what else it said on standard output and standard error."""
        rest = dict(self._rest)
        out, error = self.process.communicate(timeout=within)
        return (
            self.process.returncode,
            (rest.get(self.process.stdout, b"") + out).decode(),
            (rest.get(self.process.stderr, b"") + error).decode(),
        )

    def _line(self, pipe: Any, within: float) -> str:
        deadline = time.monotonic() + within
        held = self._rest.pop(pipe, b"")
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in held:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"no line within {within:g} s, only {held!r}")
                chunk = os.read(pipe.fileno(), 65_536)
                if not chunk:
                    raise AssertionError(f"it ended after {held!r}")
                held += chunk
        line, _, self._rest[pipe] = held.partition(b"\n")
        return line.decode()


@contextmanager
def started(words: Sequence[str], url: str, **options: Any) -> Iterator[Started]:
    """A command as a process of its own; killed at the end if it still runs."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "COLUMNS": "80", "PYTHONUNBUFFERED": ""}
    with subprocess.Popen([*COMMAND, *words, "-u", url], env=environment, **{**pipes, **options}) as process:
        try:
            yield Started(process)
        finally:
            if process.poll() is None:
                process.kill()
