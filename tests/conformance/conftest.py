"""What tests of the verbs share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from taking import KEYS

from streamworker.embedded import EmbeddedServer
from streamworker.streams import groups
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link


@pytest.fixture
async def link(server: EmbeddedServer) -> AsyncIterator[Link]:
    """A connection to a server where the group `billing` is there on `orders` and its retry stream."""
    connection = Link(Endpoint(server.url))
    for key in (KEYS.stream, KEYS.retry):
        await groups.create(connection, key, "billing", "0")
    yield connection
    await connection.close()
