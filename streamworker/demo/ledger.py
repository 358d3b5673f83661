"""What the demo's handlers saw: one file of lines per process, each written at once, so that a SIGKILL loses none."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from streamworker.delivery import Delivery

LEDGER_VARIABLE = "STREAMWORKER_DEMO_LEDGER"
STREAM_VARIABLE = "STREAMWORKER_DEMO_STREAM"


@dataclass(frozen=True, slots=True)
class Tally:
    """The ledger added up: each set holds entry ids, `runs` how often each was handled to its end."""

    runs: Counter[str]
    retried: frozenset[str]
    reclaimed: frozenset[str]
    delays: tuple[timedelta, ...]


class Ledger:
    """The ledger in a folder."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def note(self, event: str, delivery: Delivery) -> None:
        """Write one line."""
        line = {
            "event": event,
            "id": delivery.id,
            "attempt": delivery.attempt,
            "crashes": delivery.crashes,
            "delay_ms": (datetime.now(UTC) - delivery.published_at) / timedelta(milliseconds=1),
        }
        descriptor = os.open(self._folder / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, json.dumps(line).encode() + b"\n")
        finally:
            os.close(descriptor)

    def tally(self) -> Tally:
        """Add up what is written so far."""
        lines = self._lines()
        started = [line for line in lines if line["event"] == "started"]
        return Tally(
            runs=Counter(line["id"] for line in lines if line["event"] == "handled"),
            retried=frozenset(line["id"] for line in started if line["attempt"] > 1),
            reclaimed=frozenset(line["id"] for line in started if line["crashes"] > 0),
            delays=tuple(
                timedelta(milliseconds=line["delay_ms"]) for line in started if line["attempt"] == 1 and not line["crashes"]
            ),
        )

    def _lines(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        for file in sorted(self._folder.glob("*.jsonl")):
            # The last line may be half written at the moment: it has no end yet, and is read the next time.
            whole, _, _ = file.read_bytes().rpartition(b"\n")
            lines += [json.loads(line) for line in whole.splitlines()]
        return lines
