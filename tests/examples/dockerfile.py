"""What `examples/Dockerfile` says of the image that runs."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import typer

from streamworker.cli.main import app as cli

FILE = Path(__file__).parents[2] / "examples" / "Dockerfile"


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, with continued lines joined and comments left out."""
    text = re.sub(r"^\s*#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line[0] == "FROM"]
    return [lines[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def said(name: str) -> str:
    """What follows an instruction that the last stage has once."""
    [value] = [value for instruction, value in stages()[-1] if instruction == name]
    return value


def instruction(name: str) -> list[str]:
    """The words of an instruction in exec form. Fails on a shell form: the shell would be process 1 and keep the signal."""
    words = json.loads(said(name)[said(name).index("[") :])
    assert isinstance(words, list)
    return words


def environment() -> dict[str, str]:
    """What the image sets, but for PATH."""
    pairs = dict(word.split("=", 1) for word in shlex.split(said("ENV")))
    return {name: value for name, value in pairs.items() if name != "PATH"}


def parsed(program: str, words: list[str]) -> tuple[str, dict[str, Any]]:
    """The name of the command that these words mean and its options, as the command line reads them. Runs nothing."""
    root = typer.main.get_command(cli)
    name, command, rest = root.resolve_command(root.make_context(program, ["check"]), list(words))
    return name, command.make_context(name, rest).params
