"""Imported by every program that is measured: counts handled entries, and tells the suite at the first and at the last.

Needs nothing but the standard library, as it runs in the environments of all peers.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from typing import Any

import sampling

ASKED: dict[str, Any] = json.loads(os.environ.get("BENCHMARK", "{}"))
"""What the suite asks of this program: `url`, `stream`, `group`, `count`, `report` (where to tell it) and what the scenario adds."""

_COUNT: int = ASKED.get("count", 0)
_seen = 0
_lock = threading.Lock()
_began = (0.0, 0.0)
_latencies: list[float] = []


def hit() -> None:
    """One entry is handled."""
    global _seen
    _seen += 1
    if _seen == 1:
        begin()
    elif _seen == _COUNT:
        end(_COUNT - 1)


def hit_in_thread() -> None:
    """One entry is handled, in any thread."""
    with _lock:
        hit()


def hits(number: int) -> None:
    """So many entries are handled at once."""
    global _seen
    if _seen == 0:
        begin()
    _seen += number
    if _seen >= _COUNT > _seen - number:
        end(_COUNT - number)


def late(sent: float) -> None:
    """A handler has just started on what was sent at that time of `time.monotonic`, which all processes share."""
    global _seen
    _latencies.append(time.monotonic() - sent)
    _seen += 1
    if _seen == 1:
        begin()
    elif _seen == _COUNT:
        end(_COUNT - 1, latencies=_latencies)


def begin() -> None:
    """The measured part begins now."""
    global _began
    if ASKED.get("sampled"):
        sampling.start()
    tell({"event": "begins", "pid": os.getpid()})
    _began = (time.process_time(), time.perf_counter())


def end(count: int, **more: Any) -> None:
    """The measured part, in which `count` entries were handled, ends now."""
    wall, cpu = time.perf_counter() - _began[1], time.process_time() - _began[0]
    if ASKED.get("sampled"):
        more["seen"] = sampling.stop()
    tell({"event": "ends", "count": count, "wall": wall, "cpu": cpu, "rss_mb": peak_mb(), **more})


def tell(fact: dict[str, Any]) -> None:
    """Write one line to the suite's pipe."""
    with open(ASKED["report"], "a", encoding="utf-8") as pipe:  # noqa: PTH123  # for old Pythons too
        pipe.write(json.dumps(fact) + "\n")


def peak_mb() -> float:
    """The most memory that this process has held, in millions of bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
