"""The reference cannot drift: each page is compared with what it describes."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer
from pydantic import SecretStr

import streamworker
from streamworker.cli import main
from streamworker.cli.root import app as cli
from streamworker.settings import PREFIX, Settings, format_duration, format_size
from streamworker.streams.keys import keys_of
from tests.docs.pages import DOCS, ROOT, WRITE

REFERENCE = DOCS / "reference"
PACKAGE = ROOT / "streamworker"
SETTINGS = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- end of settings -->)", re.DOTALL)


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of the same or a higher level."""
    level = len(heading) - len(heading.lstrip("#"))
    _, found, rest = f"\n{text}".partition(f"\n{heading}\n")
    assert found, f"there is no heading {heading!r}"
    return re.split(rf"^#{{1,{level}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


# ---- settings ---------------------------------------------------------------------------------------------------------------


def settings_table() -> str:
    """The table of settings as the model has it."""
    rows = ["| Setting | Environment | Option | Default | |", "|---|---|---|---|---|"]
    options = {name for _, command in all_commands() for parameter in command.params for name in parameter.opts}
    for name, info in Settings.model_fields.items():
        flag = f"--{name.rstrip('s') if name == 'handlers' else name}".replace("_", "-")
        option = f"`{flag}`" if flag in options else "-"
        rows.append(f"| `{name}` | `{PREFIX}{name.upper()}` | {option} | {shown(info.default)} | {info.description} |")
    return "\n".join(rows) + "\n"


def shown(default: Any) -> str:
    match default:
        case None | ():
            return "-"
        case SecretStr():
            return f"`{default.get_secret_value()}`"
        case timedelta():
            return f"`{format_duration(default)}`"
        case bool():
            return "on" if default else "off"
        case int() if default >= 1_000_000:
            return f"`{format_size(default)}`"
        case _:
            return f"`{default}`"


def test_the_table_of_settings_is_the_model():
    """Each field with its variable, option, default and description, in order."""
    page = REFERENCE / "settings.md"
    text = page.read_text()
    if WRITE:
        page.write_text(SETTINGS.sub(lambda _: settings_table(), text))
        text = page.read_text()

    assert settings_table() == SETTINGS.search(text)[0]


# ---- events -----------------------------------------------------------------------------------------------------------------


def events_in_code() -> set[str]:
    """Every event that the package logs: literal ones, and those made of a step's or trouble's name."""
    literal: set[str] = set()
    endings: set[str] = set()
    troubles: set[str] = set()
    for room in ("worker", "supervisor", "observe", "streams", "cli"):
        for path in sorted((PACKAGE / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                literal |= set(_literal_events(node))
                endings |= set(_endings(node))
                troubles |= set(_troubles(node, path))
    steps = {"commit", "retry", "release", "dead_letter"}
    made = {f"{trouble}{ending}" for trouble in troubles for ending in endings - {".not_pending"}}
    return literal | made | {f"{step}.not_pending" for step in steps if ".not_pending" in endings}


def _literal_events(node: ast.AST) -> Iterator[str]:
    """`log.info("a.b", …)`, also with `"a.b" if … else "a.c"`, and a name that was given such a value."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS and node.args:
        yield from _events_of(node.args[0])
    if isinstance(node, ast.Assign) and [target.id for target in node.targets if isinstance(target, ast.Name)] == ["event"]:
        yield from _events_of(node.value)


def _events_of(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and re.fullmatch(r"[a-z_]+\.[a-z_]+", inner.value):
            yield inner.value


def _endings(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS and node.args:
        first = node.args[0]
        if isinstance(first, ast.JoinedStr) and isinstance(first.values[-1], ast.Constant):
            yield str(first.values[-1].value)


def _troubles(node: ast.AST, path: Path) -> Iterator[str]:
    called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None
    if isinstance(node, ast.Call) and called in ("_trouble", "_step") and isinstance(node.args[0], ast.Constant):
        yield str(node.args[0].value)
    elif isinstance(node, ast.Call) and _is_trouble(node) and isinstance(node.args[1], ast.Constant):
        yield str(node.args[1].value)
    elif isinstance(node, ast.Call) and _is_trouble(node):
        assert path.name == "settlement.py", f"{path.name} makes a Trouble whose name this test cannot read"


def _is_trouble(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "Trouble"


LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


def test_every_event_is_explained_and_every_explained_one_exists():
    """The first column of each table is what the code logs, no more and no less."""
    rows = re.findall(r"^\| (`[^|]*`) \|", (REFERENCE / "events.md").read_text(), flags=re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", row)}

    assert events_in_code() == explained


# ---- commands ---------------------------------------------------------------------------------------------------------------


def all_commands() -> list[tuple[str, Any]]:
    """Every command with its full name."""
    assert main.__all__
    root = typer.main.get_command(cli)
    found: list[tuple[str, Any]] = []
    waiting: list[tuple[str, Any]] = [("streamworker", root)]
    while waiting:
        name, command = waiting.pop()
        children = getattr(command, "commands", {})
        waiting += [(f"{name} {child}", children[child]) for child in children]
        if command is not root:
            found.append((name, command))
    return sorted(found)


@pytest.mark.parametrize("name", [name for name, _ in all_commands()])
def test_every_command_is_described_with_all_its_options(name):
    """Each has its heading, and each of its options stands below it."""
    command = dict(all_commands())[name]
    heading = ("### " if name.count(" ") == 2 else "## ") + name
    text = section((REFERENCE / "cli.md").read_text(), heading)
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("-")} - {"--help"}

    assert [] == sorted(option for option in options if f"`{option}" not in text)


def test_no_option_is_described_that_there_is_not():
    """Nor is there a command of that name."""
    text = (REFERENCE / "cli.md").read_text()
    options = {option for _, command in all_commands() for parameter in command.params for option in parameter.opts}
    described = set(re.findall(r"`(--?[a-z][a-z-]*)", text)) - {"--version", "--install-completion", "--show-completion"}

    assert described <= options
    assert {name for name, _ in all_commands()} == set(re.findall(r"^##+ (streamworker .+)$", text, flags=re.MULTILINE))


# ---- Python -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", streamworker.__all__)
def test_every_public_name_is_described(name):
    """As code, somewhere on the page."""
    assert re.search(rf"[`(. ]{name}\b", (REFERENCE / "api.md").read_text()), name


def parameters_of(function: Any) -> Iterator[str]:
    """The names of its parameters, those of an unpacked TypedDict included."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            [options] = get_args(get_type_hints(function, include_extras=True)[name])
            yield from options.__annotations__
        else:
            yield name


@pytest.mark.parametrize(
    ("heading", "function"),
    [
        ("## StreamWorker", streamworker.StreamWorker.__init__),
        ("### handler", streamworker.StreamWorker.handler),
        ("### batch_handler", streamworker.StreamWorker.batch_handler),
        ("### publish, publish_many", streamworker.StreamWorker.publish),
        ("### every, cron", streamworker.StreamWorker.every),
        ("### every, cron", streamworker.StreamWorker.cron),
        ("### listener", streamworker.StreamWorker.listener),
        ("### request", streamworker.StreamWorker.request),
        ("### publish, publish_many", streamworker.StreamWorker.publish_many),
        ("### encode, settings, close", streamworker.StreamWorker.encode),
        ("### cancel, sync_publisher", streamworker.StreamWorker.cancel),
        ("## Durability", streamworker.Durability),
        ("## Context", streamworker.Context.publish),
        *[
            ("## Transaction", method)
            for name, method in vars(streamworker.Transaction).items()
            if callable(method) and name[0] != "_"
        ],
        ("## Idempotency", streamworker.Idempotency),
        ("## BatchContext", streamworker.BatchContext.fail),
        ("## BatchContext", streamworker.BatchContext.publish),
        ("## RetryPolicy", streamworker.RetryPolicy),
        ("## DeadLetterPolicy", streamworker.DeadLetterPolicy),
        ("## Backoff", streamworker.Backoff.exponential),
        ("## Backoff", streamworker.Backoff.linear),
        ("## Backoff", streamworker.Backoff.constant),
        ("## Backoff", streamworker.Backoff.steps),
        ("## Backoff", streamworker.Backoff.by),
        ("## What a handler raises", streamworker.Retry),
        ("## What a handler raises", streamworker.Snooze),
        ("## Codec", streamworker.FieldsCodec),
        ("## Codec", streamworker.JsonCodec),
    ],
)
def test_every_parameter_is_described(heading, function):
    """Each stands in the section of its class or method."""
    text = section((REFERENCE / "api.md").read_text(), heading)
    parameters = [name for name in parameters_of(function) if name != "self"]

    assert [] == [name for name in parameters if not re.search(rf"\b{name}\b", text)]


OF_THE_WORKER = {"history", "lease", "under", "is_all_good", "said_of", "take_returned"}
"""What is not for handlers."""


@pytest.mark.parametrize(
    "kind",
    [streamworker.Context, streamworker.BatchContext, streamworker.Delivery, streamworker.ListenerContext],
    ids=lambda kind: kind.__name__,
)
def test_every_attribute_is_described(kind):
    """What a handler can ask for."""
    text = section((REFERENCE / "api.md").read_text(), f"## {kind.__name__}")
    names = {name for name in [*kind.__dataclass_fields__, *vars(kind)] if not name.startswith("_")} - OF_THE_WORKER

    assert [] == sorted(name for name in names if not re.search(rf"\b{name}\b", text))


# ---- keys -------------------------------------------------------------------------------------------------------------------


def test_every_key_is_described():
    """The table has each key of a group, by the name that the code gives it."""
    keys = keys_of("orders", "billing")
    text = (REFERENCE / "keys.md").read_text()

    assert [] == [key for key in keys.all if f"| `{key}` |" not in text]
