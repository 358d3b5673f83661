"""Where a test's worker works: a fake server of its own, or an empty database of a real one, which is emptied again at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from streamworker.errors import ConnectionLost, ServerError, SetupError
from streamworker.streams import rehearsing
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link
from streamworker.testing.fake import FakeServer

NUMBERS = (*range(1, 16), 0)
"""A server has 16 databases unless it was told otherwise."""


@asynccontextmanager
async def stage(redis_url: str | None) -> AsyncIterator[str]:
    """The URL of an empty database that is this test's alone: of a fake server, or of the one at `redis_url`.

    Where the URL names a database that is not 0, it is that one; else the first that is empty. Raises `SetupError` where there is none.
    """
    if redis_url is None:
        server = await asyncio.to_thread(FakeServer().start)
        try:
            async with _claimed(server.url) as url:
                yield url
        finally:
            await asyncio.to_thread(server.close)
    else:
        async with _claimed(redis_url) as url:
            yield url


@contextmanager
def stage_for_threads(redis_url: str | None) -> Iterator[str]:
    """As `stage`, for code without an event loop."""
    with ThreadPoolExecutor(1, thread_name_prefix="streamworker-stage") as thread:
        runner = asyncio.Runner()
        staged = stage(redis_url)
        url = thread.submit(lambda: runner.run(_entered(staged))).result()
        try:
            yield url
        finally:
            thread.submit(lambda: runner.run(_left(staged))).result()
            thread.submit(runner.close).result()


async def _entered(staged: AbstractAsyncContextManager[str]) -> str:
    return await staged.__aenter__()


async def _left(staged: AbstractAsyncContextManager[str]) -> None:
    await staged.__aexit__(None, None, None)


@asynccontextmanager
async def _claimed(redis_url: str) -> AsyncIterator[str]:
    url, link = await _claim(redis_url)
    try:
        yield url
    finally:
        try:
            await rehearsing.give_back(link)
        finally:
            await link.close()


async def _claim(redis_url: str) -> tuple[str, Link]:
    for url in _databases(redis_url):
        link = Link(Endpoint(url))
        if await _is_ours(link):
            return url, link
        await link.close()
    raise SetupError(
        f"there is no empty database at {Endpoint(redis_url)}, and tests touch none that holds something: empty one (FLUSHDB), "
        "name an empty one (redis://host:port/7), or leave redis_url out to test on the fake server"
    )


async def _is_ours(link: Link) -> bool:
    try:
        return await rehearsing.claim(link)
    except (ConnectionLost, ServerError) as error:
        await link.close()
        if isinstance(error, ServerError) and "DB index" in str(error):
            return False  # the server has fewer databases
        raise SetupError(f"the server of the tests at {link.endpoint} cannot be used: {error}") from error


def _databases(redis_url: str) -> list[str]:
    """The URLs of the databases to try: the one that is named, or all; the first one last, for it is everybody's."""
    parts = urlsplit(redis_url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "unix":
        if query.get("db", "0") != "0":
            return [redis_url]
        return [urlunsplit(parts._replace(query=urlencode(query | {"db": number}))) for number in NUMBERS]
    if query.get("db", parts.path.strip("/") or "0") != "0":
        return [redis_url]
    rest = urlencode({name: value for name, value in query.items() if name != "db"})
    return [urlunsplit(parts._replace(path=f"/{number}", query=rest)) for number in NUMBERS]
