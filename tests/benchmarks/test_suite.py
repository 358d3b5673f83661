"""The suite itself: everybody runs, ratios are taken within a round, targets are judged and named in a report."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.benchmarks import budget, draining, report
from tests.benchmarks.contest import Entrant, Standing, World, compete, ratios
from tests.benchmarks.places import ROOT, NotHere, Setup
from tests.benchmarks.report import Chapter
from tests.benchmarks.scenarios import ALL, growth, idle, latency
from tests.benchmarks.stage import Failed, Stage
from tests.benchmarks.targets import TARGETS, Target, judge, judge_all


@dataclass(frozen=True)
class Here(Setup):
    """The Python that runs the tests."""

    @property
    def python(self) -> Path:
        return Path(sys.executable)


@pytest.fixture
def world(private_server):
    return World(Stage(private_server("valkey"), pinned=False), Here("here", False), ROOT, True, (), lambda sentence: None)


def standing(*rates: float | None) -> Standing:
    return Standing([None if rate is None else {"rate": rate} for rate in rates])


@pytest.mark.parametrize("codec", ["json", "fields"])
def test_worker_and_loop_drain_a_stock(world, codec):
    """And nothing stays pending; the figures are what the report has columns for."""
    for run in (draining.ours, draining.by_hand):
        measured = run(world, codec=codec, count=300)

        assert measured["rate"] > 0
        assert set(measured) <= set(report.TITLES)


def test_entries_are_timed_from_their_publishing(world, monkeypatch):
    """Each entrant's latencies are positive and in order."""
    monkeypatch.setattr(latency, "WARM_UP", 2)
    monkeypatch.setattr(latency, "SECONDS", 1)
    for entrant in latency.entrants(100, world):
        measured = entrant.run()

        assert 0 < measured["p50_us"] <= measured["p99_us"] <= measured["max_us"]


def test_what_a_dead_consumer_left_is_counted(world, monkeypatch):
    """The stale scenario leaves entries behind and says how many were taken over."""
    monkeypatch.setattr(growth, "WARM_UP", 2)
    measured = growth.among_stale(world, 100)

    assert "reclaimed_s" in measured
    assert measured["slow_commands"] >= 0


def test_parked_retries_are_read_as_ours(world):
    """The envelopes that the suite writes are envelopes, or the due ones would not be handled."""
    assert growth.among_parked(world, 1_000)["promoted_s"] > 0


def test_an_idle_worker_is_watched(world, monkeypatch):
    """Commands, CPU, memory and start."""
    monkeypatch.setattr(idle, "SETTLED", 0.1)
    monkeypatch.setattr(idle, "SECONDS", 5)
    *_, ours = idle.entrants(world)
    measured = ours.run()

    assert {"start_ms", "commands_s", "cpu_percent", "rss_mb"} == set(measured)


def test_a_contender_that_fails_says_what_it_wrote(world):
    """So that a missing library is not a riddle."""
    with pytest.raises(Failed, match="no such thing"):
        draining.drain(world, [sys.executable, "-c", "raise SystemExit('no such thing')"], {"codec": "json", "count": 10})


def test_whoever_fails_twice_is_left_out_and_the_others_go_on():
    """A peer that does not run must not end a run of hours."""
    tries = []

    def fail() -> dict[str, float]:
        tries.append(1)
        raise Failed("it is broken")

    standings = compete([Entrant("bad", fail), Entrant("good", lambda: {"rate": 1.0})], 4, lambda *_: None, 100)

    assert 2 == len(tries)
    assert [1.0] * 4 == standings["good"].values("rate")
    assert "it is broken" == standings["bad"].trouble


def test_a_run_beside_a_busy_machine_is_repeated():
    """Until others are quiet, a few times at most; the quietest one counts."""
    others = iter([90.0, 60.0, 5.0, 70.0])

    standings = compete([Entrant("a", lambda: {"rate": 1.0, "others_busy": next(others)})], 1, lambda *_: None, 15)

    assert [5.0] == standings["a"].values("others_busy")


