"""From what a user types after `run` to the program that is meant."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamworker.app import StreamWorker
from streamworker.errors import SetupError
from streamworker.loading import load_app

AN_APP = "from streamworker import StreamWorker\napp = StreamWorker('shop', group='billing')\n"
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def imports_as_before() -> Iterator[None]:
    """What a test imports is forgotten after it."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write("shop", …)` makes the module `shop` in the test's folder."""

    def _write(name: str, text: str = AN_APP) -> Path:
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return _write


def _load(target: str, directory: Path, **options: Any) -> StreamWorker:
    return load_app(target, app_dir=str(directory), **options)


@pytest.mark.parametrize("target", ["shop_a:app", "app:shop_a", "shop_a"])
def test_module_and_attribute_are_found_in_either_order(target: str, write: Write, tmp_path: Path) -> None:
    """And the attribute may be left out where there is one program only."""
    write("shop_a")

    assert "shop" == _load(target, tmp_path).name


def test_a_module_of_a_package_is_found(write: Write, tmp_path: Path) -> None:
    """By its dotted name."""
    write("shop_b.workers.main")

    assert "shop" == _load("shop_b.workers.main:app", tmp_path).name


def test_a_dotted_attribute_is_found(write: Write, tmp_path: Path) -> None:
    """A program may live in an object."""
    write("shop_c", AN_APP + "class Holder:\n    inner = app\n")

    assert "shop" == _load("shop_c:Holder.inner", tmp_path).name


@pytest.mark.parametrize("suffix", ["", ":app"])
def test_a_files_path_works_too(suffix: str, write: Write, tmp_path: Path) -> None:
    """With its neighbours to import from, as a script has them."""
    write("sub.shop_d_names", "NAME = 'neighbour'\n")
    path = write("sub.shop_d", "from shop_d_names import NAME\n" + AN_APP.replace("'shop'", "NAME"))

    assert "neighbour" == _load(f"{path}{suffix}", tmp_path).name


def test_the_same_program_under_two_names_is_one(write: Write, tmp_path: Path) -> None:
    """An alias makes nothing ambiguous."""
    write("shop_e", AN_APP + "application = app\n")

    assert "shop" == _load("shop_e", tmp_path).name


@pytest.mark.parametrize("target", ["shop_f:make", "make:shop_f"])
def test_a_factory_is_called(target: str, write: Write, tmp_path: Path) -> None:
    """Only when asked for."""
    write("shop_f", "from streamworker import StreamWorker\ndef make():\n    return StreamWorker('made')\n")

    assert "made" == _load(target, tmp_path, factory=True).name
    with pytest.raises(SetupError, match="if it makes one, add --factory"):
        _load(target, tmp_path)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("shop_g:aap", "module 'shop_g' has no 'aap': did you mean 'app'?"),
        ("shop_g:zzzzz", "module 'shop_g' has no 'zzzzz'"),
        ("shop_g:number", "'shop_g:number' is a int, not a StreamWorker"),
        ("shop_g:", "is not module:attribute: write it like"),
        (":app", "is not module:attribute: write it like"),
        ("", "is not module:attribute: write it like"),
        ("nowhere_at_all", "cannot import 'nowhere_at_all': there is no such module here; name another place with --app-dir"),
        ("nowhere_at_all:app", "cannot import 'nowhere_at_all'"),
        ("no where:app", "cannot import 'no where'"),
        ("..:app", "cannot import '..'"),
        ("nowhere/shop.py", "there is no file"),
        ("nowhere.py:app", "there is no file"),
        ("shop_none", "holds no StreamWorker: make one"),
        ("shop_several", "holds several StreamWorkers: name one, such as shop_several:first"),
    ],
)
def test_what_names_no_program_is_refused_with_the_repair(target: str, says: str, write: Write, tmp_path: Path) -> None:
    """The sentence holds what was typed."""
    write("shop_g", AN_APP + "number = 5\n")
    write("shop_none", "")
    write("shop_several", "from streamworker import StreamWorker\nfirst = StreamWorker()\nsecond = StreamWorker()\n")

    with pytest.raises(SetupError) as caught:
        _load(target, tmp_path)

    assert says in str(caught.value)


def test_what_would_be_ignored_is_refused_too(write: Write, tmp_path: Path) -> None:
    """A directory that is not there, and a factory that is not named."""
    write("shop_i", AN_APP)

    with pytest.raises(SetupError, match=r"there is no directory .*nowhere"):
        load_app("shop_i", app_dir=str(tmp_path / "nowhere"))
    with pytest.raises(SetupError, match="--factory needs the function's name, as in shop_i:make_app"):
        load_app("shop_i", factory=True, app_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("factory", "says"),
    [("app = 5", "is no factory"), ("app = lambda: 5", "what shop_h:app returned' is a int, not a StreamWorker")],
)
def test_a_wrong_factory_is_refused(factory: str, says: str, write: Write, tmp_path: Path) -> None:
    """It cannot be called, or makes something else."""
    write("shop_h", factory + "\n")

    with pytest.raises(SetupError) as caught:
        _load("shop_h:app", tmp_path, factory=True)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import nowhere_at_all\n", ModuleNotFoundError),
        ("from streamworker import Nothing\n", ImportError),
        ("1 / 0\n", ZeroDivisionError),
        ("raise AttributeError('own')\n", AttributeError),
        ("def broken(:\n", SyntaxError),
    ],
)
@pytest.mark.parametrize("target", ["shop_i:app", "app:shop_i", "shop_i", "shop_i.py"])
def test_an_error_inside_the_module_is_a_sentence_with_its_place(
    target: str, text: str, error: type[Exception], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it is, in which file and line; the cause goes with it."""
    monkeypatch.chdir(tmp_path)
    write("shop_i", text)

    with pytest.raises(SetupError) as caught:
        _load(target, tmp_path)

    assert error.__name__ in str(caught.value)
    assert "shop_i.py, line 1" in str(caught.value)
    assert isinstance(caught.value.__cause__, error)


def test_a_file_whose_name_a_loaded_module_has_does_not_replace_it(write: Write, tmp_path: Path) -> None:
    """A program in `json.py` must not break everybody who imports `json`."""
    import json

    path = write("json")

    assert "shop" == _load(str(path), tmp_path).name
    assert json is sys.modules["json"]


def test_a_file_that_fails_is_not_left_behind_half_loaded(write: Write, tmp_path: Path) -> None:
    """As Python's own import does it."""
    path = write("shop_j", "1 / 0\n")

    with pytest.raises(SetupError, match="ZeroDivisionError"):
        _load(str(path), tmp_path)

    assert "shop_j" not in sys.modules
