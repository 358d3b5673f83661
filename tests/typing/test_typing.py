"""The types that users see: what must check checks, and what must not does not, under both checkers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def by_mypy(path: Path) -> set[int]:
    """The lines of its errors."""
    pytest.importorskip("mypy", reason="pip install 'streamworker[lint]' checks the types as well")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary"]
    checked = subprocess.run([*command, str(path)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    errors = re.findall(rf"^[^:\n]*{path.name}:(\d+): error: (.*)$", checked.stdout, flags=re.MULTILINE)
    assert errors or checked.returncode == 0, checked.stdout + checked.stderr
    return {int(line) for line, _ in errors}


def by_pyright(path: Path) -> set[int]:
    """The lines of its errors."""
    pytest.importorskip("pyright", reason="pip install 'streamworker[lint]' checks the types as well")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(path)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    found = json.loads(checked.stdout)["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}


CHECKERS = pytest.mark.parametrize("errors_in", [by_mypy, by_pyright])


@CHECKERS
def test_plain_programs_type_check(errors_in: Callable[[Path], set[int]]) -> None:
    """As they stand, handlers with the types that they were written with."""
    assert set() == errors_in(HERE / "accepted.py")


@CHECKERS
def test_what_cannot_work_does_not_type_check(errors_in: Callable[[Path], set[int]]) -> None:
    """Each marked line is an error, and no other."""
    path = HERE / "refused.py"
    marked = {number for number, line in enumerate(path.read_text().splitlines(), 1) if line.endswith("# refused")}
    assert marked == errors_in(path)


def test_the_accepted_program_can_be_imported() -> None:
    """What it registers is right at run time too."""
    imported = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / "accepted.py")], capture_output=True, text=True, check=False
    )
    assert (0, "") == (imported.returncode, imported.stderr)


def test_plain_programs_need_no_any() -> None:
    """The accepted programs import none."""
    assert "Any" not in re.findall(r"\w+", (HERE / "accepted.py").read_text().partition('"""\n')[2])