def test_ratios_are_taken_within_a_round():
    """A round that one of both lost does not count."""
    standings = {"a": standing(20, 30, None, 80), "b": standing(10, 10, 10, 20)}

    assert [2, 3, 4] == ratios(standings, "rate", "a", "b")


@pytest.mark.parametrize(("bound", "reached"), [(2.9, True), (3.0, True), (3.1, False)])
def test_a_target_is_held_against_the_middle_of_the_rounds(bound, reached):
    """Not against the best one."""
    standings = {"a": standing(20, 30, 90), "b": standing(10, 10, 10)}

    assert reached is judge(Target("s", "rate", "a", "b", ">=", bound), "3.13", standings).reached


def test_the_best_of_several_others_counts():
    """`the fastest peer` is found, not named; peers that were left out are no peers."""
    standings = {"a": standing(20), "b": standing(2), "c": standing(4), "d": standing(None)}

    assert 5 == judge(Target("s", "rate", "a", ("b", "c", "d", "e"), ">=", 1), "3.13", standings).value


def test_a_target_without_its_entrants_is_not_measured():
    """It neither fails nor passes, and says why."""
    judgement = judge(Target("batch", "rate", "ours", "theirs", ">=", 2), "3.13", {"theirs": standing(1)})

    assert judgement.reached is None
    assert "ours was not run" == judgement.why_not


def test_every_target_belongs_to_a_scenario_and_a_column():
    """A renamed scenario would lose its targets without a word."""
    assert {target.scenario for target in TARGETS} <= {scenario.name for scenario in ALL}
    assert {target.measure for target in TARGETS} <= set(report.TITLES)


def test_a_report_has_every_run_and_every_verdict():
    """The Markdown for people, the JSON for programs."""
    standings = {"a": standing(20_000, 30_000), "b": standing(10_000, 10_000)}
    judgements = judge_all("s", "3.11", standings, (Target("s", "rate", "a", "b", ">=", 2, ("3.11",)),))
    chapter = Chapter("s", "A title", "3.11", standings, judgements)

    text, data = report.markdown([chapter]), json.loads(report.as_json([chapter], {}))

    assert "| a | 25,000 (20,000 to 30,000) |" in text
    assert "s: rate of a / b ≥ 2: 2.5 (2 to 3) | reached" in text
    assert [{"rate": 20_000}, {"rate": 30_000}] == data["chapters"][0]["entrants"]["a"]["runs"]
    assert {"reached": 1, "not reached": 0, "not measured": 0} == data["targets"]


def test_a_budget_is_shared_out_by_what_was_seen():
    """Each module with its own first sentence; what was hardly seen is one row."""
    seen = {"streamworker.delivery": 750, "event loop and sockets": 240, "streamworker.app": 4, "streamworker.publisher": 6}

    rows = budget.table(seen, 8.0, ROOT)

    assert rows[2].startswith("| 6.00 | 75% | streamworker.delivery | The values that travel through a worker")
    assert rows[3].startswith("| 1.92 | 24% | event loop and sockets |  |")
    assert "| 0.08 | 1% | all the rest | |" == rows[-1]


def test_a_worker_that_looks_at_itself_says_what_it_saw(world, monkeypatch):
    """Most of the time it is in a module of ours, or in the loop."""
    monkeypatch.setattr(budget, "COUNT", 40_000)

    seen, cpu_us = budget._sampled(world, "json", "nothing", 1)

    assert cpu_us > 0
    assert any(name.startswith("streamworker.") for name in seen)


@pytest.mark.parametrize(("text", "setup"), [("3.13+speed", Setup("3.13", True)), ("3.11", Setup("3.11", False))])
def test_a_setup_is_read_as_it_is_written(text, setup):
    """The same words in both directions."""
    assert setup == Setup.of(text)
    assert text == str(setup)


def test_a_setup_that_there_is_not_is_said():
    """With the form that there is."""
    with pytest.raises(NotHere, match="write such as"):
        Setup.of("3.13+fast")
