"""The first connection of a worker process."""

from __future__ import annotations

from streamworker.errors import ConnectionLost, Refused, ServerError, Unreachable
from streamworker.streams.connections import Endpoint
from streamworker.streams.faults import Remedy, remedy_for
from streamworker.streams.inspecting import greet
from streamworker.streams.link import Link


async def first_link(endpoint: Endpoint) -> Link:
    """A link to a server that answers. Raises `Unreachable`, or `Refused` where it does not let us in."""
    link = Link(endpoint)
    try:
        await greet(link)
    except ServerError as error:
        if remedy_for(error) is Remedy.CONFIGURE:
            await link.close()
            raise Refused(f"Redis at {endpoint} refuses this worker: {error}") from error
    except ConnectionLost as error:
        await link.close()
        raise Unreachable(f"cannot reach Redis at {endpoint}: {error}") from error
    return link
