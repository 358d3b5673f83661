"""From what a user types after `run` to a `StreamWorker`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from streamworker.app import StreamWorker
from streamworker.errors import SetupError
from streamworker.observe.descriptions import describe
from streamworker.program import Program


def load_app(target: str, *, factory: bool = False, app_dir: str = ".") -> StreamWorker:
    """The application that `target` names: `module:attribute`, the other order, `module` alone, or a file's path.

    With `factory`, the attribute is called to get it. Raises `SetupError` with the repair, or with the place where importing failed.
    """
    if not Path(app_dir).is_dir():
        raise SetupError(f"there is no directory {app_dir!r}: name one with --app-dir, or leave that out")
    directory = str(Path(app_dir).resolve())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    first, colon, second = target.rpartition(":") if target.count(":") else (target, "", "")
    if not first or (colon and not second):
        raise SetupError(f"{target!r} is not module:attribute: write it like orders:app or examples/orders.py:app")
    with _sentence_for_import_errors(first):
        module, attribute = _resolve(first, second)
    app = _app_of(module, attribute, target, factory=factory)
    where = str(Path(first).resolve()) + (f":{second}" if second else "") if _is_path(first) else target
    app.found_at = Program(where, factory, directory)
    return app


def _app_of(module: ModuleType, attribute: str, target: str, *, factory: bool) -> StreamWorker:
    if not attribute and factory:
        raise SetupError(f"--factory needs the function's name, as in {target}:make_app: write it, or leave --factory out")
    if not attribute:
        return _only_app_of(module)
    found = _attribute(module, attribute)
    return _made(found, target) if factory else _checked(found, target)


@contextmanager
def _sentence_for_import_errors(name: str) -> Iterator[None]:
    """What goes wrong inside the user's module as one sentence with its place; our own frames would bury it."""
    try:
        yield
    except (SetupError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        place = _place_of(error)
        raise SetupError(f"importing {name!r} failed: {describe(error)}{place}") from error


def _place_of(error: BaseException) -> str:
    """The innermost line outside of this package and of Python's import machinery."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f" ({error.filename}, line {error.lineno})"
    own = str(Path(__file__).parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((own, "<frozen"))]
    theirs = [frame for frame in frames if "importlib" not in frame.filename]
    return f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""


def _resolve(first: str, second: str) -> tuple[ModuleType, str]:
    """The module and the attribute's name, in the order that makes sense."""
    module = _find(first)
    if module is not None:
        return module, second
    if second:
        module = _find(second)
        if module is not None and hasattr(module, first):
            return module, first
    raise SetupError(f"cannot import {first!r}: there is no such module here; name another place with --app-dir")


def _find(name: str) -> ModuleType | None:
    if _is_path(name):
        return _from_file(Path(name))
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only the module that was asked for may be missing; one that it imports itself is its own error.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise


def _is_path(name: str) -> bool:
    return name.endswith(".py") or "/" in name


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise SetupError(f"there is no file {str(path)!r} in {Path.cwd()}")
    # A program in json.py must not stand in for the module that everybody else has imported by that name.
    name = f"{path.stem}_file" if path.stem in sys.modules else path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SetupError(f"{str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _attribute(module: ModuleType, dotted: str) -> Any:
    found: Any = module
    for part in dotted.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, [name for name in dir(found) if not name.startswith("_")], n=1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise SetupError(f"module {module.__name__!r} has no {dotted!r}{hint}")
        found = getattr(found, part)
    return found


def _only_app_of(module: ModuleType) -> StreamWorker:
    apps = {name: value for name, value in vars(module).items() if isinstance(value, StreamWorker)}
    if len({id(app) for app in apps.values()}) == 1:
        return next(iter(apps.values()))
    if apps:
        raise SetupError(f"module {module.__name__!r} holds several StreamWorkers: name one, such as {module.__name__}:{min(apps)}")
    raise SetupError(f"module {module.__name__!r} holds no StreamWorker: make one, app = StreamWorker(group=…)")


def _made(found: Any, target: str) -> StreamWorker:
    if not isinstance(found, Callable):  # type: ignore[arg-type]  # the abstract class is the check
        raise SetupError(f"{target!r} is no factory: it cannot be called; leave --factory out")
    return _checked(found(), f"what {target} returned")


def _checked(found: Any, what: str) -> StreamWorker:
    if isinstance(found, StreamWorker):
        return found
    if callable(found):
        kind = "class" if isinstance(found, type) else "function"
        raise SetupError(f"{what!r} is a {kind}, not a StreamWorker: if it makes one, add --factory")
    raise SetupError(f"{what!r} is a {type(found).__name__}, not a StreamWorker")
