"""The house rules that a machine can check: which way imports go, who may speak Redis, which rooms are pure, how big a thing may be.

Read from the source, so that imports inside functions and for type checkers count too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import streamworker

PACKAGE = "streamworker"
ROOT = Path(streamworker.__file__).parent

FLOORS: list[set[str]] = [
    {"errors", "entries", "version"},
    {"effects", "retention"},
    {"delivery", "destination"},
    {"addresses", "posting"},
    {"flow"},
    {"policies", "codecs", "settings", "streams", "embedded", "ticks"},
    {"ordering"},
    {"handlers", "outgoing", "admin"},
    {"publisher", "sync_publisher", "requester"},
    {"registration", "schedules", "stream", "connected", "pausing"},
    {"batching", "listeners"},
    {"app", "observe"},
    {"worker", PACKAGE},
    {"supervisor", "testing"},
    {"demo", "bench"},
    {"cli"},
    {"__main__"},
]
"""The rooms from the ground up; a room imports itself and lower floors only. The package itself is the façade over `app`."""

SPEAKS_REDIS = "streamworker.streams"

PURE_ROOMS = (
    "delivery", "destination", "effects", "entries", "errors", "retention", "addresses", "posting", "ticks", "policies", "codecs",
    "ordering", "flow", "streams.keys", "worker.lanes", "worker.keyed_lanes", "worker.pace", "worker.pools", "worker.gate",
    "worker.permits", "worker.kill_switch", "worker.exits",
    "worker.status", "supervisor.messages", "supervisor.restarts", "supervisor.shares", "supervisor.verdicts", "bench.figures",
)  # fmt: skip
IMPURE_MODULES = {
    "asyncio", "concurrent", "io", "logging", "multiprocessing", "os", "pathlib", "queue", "random", "secrets", "select", "selectors",
    "shutil", "signal", "socket", "ssl", "structlog", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid", "redis",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "now", "utcnow", "today", "monotonic", "perf_counter", "random", "uniform", "sleep"}

MAY_SLEEP = {"streamworker.embedded": "waits for another process, which announces nothing; never on an event loop"}

LONGEST_FILE = 250
LONGEST_FUNCTION = 50


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = (PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> frozenset[str]:
    """What a module imports anywhere in its text, by full name; a name from a package counts as the module of that name, if it is one."""
    return frozenset(_imports(tree(module), module))


def _imports(node: ast.AST, module: str) -> Iterator[str]:
    for statement in ast.walk(node):
        match statement:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(level=0, module=str(base), names=names):
                yield from (full if (full := f"{base}.{alias.name}") in modules() else base for alias in names)
            case ast.ImportFrom():
                raise AssertionError(f"{module} imports relatively: name the module in full")


def _inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else PACKAGE


def _own_imports(module: str) -> set[str]:
    return {name for name in imports(module) if _inside(name, PACKAGE)}


def _pure() -> list[str]:
    return [name for name in modules() if any(_inside(name, f"{PACKAGE}.{room}") for room in PURE_ROOMS)]


# ---- which way imports go ------------------------------------------------------------------------------------------------------


def test_every_room_has_its_floor() -> None:
    """A new one must be given a place, and one that is gone must leave its own."""
    listed = [room for floor in FLOORS for room in floor]

    assert sorted(listed) == sorted({_room(name) for name in modules()})


def test_imports_go_down_only() -> None:
    """A room imports itself and lower floors; not even its neighbours."""
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}

    upward = [
        f"{module} imports {name}"
        for module in modules()
        for name in _own_imports(module)
        if _room(name) != _room(module) and floor_of[_room(name)] >= floor_of[_room(module)]
    ]

    assert [] == sorted(upward)


def test_imports_make_no_circle() -> None:
    """Neither between rooms nor inside one, imports for type checkers included."""
    graph = {module: set(_own_imports(module)) for module in modules()}

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' ← '.join(error.args[1])}")


def test_every_exception_is_still_needed() -> None:
    """A list of exceptions must not outlive them."""
    for module in MAY_SLEEP:
        assert "time" in imports(module)


def test_every_import_of_ours_exists() -> None:
    """An import inside a function would fail only when it runs."""
    missing = [f"{module} imports {name}" for module in modules() for name in _own_imports(module) if name not in modules()]

    assert [] == missing


def test_only_one_room_imports_redis() -> None:
    """The rest of the house speaks to it in our words."""
    others = [
        module
        for module in modules()
        if not _inside(module, SPEAKS_REDIS) and any(_inside(name, "redis") or _inside(name, "hiredis") for name in imports(module))
    ]

    assert [] == others


def test_a_library_does_not_need_its_command_line() -> None:
    """Only the command line imports what draws on terminals."""
    others = [
        module
        for module in modules()
        if _room(module) not in ("cli", "__main__")
        and any(name.split(".")[0] in ("typer", "click", "rich") for name in imports(module))
    ]

    assert [] == others


# ---- pure rooms ----------------------------------------------------------------------------------------------------------------


def test_pure_rooms_are_there() -> None:
    """Or the next tests would hold for nothing."""
    assert all(any(_inside(name, f"{PACKAGE}.{room}") for name in modules()) for room in PURE_ROOMS)


def test_pure_rooms_import_no_clock_chance_or_io() -> None:
    """What they need of these comes in as an argument."""
    impure = [f"{module} imports {name}" for module in _pure() for name in imports(module) if name.split(".")[0] in IMPURE_MODULES]

    assert [] == sorted(impure)


def test_pure_rooms_call_no_clock_chance_or_io() -> None:
    """`datetime` is a value there, never a clock."""
    impure = [
        f"{module}:{call.lineno} calls {name}"
        for module in _pure()
        for call in ast.walk(tree(module))
        if isinstance(call, ast.Call) and (name := _called(call)) in IMPURE_CALLS
    ]

    assert [] == impure


def test_pure_rooms_wait_for_nothing() -> None:
    """No coroutine is made or awaited in them."""
    kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    waiting = [f"{module}:{node.lineno}" for module in _pure() for node in ast.walk(tree(module)) if isinstance(node, kinds)]

    assert [] == waiting


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name):
            return name
        case ast.Attribute(attr=name):
            return name
    return ""


# ---- time ----------------------------------------------------------------------------------------------------------------------


def test_nothing_sleeps_while_holding_its_thread() -> None:
    """Except where the reason is listed."""
    sleepers = {
        module
        for module in modules()
        for call in ast.walk(tree(module))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("time.sleep", "sleep")
    }

    assert set(MAY_SLEEP) == sleepers


# ---- sizes ---------------------------------------------------------------------------------------------------------------------


def test_no_file_is_too_long() -> None:
    """Lines that are not empty, comments and docstrings included."""
    lengths = {
        name: sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip()) for name, path in modules().items()
    }

    assert {} == {name: length for name, length in lengths.items() if length > LONGEST_FILE}


def test_no_function_is_too_long() -> None:
    """From its `def` to its end, docstring included."""
    lengths = {
        f"{module}.{node.name}": node.end_lineno - node.lineno + 1
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None
    }

    assert {} == {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION}


def test_no_module_keeps_state() -> None:
    """A name bound at module level is bound once: nothing says `global`."""
    writers = [f"{module}:{node.lineno}" for module in modules() for node in ast.walk(tree(module)) if isinstance(node, ast.Global)]

    assert [] == writers


# ---- what an entry can never do ------------------------------------------------------------------------------------------------

RUNS_WHAT_IT_READS = {"cloudpickle", "code", "codeop", "dill", "jsonpickle", "marshal", "pickle", "runpy", "shelve", "yaml"}
MAKES_CODE = {"eval", "exec", "compile", "__import__", "import_module", "exec_module", "spec_from_file_location", "load_source"}
IMPORT_BY_A_NAME = {
    "streamworker.cli.loading": "what the user has named on the command line, before a connection is opened",
    "streamworker": "its own public names, from a table of them",
}


def test_nothing_unpickles_or_runs_what_it_reads() -> None:
    """A payload is data: no module that turns bytes into code or objects of any class is imported."""
    found = [
        f"{module} imports {name}" for module in modules() for name in imports(module) if name.split(".")[0] in RUNS_WHAT_IT_READS
    ]

    assert [] == found


def test_no_module_imports_by_a_name_that_it_has_read() -> None:
    """Handlers are found through the registry, never by what an entry says."""
    callers = {
        module
        for module in modules()
        for call in ast.walk(tree(module))
        if isinstance(call, ast.Call) and _called(call) in MAKES_CODE and not ast.unparse(call.func).startswith("re.")
    }

    assert set(IMPORT_BY_A_NAME) == callers
