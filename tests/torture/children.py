"""The processes under a supervisor: which there are and how they ended, by its log and by the system.

A supervisor that is killed leaves its children behind; they become ours (PR_SET_CHILD_SUBREAPER), so that their exit codes can be had.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.torture.history import Life

PR_SET_CHILD_SUBREAPER = 36
TOLD_TO = frozenset({"supervisor.rolling", "supervisor.draining"})
"""What a supervisor says before it tells children to end."""

_reaped: dict[int, tuple[int, float]] = {}
"""The orphans that have ended: exit code and moment."""


def adopt_orphans() -> None:
    """From now on, whose parent dies is a child of this process."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def logged(log: Path, *events: str) -> list[dict[str, Any]]:
    """The whole lines of these events."""
    words = [f'"event": "{event}"'.encode() for event in events]
    whole, _, _ = log.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines() if any(word in line for word in words)]


def left(log: Path) -> list[int]:
    """The children of whose end the supervisor has not spoken."""
    ended = {line["pid"] for line in logged(log, "child.exited")}
    return [line["pid"] for line in logged(log, "child.started") if line["pid"] not in ended]


def send(pid: int, number: signal.Signals) -> None:
    """A signal, to whoever still can be told."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def is_gone(pid: int) -> bool:
    """Whether an orphan has ended; notes how. To be asked only once its supervisor has."""
    if pid not in _reaped:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return not Path(f"/proc/{pid}").exists()
        if ended == pid:
            _reaped[pid] = (os.waitstatus_to_exitcode(status), time.monotonic())
    return pid in _reaped


def lives(log: Path, killed: Mapping[int, float], supervisor_ordered_at: float | None) -> tuple[Life, ...]:
    """The children's. One is told to end by a roll or a drain of its supervisor, or by the supervisor's own death."""
    ended = {line["pid"]: (_code(line["how"]), _moment(line)) for line in logged(log, "child.exited")} | _reaped
    ready = {line["pid"] for line in logged(log, "worker.ready")}
    told = [_moment(line) for line in logged(log, *TOLD_TO)]
    told += [] if supervisor_ordered_at is None else [supervisor_ordered_at]
    found = []
    for line in logged(log, "child.started"):
        pid, started = line["pid"], _moment(line)
        code, end = ended.get(pid, (None, None))
        if code is None and pid in killed and not Path(f"/proc/{pid}").exists():
            code, end = -signal.SIGKILL, killed[pid]  # reaped by its supervisor, which died before it could say so
        ordered_at = killed.get(pid, min((at for at in told if at >= started and (end is None or at <= end)), default=None))
        order = "kill" if pid in killed else None if ordered_at is None or (code is not None and code < 0) else "term"
        found.append(Life(pid, started, end, code, order, ordered_at if order else None, pid in ready))
    return tuple(found)


def _code(how: str) -> int:
    """An end in the supervisor's words as subprocess has it."""
    kind, _, number = how.rpartition(" ")
    return int(number) if kind == "exit code" else -int(number) if kind == "signal" else -signal.Signals[how]


def _moment(line: Mapping[str, Any]) -> float:
    """When a line was logged, on the clock of the ledger."""
    return datetime.fromisoformat(line["timestamp"]).timestamp() - time.time() + time.monotonic()
