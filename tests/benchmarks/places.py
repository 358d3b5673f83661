"""Where the suite keeps what is dear to make: a virtual environment for each Python and for each peer, and the C client."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
CONTENDERS = HERE / "contenders"
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("STREAMWORKER_BENCHMARKS", ROOT / ".benchmarks"))


class NotHere(Exception):
    """Something cannot be had on this machine; the text says why."""


@dataclass(frozen=True)
class Setup:
    """A Python, with or without the `speed` extra: written `3.13+speed`, `3.11`."""

    version: str
    speed: bool

    @classmethod
    def of(cls, text: str) -> Setup:
        """Read `3.13+speed` or `3.11`."""
        version, _, extra = text.partition("+")
        if extra not in ("", "speed"):
            raise NotHere(f"{text!r} is no setup: write such as 3.13+speed or 3.11")
        return cls(version, bool(extra))

    def __str__(self) -> str:
        return self.version + ("+speed" if self.speed else "")

    @property
    def python(self) -> Path:
        """The interpreter of an environment that has what the package needs, but not the package, which is any tree on the path."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        wanted = [*project["dependencies"], *(project["optional-dependencies"]["speed"] if self.speed else ())]
        return environment(f"setup-{self}", self.version, wanted)


def environment(name: str, version: str, requirements: Sequence[str]) -> Path:
    """The Python of the virtual environment of that name, made if it is missing or its requirements have changed.

    Raises `NotHere` when there is no such interpreter or a requirement cannot be installed.
    """
    home = CACHE / "environments" / name
    python, stamp = home / "bin" / "python", home / "requirements.json"
    wanted = json.dumps([version, *requirements])
    if not (stamp.exists() and stamp.read_text() == wanted):
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        _call([str(interpreter(version)), "-m", "venv", str(home)], f"cannot make an environment with Python {version}")
        _call([str(python), "-m", "pip", "install", "-q", *requirements], f"cannot install {', '.join(requirements)}")
        stamp.write_text(wanted)
    return python


def installed() -> dict[str, dict[str, str]]:
    """What is in each environment that there is, and in which version."""
    homes = sorted((CACHE / "environments").glob("*/requirements.json"))
    return {stamp.parent.name: _versions(stamp.parent / "bin" / "python") for stamp in homes}


@cache
def interpreter(version: str) -> Path:
    """A Python of that version, on PATH or among those of pyenv and uv. Raises `NotHere`."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path.home() / ".local/share/uv/python"))
    on_path = [Path(found) for found in (sys.executable, shutil.which(f"python{version}"), shutil.which("python3")) if found]
    managed = [path / "bin" / "python" for path in (*sorted(pyenv.glob(f"{version}*")), *sorted(uv.glob(f"cpython-{version}*")))]
    for candidate in (*on_path, *managed):
        if _version_of(candidate) == version:
            return candidate
    raise NotHere(f"there is no Python {version} on PATH, nor among those of pyenv and uv")


def c_client() -> Path:
    """The compiled `emptying.c`. Raises `NotHere` without a compiler."""
    source = CONTENDERS / "emptying.c"
    program = CACHE / f"emptying-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        compiler = shutil.which("cc")
        if compiler is None:
            raise NotHere("there is no C compiler: install gcc")
        CACHE.mkdir(parents=True, exist_ok=True)
        _call([compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)], "cannot compile the C client")
    return program


def _versions(python: Path) -> dict[str, str]:
    done = subprocess.run([str(python), "-m", "pip", "list", "--format", "json"], capture_output=True, text=True)
    return {row["name"]: row["version"] for row in json.loads(done.stdout or "[]")}


def _version_of(python: Path) -> str:
    try:
        words = [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        return subprocess.run(words, capture_output=True, text=True, timeout=20).stdout.strip()
    except OSError:
        return ""


def _call(words: list[str], trouble: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise NotHere(f"{trouble}: {(done.stderr.strip().splitlines() or ['no word why'])[-1]}")
