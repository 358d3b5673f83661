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
from tests.servers import KINDS, GivenServer, ServerPool, describe, make_empty, make_server

# How fast an example runs is no claim of these tests, and a loaded machine would fail them.
hypothesis.settings.register_profile("streamworker", deadline=None)
hypothesis.settings.load_profile("streamworker")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--streamworker-redis",
        metavar="URL",
        help="run the tests of the `server` fixture against this server instead; ALL ITS DATA is deleted before each of them",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--streamworker-redis") and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--streamworker-redis gives one server, which tests empty: leave -n out, or set it to 0")


def pytest_report_header(config: pytest.Config) -> str:
    url = config.getoption("--streamworker-redis")
    if url is None:
        return f"servers: {describe('valkey')}, {describe('redis')}"
    address = urlsplit(url)
    return f"servers: {address.hostname}:{address.port}. WARNING: it is emptied (FLUSHALL) before each test that uses it"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        url = metafunc.config.getoption("--streamworker-redis")
        metafunc.parametrize("server", KINDS if url is None else [pytest.param(GivenServer(url), id="given")], indirect=True)


@pytest.fixture(scope="session")
def server_pool() -> Iterator[ServerPool]:
    with ServerPool() as pool:
        yield pool


@pytest.fixture
def server(request: pytest.FixtureRequest, server_pool: ServerPool) -> EmbeddedServer | GivenServer:
    """An empty server: the test runs once with each kind. It is shared, so a test must not kill it nor change its configuration."""
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
    """`private_server("valkey", data_dir=…)` starts a server for this test alone, which may kill, fill or configure it."""
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
