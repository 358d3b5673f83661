"""The connections over which an application publishes and asks, and where they lead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

from streamworker.errors import SetupError
from streamworker.publisher import Publisher
from streamworker.requester import Requester
from streamworker.streams.connections import Endpoint


class Connected:
    """The part of an application that holds its connections."""

    _where: Callable[[], Endpoint]
    _publisher: Publisher
    _requester: Requester
    _lent = False

    def _speak_to(self, where: Callable[[], Endpoint]) -> None:
        self._where = where
        self._publisher = Publisher(where)
        self._requester = Requester(where)

    async def publish_to(self, endpoint: Endpoint) -> None:
        """Publish to this server from now on: a worker calls it with its own, which an option may have named."""
        await self.close()
        self._speak_to(lambda: endpoint)

    @asynccontextmanager
    async def publishing_to(self, endpoint: Endpoint) -> AsyncIterator[None]:
        """Publish to this server until the block ends. Raises `SetupError` inside another one."""
        if self._lent:
            raise SetupError("this app has a TestWorker already: one at a time, or give each an app of its own")
        before, self._lent = (self._where, self._publisher, self._requester), True
        try:
            await self.publish_to(endpoint)
            yield
        finally:
            await self.close()
            self._where, self._publisher, self._requester = before
            self._lent = False

    async def close(self) -> None:
        """End the connections that publish and ask; a later call opens new ones."""
        await self._requester.close()
        await self._publisher.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
