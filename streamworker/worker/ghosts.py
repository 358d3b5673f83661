"""Entries that were trimmed away while they were pending: each is an alarm, whoever comes across it."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any


class Ghosts:
    """Those that one consumer has found. It may be told of them in any thread."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._lock = Lock()
        self.found: int = 0
        """How many so far."""

    def of_others(self, stream: str, entry_ids: Sequence[str]) -> None:
        """Nobody here has their fields."""
        self._tell(
            stream,
            entry_ids,
            "a worker that runs one of them still finishes it; what a dead worker held is lost: trim later, or let a Retention do it",
        )

    def of_ours(self, stream: str, entry_ids: Sequence[str]) -> None:
        """They are in memory here, and are finished."""
        self._tell(
            stream,
            entry_ids,
            "this worker has them in memory and finishes them; if it dies before, they are lost: trim later, or let a Retention do it",
        )

    def _tell(self, stream: str, entry_ids: Sequence[str], why: str) -> None:
        if not entry_ids:
            return
        with self._lock:
            self.found += len(entry_ids)
        self._log.error("entries.trimmed_while_pending", stream=stream, entries=len(entry_ids), first=entry_ids[0], why=why)
