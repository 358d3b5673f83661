"""The pytest plugin: where tests run is said once, on the command line or in the configuration, and not in each test.

Loaded in every run of pytest where streamworker is installed, so it imports nothing of weight before a fixture is asked for. The fixtures
are plain functions and the workers async context managers, so that any plugin for async tests will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from streamworker.app import StreamWorker
    from streamworker.testing.worker import TestWorker

WHERE = (
    "where the tests of the streamworker fixtures run: on the fake server (fake), on one of their own (embedded), or at a Redis URL"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --streamworker-redis."""
    parser.getgroup("streamworker").addoption("--streamworker-redis", metavar="fake|embedded|URL", help=WHERE)
    parser.addini("streamworker_redis", WHERE, default="fake")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", 'streamworker(redis="fake"|"embedded"|URL): run this test there, whatever the option says')


@pytest.fixture(scope="session")
def _streamworker_embedded() -> Iterator[Callable[[], str]]:
    """The URL of a real server for this run, started when somebody first asks."""
    from contextlib import ExitStack
    from functools import cache

    with ExitStack() as exits:

        @cache
        def url() -> str:
            from streamworker.embedded import resolve_server

            return exits.enter_context(resolve_server(None, allow_local=False)).url

        yield url


@pytest.fixture
def streamworker_server(request: pytest.FixtureRequest, _streamworker_embedded: Callable[[], str]) -> str | None:
    """The URL of the server that tests share, each in a database of its own; `None` on the fake one, which is made for each test."""
    marker = request.node.get_closest_marker("streamworker")
    option = request.config.getoption("--streamworker-redis") or request.config.getini("streamworker_redis")
    where: str = option if marker is None else marker.kwargs["redis"]
    if where == "fake":
        return None
    return _streamworker_embedded() if where == "embedded" else where


@pytest.fixture
def streamworker_redis(streamworker_server: str | None) -> Iterator[str]:
    """The URL of an empty database for this test, which is emptied again: for code that needs a server and no worker."""
    from streamworker.testing.stage import stage_for_threads

    with stage_for_threads(streamworker_server) as url:
        yield url


@pytest.fixture
def streamworker_worker(streamworker_server: str | None) -> Callable[..., TestWorker]:
    """Makes a `TestWorker` that runs where the option says: `async with streamworker_worker(app, state={…}) as worker`."""

    def make(app: StreamWorker, **options: Any) -> TestWorker:
        from streamworker.testing.worker import TestWorker

        return TestWorker(app, **{"redis_url": streamworker_server, **options})

    return make
