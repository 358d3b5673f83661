"""What is to be reached: every target of the suite in one table. A target's text is what the report says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

from tests.benchmarks.contest import Standings, ratios

Relation = Literal[">=", "<="]
RECOMMENDED, PLAIN, OLDER = "3.13+speed", "3.11", "3.11+speed"
EVERYWHERE = (RECOMMENDED, PLAIN)


@dataclass(frozen=True)
class Target:
    """`one` over `other` in a measure, or the measure itself where there is no other; of several others the best counts."""

    scenario: str
    measure: str
    one: str
    other: str | tuple[str, ...]
    relation: Relation
    bound: float
    setups: tuple[str, ...] = EVERYWHERE

    def __str__(self) -> str:
        other = self.other if isinstance(self.other, str) else "the best of its peers"
        return f"{self.scenario}: {self.measure} of {self.one}" + (f" / {other}" if other else "")


@dataclass(frozen=True)
class Judgement:
    """What became of a target: the middle of the rounds' values and their spread, or why there is none."""

    target: Target
    setup: str
    values: tuple[float, ...]
    why_not: str = ""

    @property
    def value(self) -> float | None:
        """The median."""
        return median(self.values) if self.values else None

    @property
    def reached(self) -> bool | None:
        """None where nothing was measured."""
        if self.value is None:
            return None
        return self.value >= self.target.bound if self.target.relation == ">=" else self.value <= self.target.bound


def judge(target: Target, setup: str, standings: Standings) -> Judgement:
    """Hold the rounds of a scenario against a target."""
    others = (target.other,) if isinstance(target.other, str) else target.other
    present = [name for name in others if name in standings and standings[name].values(target.measure)]
    if target.one not in standings:
        return Judgement(target, setup, (), f"{target.one} was not run")
    if not standings[target.one].values(target.measure):
        return Judgement(target, setup, (), standings[target.one].trouble or "nothing was measured")
    if target.other == "":
        return Judgement(target, setup, tuple(standings[target.one].values(target.measure)))
    if not present:
        return Judgement(target, setup, (), f"{', '.join(others)}: not run")
    best = (max if target.relation == ">=" else min)(present, key=lambda name: standings[name].middle(target.measure) or 0)
    return Judgement(target, setup, tuple(ratios(standings, target.measure, target.one, best)))


def judge_all(scenario: str, setup: str, standings: Standings, targets: tuple[Target, ...]) -> list[Judgement]:
    """Every target of that scenario that counts in this setup."""
    return [judge(target, setup, standings) for target in targets if target.scenario == scenario and setup in target.setups]


def summary(judgements: list[Judgement]) -> Mapping[str, int]:
    """How many were reached, were not, and were not measured."""
    found = [judgement.reached for judgement in judgements]
    return {"reached": found.count(True), "not reached": found.count(False), "not measured": found.count(None)}


JSON, FIELDS = "streamworker, json", "streamworker, fields"
HAND_JSON, HAND_FIELDS = "by hand, json", "by hand, fields"
FASTSTREAM = "FastStream"
PER_MESSAGE = ("FastStream", "taskiq", "streaq", "repid", "saq", "arq", "dramatiq", "celery")

TARGETS: tuple[Target, ...] = (
    Target("throughput", "rate", JSON, HAND_JSON, ">=", 2.0, (RECOMMENDED,)),
    Target("throughput", "rate", FIELDS, HAND_JSON, ">=", 1.2, (RECOMMENDED,)),
    Target("throughput", "rate", JSON, "C client, decodes nothing", ">=", 0.4, (RECOMMENDED,)),
    Target("throughput", "rate", JSON, FASTSTREAM, ">=", 50, (RECOMMENDED,)),
    Target("throughput", "rate", JSON, PER_MESSAGE, ">=", 20, (RECOMMENDED,)),
    Target("throughput", "rate", JSON, HAND_JSON, ">=", 1.1, (OLDER,)),
    Target("throughput", "rate", JSON, HAND_JSON, ">=", 0.8, (PLAIN,)),
    Target("batch", "rate", "streamworker, batch", "FastStream, batch", ">=", 2.0),
    *(
        Target(f"latency-{rate}", measure, "streamworker", "by hand", "<=", bound)
        for rate in (200, 2000)
        for measure, bound in (("p50_us", 1.2), ("p99_us", 1.5))
    ),
    *(Target(f"sleeping-{concurrency}", "rate", "streamworker", "by hand", ">=", 1.0) for concurrency in (100, 1000)),
    *(Target("threads", "rate", f"streamworker, {work}", f"by hand, {work}", ">=", 0.8) for work in ("1 ms", "no-op")),
    Target("price", "rate", "everything on", "everything off", ">=", 0.85),
    Target("commit", "rate", "streamworker", "by hand, not atomic", ">=", 0.5),
    Target("publishing", "rate", "streamworker, one at a time", "redis.asyncio, one at a time", ">=", 1.0),
    Target("publishing", "rate", "streamworker, 100 at once", "redis.asyncio, 100 at once", ">=", 5.0),
    Target("publishing", "rate", "streamworker, publish_many", "redis-py, pipeline", ">=", 2.0),
    Target("streams", "rate", "1000 streams", "1 stream", ">=", 0.5),
    Target("backlog", "rate", "1,000,000 entries", "100,000 entries", ">=", 0.95),
    Target("backlog", "rss_mb", "1,000,000 entries", "100,000 entries", "<=", 1.05),
    Target("stale", "slow_commands", "100,000 stale", "", "<=", 0),
    Target("stale", "p99_us", "100,000 stale", "none stale", "<=", 2.0),
    Target("parked", "promoted_s", "1,000,000 parked", "none parked", ">=", 0.9),
    Target("consumers", "rate", "1000 consumers", "1 consumer", ">=", 0.9),
    Target("idle", "commands_s", "streamworker", "", "<=", 1.7),  # 1, a read of two seconds and a look for retries in five
    Target("idle", "cpu_percent", "streamworker", "", "<=", 1.0),
    Target("idle", "rss_mb", "streamworker", "bare imports", "<=", 1.25),
)
