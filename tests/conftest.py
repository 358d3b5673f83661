"""Fixtures that give a test a real server. What stands behind them is in `tests/servers.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import hypothesis
import pytest
import redis
import redis.asyncio

from streamworker.embedded import EmbeddedServer
from tests.servers import FAST, KINDS, GivenServer, Kind, ServerPool, make_empty, make_server, present, report

# How fast an example runs is no claim of these tests, and a loaded machine would fail them.
hypothesis.settings.register_profile("streamworker", deadline=None)
hypothesis.settings.load_profile("streamworker")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--servers",
        metavar="all|fast|NAME,NAME",
        help=f"which servers tests run against: every one that is present, {' and '.join(FAST)} only, or some of {', '.join(KINDS)}; "
        "unless given, tests marked `matrix` run on all, those marked `one_server` on one and the others on the fast ones",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "matrix: belongs to the conformance of a server, and runs on every server that is present")
    config.addinivalue_line("markers", "one_server: takes long, and runs on one server unless --servers asks for more")
    if _given_url(config) and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--streamworker-redis gives one server, which tests empty: leave -n out, or set it to 0")
    chosen = (config.getoption("--servers") or "all").split(",")
    if chosen not in (["all"], ["fast"]) and (unknown := set(chosen).difference(KINDS)):
        raise pytest.UsageError(f"--servers: there is no {', '.join(sorted(unknown))}; there are all, fast, {', '.join(KINDS)}")


def _given_url(config: pytest.Config) -> str | None:
    """The server of --streamworker-redis, an option of our plugin: the tests of `server` run on it, and ALL ITS DATA is deleted."""
    where: str | None = config.getoption("--streamworker-redis", default=None)
    return None if where in (None, "fake", "embedded") else where


def pytest_report_header(config: pytest.Config) -> str | list[str]:
    url = _given_url(config)
    if url is None:
        return report()
    address = urlsplit(url)
    return f"servers: {address.hostname}:{address.port}. WARNING: it is emptied (FLUSHALL) before each test that uses it"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kinds = _kinds_for(metafunc)
    if "server" in metafunc.fixturenames:
        url = _given_url(metafunc.config)
        metafunc.parametrize("server", kinds if url is None else [pytest.param(GivenServer(url), id="given")], indirect=True)
    if "server_kind" in metafunc.fixturenames:
        metafunc.parametrize("server_kind", kinds)


def _kinds_for(metafunc: pytest.Metafunc) -> list[Kind]:
    """The servers that a test runs on. The fast ones and those asked for by name are among them even if absent: the test then says so."""
    chosen = metafunc.config.getoption("--servers")
    if chosen is None and metafunc.definition.get_closest_marker("one_server"):
        return list(FAST[:1])
    if chosen is None:
        chosen = "all" if metafunc.definition.get_closest_marker("matrix") else "fast"
    if chosen == "all":
        return list(dict.fromkeys((*FAST, *present())))
    return list(FAST) if chosen == "fast" else chosen.split(",")


@pytest.fixture(scope="session")
def server_pool() -> Iterator[ServerPool]:
    with ServerPool() as pool:
        yield pool


@pytest.fixture
def server(request: pytest.FixtureRequest, server_pool: ServerPool) -> EmbeddedServer | GivenServer:
    """An empty server: the test runs once with each kind chosen. It is shared, so a test must not kill it nor change its configuration."""
    if isinstance(request.param, GivenServer):
        make_empty(request.param.url)
        return request.param
    return server_pool.empty(request.param)


@pytest.fixture
def valkey(server_pool: ServerPool) -> EmbeddedServer:
    """An empty Valkey, shared like `server`: for tests that need no second kind."""
    return server_pool.empty("valkey")


@pytest.fixture
def private_server() -> Iterator[Callable[..., EmbeddedServer]]:
    """`private_server("valkey", data_dir=…)` starts a server for this test alone, which may kill, fill or configure it.

    A test that takes `server_kind` too, and hands it on, runs once with each kind that `server` would have.
    """
    with ExitStack() as stack:
        yield lambda kind="valkey", **options: stack.enter_context(make_server(kind, **options))


@pytest.fixture
def redis_client(server: EmbeddedServer | GivenServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
async def aredis(server: EmbeddedServer | GivenServer) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(server.url) as client:
        yield client
