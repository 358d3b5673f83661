"""How many run at once: what the handler says, or what there is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamworker.settings import Settings
from streamworker.worker import concurrency
from streamworker.worker.ceiling import Ceiling
from streamworker.worker.concurrency import concurrency_of, cpus
from tests.harness import an_app


@pytest.mark.parametrize(("limit", "most"), [("max 100000", 99), ("50000 100000", 1), ("250000 100000", 3), ("", 99), ("x y", 99)])
def test_a_container_has_as_many_cpus_as_its_limit_allows(
    limit: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun ones count; without a limit it is what the process may run on."""
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(concurrency, "_CPU_MAX", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(99), raising=False)

    assert most == cpus()


def test_processes_are_as_many_as_there_are_cpus_and_threads_as_the_setting_says() -> None:
    """Unless the handler says so itself."""
    app, settings = an_app(), Settings(concurrency=17)

    def work(body: dict[str, str]) -> None: ...

    for stream, executor, own in (("a", "thread", None), ("b", "process", None), ("c", "thread", 5), ("d", "process", 6)):
        app.handler(stream, executor=executor, concurrency=own, name=stream)(work)

    assert [17, cpus(), 5, 6] == [concurrency_of(handler, settings) for handler in app.handlers]
    assert [2, 1, 2, 2] == [concurrency_of(handler, settings, Ceiling(2 if handler.name != "b" else 1)) for handler in app.handlers]
