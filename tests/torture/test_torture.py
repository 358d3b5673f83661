"""The parts of the torture that need no servers: seeded bugs still apply, the report says what was found."""

from __future__ import annotations

import json

import pytest

from tests.torture import faults, report, seeded
from tests.torture.__main__ import main, slug
from tests.torture.checker import Figures
from tests.torture.history import DONE
from tests.torture.load import PAYLOAD, PLAIN, RAISING, a_plan, fields_of
from tests.torture.run import Result


@pytest.mark.parametrize("bug", seeded.BUGS, ids=lambda bug: bug.name)
def test_a_seeded_bug_still_applies_to_the_code(bug, tmp_path):
    """Its old text stands in the package exactly once, and its fault is known."""
    seeded.patched(bug, tmp_path)

    assert all(edit.new in (tmp_path / "streamworker" / edit.file).read_text() for edit in bug.edits)
    assert bug.fault == faults.named(bug.fault).name


def test_a_seeded_bug_whose_place_is_gone_says_so(tmp_path):
    """Else it would be caught no more, and nobody would know."""
    with pytest.raises(LookupError, match="bring it up to date"):
        seeded.patched(seeded.Bug("x", "poison", frozenset(), (seeded.Edit("version.py", "no such text", ""),)), tmp_path)


def test_only_the_invariants_of_a_bug_are_evidence_of_it():
    """Neither a broken harness nor a late log line is."""
    bug = seeded.Bug("x", "poison", frozenset({"I1"}), ())

    assert "" == seeded.evidence_in(
        Result("f", "s", 1, violations=("harness: …", "vacuous: …", "I12: …", "I1: the run did not drain")), bug
    )
    assert "I1: 3 lost" == seeded.evidence_in(Result("f", "s", 1, violations=("I12: …", "I1: 3 lost")), bug)


def test_every_fault_has_a_name_of_its_own_that_can_be_typed():
    """`--faults` takes them with commas between."""
    names = [slug(fault.name) for fault in faults.everything()]

    assert len(names) == len(set(names))
    assert all("," not in name and " " not in name for name in names)


def test_the_names_of_the_faults_are_listed(capsys):
    """`--list`."""
    assert 0 == main(["--list"])
    assert [slug(fault.name) for fault in faults.everything()] == capsys.readouterr().out.split()


def test_each_fault_has_its_row_and_all_of_them_one():
    """Sums, and the worst of the durations."""
    results = [
        Result("kill", "redis", 1, fired=3, figures=Figures(published=100, duplicates=2, causes=9, worst_redelivery=1.2)),
        Result("kill", "valkey", 1, fired=2, figures=Figures(published=100, duplicates=1, causes=4, worst_redelivery=2.34)),
        Result("flush", "redis", 1, fired=1, figures=Figures(published=1000, forgotten=7)),
    ]

    assert [
        ("kill", "2", "200", "5", "0", "0", "3", "13", "2.3 s", "-"),
        ("flush", "1", "1,000", "1", "0", "7", "0", "0", "-", "-"),
        ("all", "3", "1,200", "6", "0", "7", "3", "13", "2.3 s", "-"),
    ] == report.rows(results)
    assert "| kill | 2 | 200 | 5 | 0 | 0 | 3 | 13 | 2.3 s | - |" in report.markdown(results).splitlines()
    assert ["redis", "valkey", "redis"] == [one["server"] for one in json.loads(report.as_json(results))]


@pytest.mark.parametrize("kind", [*PLAIN, *RAISING, "hang", "hang-always", "block", "poison-exit", "new"])
def test_every_kind_of_entry_has_a_plan_and_carries_the_payload(kind):
    """The plan says where it must end."""
    from random import Random

    plan = a_plan({kind: 1.0}, 1.0, Random(1))

    assert plan.ends in {DONE, "exhausted", "rejected", "crashed"}
    assert f"{PAYLOAD}-7" == fields_of(7, plan)["payload"]
