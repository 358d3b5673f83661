"""The gate says what it cannot compare, lets nothing dear through unsaid, and believes a reason that a commit message gives."""

from __future__ import annotations

import subprocess

import pytest

from tests.benchmarks import gate
from tests.benchmarks.gate import Count, main
from tests.benchmarks.places import NotHere


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of one commit, which the gate takes for ours."""
    home = tmp_path / "repository"
    home.mkdir()
    monkeypatch.setattr(gate, "ROOT", home)
    for words in (["init", "-q", "-b", "main"], ["config", "user.email", "a@example.org"], ["config", "user.name", "A"]):
        git(*words)
    commit("First")
    return home


def git(*words: str) -> str:
    return subprocess.run(["git", "-C", str(gate.ROOT), *words], check=True, capture_output=True, text=True).stdout.strip()


def commit(message: str) -> str:
    git("commit", "-q", "--allow-empty", "-m", message)
    return git("rev-parse", "HEAD")


def test_a_branch_is_compared_with_where_it_left_main(repository):
    """Whatever has landed there since."""
    left = git("rev-parse", "HEAD")
    git("switch", "-q", "-c", "work")
    commit("Work")
    git("switch", "-q", "main")
    commit("Landed since")
    git("switch", "-q", "work")

    assert left == gate._base(None)


def test_main_is_compared_with_its_last_commit(repository):
    """There is nothing that it left."""
    before = git("rev-parse", "HEAD")
    commit("Second")

    assert before == gate._base(None)


def test_a_clone_without_history_passes_and_says_so(repository, tmp_path, monkeypatch, capsys):
    """A shallow clone holds one commit; a gate that fails there would be switched off."""
    commit("Second")
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{repository}", str(shallow)], check=True)
    monkeypatch.setattr(gate, "ROOT", shallow)
    monkeypatch.setattr(gate.shutil, "which", lambda name: f"/usr/bin/{name}")

    assert 0 == main([])
    assert "passed without a comparison: this clone does not hold" in capsys.readouterr().out


def test_a_machine_without_valgrind_passes_and_says_so(monkeypatch, capsys):
    """As a developer's Mac."""
    monkeypatch.setattr(gate.shutil, "which", lambda name: None)

    assert 0 == main([])
    assert "passed without a comparison: valgrind is not installed" in capsys.readouterr().out


def test_a_commit_that_there_is_not_is_said(repository):
    """Not taken for another one."""
    with pytest.raises(NotHere, match="there is no commit nowhere"):
        gate._base("nowhere")


@pytest.mark.parametrize(("now", "verdict"), [(100.0, "ok"), (109.0, "ok"), (111.0, "DEARER"), (50.0, "ok")])
def test_what_needs_more_than_the_bound_is_dearer(now, verdict):
    """By entry and by start alike; cheaper is always well."""
    [entry, start] = gate._lines({"a": Count(now, 100.0)}, {"a": Count(100.0, 100.0)}, 1.10)

    assert entry.endswith(verdict)
    assert start.endswith("ok")


def test_a_reason_in_a_commit_message_is_found(repository):
    """In any commit since the one compared with, and only there."""
    commit("Older\n\nDearer: not of this change")
    base = git("rev-parse", "HEAD")
    commit("Check twice\n\nDearer: entries were lost")
    commit("Later")

    assert "entries were lost" == gate._reason(base)


def test_few_and_many_entries_tell_an_entry_from_the_start(tmp_path):
    """The difference is the entries', the rest is the start's and the end's."""
    counted = {(tmp_path, "a", gate.FEW): 5_000_000 + 300 * gate.FEW, (tmp_path, "a", gate.MANY): 5_000_000 + 300 * gate.MANY}

    assert Count(300.0, 5_000_000.0) == gate._split(counted, tmp_path, "a")
