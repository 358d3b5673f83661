"""What was measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something took, many times: in milliseconds."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """From at least one duration in seconds."""
        ordered = sorted(seconds)
        last = len(ordered) - 1
        p50, p90, p99, longest = (round(ordered[min(last, len(ordered) * part // 100)] * 1000, 3) for part in (50, 90, 99, 100))
        return cls(p50, p90, p99, longest)

    def record(self) -> dict[str, float]:
        """For programs."""
        return {"p50_ms": self.p50_ms, "p90_ms": self.p90_ms, "p99_ms": self.p99_ms, "max_ms": self.max_ms}


@dataclass(frozen=True, slots=True)
class Figures:
    """One run: what was asked, and what it gave. Rates are entries in a second; CPU is that of this process."""

    entries: int
    size: int
    codec: str
    concurrency: int
    pace: int
    round_trip: Spread
    published_rate: float
    published_cpu_us: float
    handled_rate: float
    handled_cpu_us: float
    latency: Spread

    def record(self) -> dict[str, Any]:
        """For programs."""
        asked = {
            "entries": self.entries,
            "size": self.size,
            "codec": self.codec,
            "concurrency": self.concurrency,
            "pace": self.pace,
        }
        return {
            **asked,
            "round_trip": self.round_trip.record(),
            "publish": {"per_second": round(self.published_rate), "cpu_us_per_entry": round(self.published_cpu_us, 2)},
            "handle": {"per_second": round(self.handled_rate), "cpu_us_per_entry": round(self.handled_cpu_us, 2)},
            "latency": self.latency.record(),
        }
