"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.servers import ServerPool

pytest_plugins = ["pytester"]

SHOP = """
    import pytest
    from streamworker import StreamWorker

    app = StreamWorker(group="g")
    seen = []

    @app.handler("work")
    async def work(body: dict[str, str]) -> None:
        seen.append(body["n"])
"""
TESTS = """
    import asyncio
    import pytest
    import redis
    from shop import app, seen

    @pytest.mark.parametrize("number", ["1", "2"])
    def test_work(streamworker_worker, number):
        async def work():
            async with streamworker_worker(app) as worker:
                await worker.publish("work", {"n": number})
                await worker.run_until_idle()
                assert len(worker.deliveries()) == 1
        asyncio.run(work())
        assert seen[-1] == number

    @pytest.mark.parametrize("number", ["1", "2"])
    def test_redis(streamworker_redis, number):
        with redis.Redis.from_url(streamworker_redis) as client:
            assert client.incr("hits") == 1

    @pytest.mark.streamworker(redis="fake")
    def test_marked(streamworker_server):
        assert streamworker_server is None
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makepyfile(shop=SHOP, test_shop=TESTS)
    pytester.makeini(
        "[pytest]\nfilterwarnings = error\naddopts = -p no:cacheprovider\nasyncio_default_fixture_loop_scope = function"
    )
    return pytester


def test_tests_run_on_the_fake_server(project: pytest.Pytester) -> None:
    """Without any option, with no plugin for async tests needed."""
    project.runpytest_subprocess("--strict-markers").assert_outcomes(passed=5)


@pytest.mark.parametrize("how", ["option", "ini", "embedded"])
def test_tests_run_where_they_are_told_to(project: pytest.Pytester, server_pool: ServerPool, how: str) -> None:
    """By the option or the configuration, each test in an empty database, which is empty again afterwards."""
    url = server_pool.empty("valkey").url
    options = {
        "option": ["--streamworker-redis", url],
        "ini": ["-o", f"streamworker_redis={url}"],
        "embedded": ["--streamworker-redis", "embedded"],
    }
    project.runpytest_subprocess(*options[how]).assert_outcomes(passed=5)


def test_every_run_of_pytest_stays_light() -> None:
    """The plugin is loaded whether it is used or not, so it must load nothing of weight."""
    heavy = "{'redis', 'pydantic', 'fakeredis', 'structlog'}"
    code = f"import sys, streamworker.testing.plugin; print({heavy}.intersection(sys.modules))"
    assert "set()\n" == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
