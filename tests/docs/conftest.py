"""What the tests of pages share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def in_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, str], None]]:
    """`in_folder(folder, url)`: programs of a page are imported from there, and find the server at that URL."""
    before = set(sys.modules)

    def enter(folder: Path, url: str) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("STREAMWORKER_REDIS_URL", url)

    yield enter
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) is None or "pytest-" in str(sys.modules[name].__file__):
            del sys.modules[name]
