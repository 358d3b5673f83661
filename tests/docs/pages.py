"""Runs what a documentation page shows, in the page's order, against a real server, and compares what it prints.

- A `console` block is a terminal: lines that begin with `$ ` are run in it, the lines below are what they print.
- A `pycon` block is the asyncio REPL (`python -m asyncio`): `>>> await …` works. A `python` block is run as a whole.
- All other languages are shown only. A comment above a block says what else is to be known about it: `<!-- file: NAME -->` writes the
  block into a file, `<!-- waits -->` leaves its last command running until the next block has run (`^C` ends it), and
  `<!-- shown only: WHY -->` is not run.

What differs from run to run (entry ids, times, ports) is compared by its form. An id keeps its meaning on the page: the first one
printed in its place stands for it from there on, in commands too. With `STREAMWORKER_DOCS=write` in the environment a page's outputs
are written anew from the run. A markdown test library could find the blocks, but none of this.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import io
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis

from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WRITE = os.environ.get("STREAMWORKER_DOCS") == "write"
WITHIN = 40.0
SHOWN_SERVER = "localhost:6379"

_BLOCK = re.compile(r"^(?:<!-- (?P<note>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ENTRY_ID = re.compile(r"\b1\d{12}-\d+\b")
_VOLATILE = [
    (re.compile(r"(\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d([.,]\d+)?(Z|\+00:00)?"), "<moment>"),
    (
        re.compile(r"(duration_ms|seconds|after_s|idle_ms|age_ms|pid|in_flight|time_since_delivered)(=|['\"]: )\d+(\.\d+)?"),
        r"\1=<n>",
    ),
    (re.compile(r"(?<=3\) \(integer\) )\d+"), "<ms>"),
    (re.compile(r'File "[^"]*/([^/"]+)"'), r'File "\1"'),
    (re.compile(r"[\w.-]+-\d+-[0-9a-f]{6}\b"), "<consumer>"),
    (re.compile(r"(?<![\w.])\d+(\.\d+)?(ms|s|m|h|d)(\d+[smhd])?\b"), "<duration>"),
    (re.compile(r"version=\S+"), "version=<version>"),
    (re.compile(r"─+|-{3,}"), "<rule>"),
    (re.compile(r"[ \t]+"), " "),
    # Where a table cuts a text off depends on how wide its other columns came out.
    (re.compile(r"^(.{60})[^\n]*… ?$", re.MULTILINE), r"\1…"),
]


@dataclass
class Block:
    """A fenced block of a page: what it is written in, what it says, what the comment above it says, and where it stands."""

    language: str
    body: str
    note: str
    start: int
    end: int
    line: int


@dataclass
class Step:
    """Something that is run, and what it prints."""

    source: str
    expected: str


@dataclass
class Page:
    """A page and its blocks."""

    path: Path
    text: str = field(init=False)
    blocks: list[Block] = field(init=False)

    def __post_init__(self) -> None:
        self.text = self.path.read_text()
        self.blocks = [
            Block(
                found["language"],
                found["body"],
                found["note"] or "",
                found.start("body"),
                found.end("body"),
                self.text.count("\n", 0, found.start("body")),
            )
            for found in _BLOCK.finditer(self.text)
        ]


def pages() -> list[Path]:
    """Every page of the documentation."""
    return sorted(DOCS.rglob("*.md"))


def has_something_to_run(path: Path) -> bool:
    return any(block.language in ("console", "pycon", "python") for block in Page(path).blocks)


class Terminal:
    """One command at a terminal: what it prints, standard error included, is read as it comes."""

    def __init__(self, command: str, environment: dict[str, str], folder: Path) -> None:
        leader, follower = pty.openpty()
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", command],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        os.close(follower)
        self._leader = leader
        self._read = b""
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return _COLOUR.sub("", self._read.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "")

    def ends(self) -> str:
        """Wait for the end; answers everything that was printed."""
        try:
            self._process.wait(WITHIN)
        finally:
            self.kill()
        return self.output

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        os.killpg(self._process.pid, signal.SIGINT)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(5)
        with contextlib.suppress(OSError):
            os.close(self._leader)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed: the command has ended
            while data := os.read(self._leader, 65_536):
                self._read += data


class Runner:
    """Runs a page's blocks one after the other. Everything happens in `folder`, with the server at `url`."""

    def __init__(self, page: Page, url: str, folder: Path) -> None:
        self._page = page
        self._folder = folder
        self._server = url.removeprefix("redis://").partition("/")[0]
        self._client = redis.Redis.from_url(url)
        self._environment = self._terminal_environment(url)
        self._ids: dict[str, str] = {}
        self._module = types.ModuleType("__main__")
        self._waiting: tuple[Block, Terminal, Step] | None = None
        self._rewritten: dict[int, str] = {}

    def run(self) -> None:
        """Run all blocks. Raises `AssertionError` that names the line where the page says something else than the run."""
        with asyncio.Runner() as runner, self._client:
            try:
                for block in self._page.blocks:
                    waiting, self._waiting = self._waiting, None
                    self._run_block(block, runner)
                    if waiting is not None:
                        self._end_waiting(*waiting)
            finally:
                if self._waiting is not None:
                    self._waiting[1].kill()
        if self._rewritten:
            self._write()

    def _run_block(self, block: Block, runner: asyncio.Runner) -> None:
        if block.note.startswith("file: "):
            (self._folder / block.note.removeprefix("file: ")).write_text(block.body)
        elif block.note.startswith("shown only"):
            return
        elif block.language == "console":
            self._run_console(block)
        elif block.language == "pycon":
            self._run_repl(block, runner)
        elif block.language == "python":
            self._execute(block.body, "exec", runner, block.line)

    # ---- terminals ----------------------------------------------------------------------------------------------------------

    def _run_console(self, block: Block) -> None:
        steps = list(_console_steps(block.body))
        shown: list[str] = []
        for step in steps:
            terminal = Terminal(self._in_this_run(step.source), self._environment, self._folder)
            if block.note == "waits" and step is steps[-1]:
                wait_until(lambda: self._client.info("clients")["blocked_clients"] > 0, within=WITHIN)
                self._waiting = (block, terminal, step)
                return
            shown += [f"$ {step.source}", self._compare(block, step, terminal.ends())]
        self._rewrite(block, shown)

    def _end_waiting(self, block: Block, terminal: Terminal, step: Step) -> None:
        before, interrupted, after = step.expected.partition("^C")
        try:
            if not interrupted:
                shown = self._compare(block, step, terminal.ends())
            else:
                first = Step(step.source, before.rstrip("\n"))
                lines = first.expected.count("\n") + 1
                wait_until(lambda: bool(terminal.output) and terminal.output.rstrip("\n").count("\n") + 1 >= lines, within=WITHIN)
                so_far = terminal.output
                shown = self._compare(block, first, so_far)
                terminal.interrupt()
                rest = terminal.ends().removeprefix(so_far)
                shown += "\n^C\n" + self._compare(block, Step(step.source, after.strip("\n")), rest)
        finally:
            terminal.kill()
        self._rewrite(block, [f"$ {step.source}", shown.rstrip("\n")])

    def _terminal_environment(self, url: str) -> dict[str, str]:
        """A plain terminal of a certain width, and a `redis-cli` that finds the server by itself."""
        programs = self._folder / ".bin"
        programs.mkdir()
        host, _, port = self._server.partition(":")
        commands = {
            "redis-cli": f"{shutil.which('redis-cli')} -h {host} -p {port}",
            "streamworker": f"{sys.executable} -m streamworker",
        }
        for name, command in commands.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (programs / name).chmod(0o755)
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMWORKER_", "FORCE_", "REDIS"))}
        return plain | {
            "STREAMWORKER_REDIS_URL": url,
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TERM": "dumb",
            "NO_COLOR": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_PLUGINS": "pytest_asyncio.plugin,streamworker.testing.plugin",
            "COLUMNS": "132",
            "LINES": "50",
        }

    # ---- Python -------------------------------------------------------------------------------------------------------------

    def _run_repl(self, block: Block, runner: asyncio.Runner) -> None:
        shown: list[str] = []
        for example in doctest.DocTestParser().get_examples(block.body):
            printed = self._execute(example.source, "single", runner, block.line + example.lineno)
            step = Step(example.source.strip(), example.want.rstrip("\n"))
            lines = step.source.split("\n")
            shown += [f">>> {lines[0]}", *(f"... {line}" for line in lines[1:])]
            output = self._compare(block, step, printed)
            shown += [output] if output else []
        self._rewrite(block, shown)

    def _execute(self, source: str, mode: str, runner: asyncio.Runner, line: int) -> str:
        source = "\n" * line + self._in_this_run(source).replace(SHOWN_SERVER, self._server)
        code = compile(source, str(self._page.path), mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            try:
                result = types.FunctionType(code, self._module.__dict__)()
                if asyncio.iscoroutine(result):
                    runner.run(result)
            except Exception as error:
                if mode != "single":
                    raise
                print("Traceback (most recent call last):\n  ...", *traceback.format_exception_only(error), sep="\n")
        return printed.getvalue()

    # ---- comparing ----------------------------------------------------------------------------------------------------------

    def _compare(self, block: Block, step: Step, actual: str) -> str:
        """Compare, and remember which id of the page is which of this run; answers what the page should show."""
        actual = actual.replace(self._server, SHOWN_SERVER).strip("\n")
        if not self._same(step.expected, actual):
            where = f"{self._page.path.name}, line {block.line}: {step.source}"
            assert WRITE, f"{where}\n--- the page says\n{step.expected}\n--- the run says\n{actual}"
            return self._as_shown(actual)
        return step.expected

    def _same(self, expected: str, actual: str) -> bool:
        theirs, ours = _ENTRY_ID.findall(expected), _ENTRY_ID.findall(actual)
        if len(theirs) == len(ours):
            for shown, real in zip(theirs, ours, strict=True):
                if self._ids.setdefault(shown, real) != real:
                    return False
        form, got = _by_form(expected), _by_form(actual)
        if "..." not in form:
            return form == got
        return re.fullmatch(".*".join(map(re.escape, form.split("..."))), got, re.DOTALL) is not None

    def _in_this_run(self, source: str) -> str:
        return _ENTRY_ID.sub(lambda found: self._ids.get(found[0], found[0]), source)

    def _as_shown(self, actual: str) -> str:
        shown = {real: shown for shown, real in self._ids.items()}
        for real in _ENTRY_ID.findall(actual):
            if real not in shown:
                self._ids[real] = shown[real] = real
        text = _ENTRY_ID.sub(lambda found: shown[found[0]], actual)
        return "\n".join(line.rstrip() for line in text.split("\n"))

    def _rewrite(self, block: Block, lines: list[str]) -> None:
        text = "\n".join(line for line in lines if line) + "\n"
        if WRITE and text != block.body:
            self._rewritten[block.start] = text

    def _write(self) -> None:
        text = self._page.text
        for block in reversed(self._page.blocks):
            if block.start in self._rewritten:
                text = text[: block.start] + self._rewritten[block.start] + text[block.end :]
        self._page.path.write_text(text)


def _console_steps(body: str) -> Iterator[Step]:
    """The commands of a terminal with their outputs; a command goes on in the next line after a backslash."""
    command: list[str] = []
    output: list[str] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            if command:
                yield Step("\n".join(command), "\n".join(output).rstrip("\n"))
            command, output = [line.removeprefix("$ ")], []
        elif command and not output and command[-1].endswith("\\"):
            command.append(line)
        else:
            output.append(line)
    yield Step("\n".join(command), "\n".join(output).rstrip("\n"))


def _by_form(text: str) -> str:
    text = _ENTRY_ID.sub("<id>", text)
    for pattern, form in _VOLATILE:
        text = pattern.sub(form, text)
    return "\n".join(line.strip() for line in text.split("\n") if line.strip())
