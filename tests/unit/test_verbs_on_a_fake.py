"""Reading and writing verbs against an in-process fake: quick, and enough where no script and no blocking is involved.

The fake's TCP server ends the connection with every error reply, and the first run of a script begins with one (NOSCRIPT). So what settles
is proved elsewhere: on real servers, and on a fake inside the process (`conformance/test_settlement_machine.py`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
from fakeredis import TcpFakeServer

from streamworker import StreamWorker
from streamworker.delivery import Outgoing
from streamworker.streams import groups, inspecting, publishing
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link


@pytest.fixture
def fake_url() -> Iterator[str]:
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis", server_version=(7, 0))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
async def link(fake_url: str) -> AsyncIterator[Link]:
    connection = Link(Endpoint(fake_url))
    yield connection
    await connection.close()


async def test_what_is_added_is_found_by_range_and_by_age(link: Link) -> None:
    """In order, with the ids that adding answered."""
    ids = await asyncio.gather(*(publishing.add(link, Outgoing("orders", [b"n", b"%d" % number])) for number in range(5)))

    every = await inspecting.entries(link, "orders")
    newest = await inspecting.newest(link, "orders", 2)

    assert ids == [entry.id for entry in every]
    assert ids[-2:] == [entry.id for entry in newest]
    assert [b"n", b"4"] == newest[-1].fields
    assert 5 == await inspecting.length(link, "orders")


async def test_a_new_group_knows_where_it_begins(link: Link) -> None:
    """At the first entry, or after the last one."""
    newest = await publishing.add(link, Outgoing("orders", [b"n", b"1"]))
    await groups.create(link, "orders", "from-the-first", "0")
    await groups.create(link, "orders", "from-now-on", "$")

    starts = {info.name: info.last_delivered_id for info in await groups.describe(link, "orders")}

    assert {"from-the-first": "0-0", "from-now-on": newest} == starts


async def test_an_application_publishes_without_a_worker(fake_url: str, link: Link) -> None:
    """One entry or many; the ids come back in order."""
    app = StreamWorker(redis_url=fake_url)

    async with app:
        first = await app.publish("orders", {"order_id": "1"}, type="Placed")
        others = await app.publish_many("orders", [{"order_id": "2"}, {"order_id": "3"}], headers={"tenant": "eu"})
    entries = await inspecting.entries(link, "orders")

    assert [first, *others] == [entry.id for entry in entries]
    assert [b"order_id", b"1", b"_type", b"Placed"] == entries[0].fields
    assert [b"order_id", b"3", b"_tenant", b"eu"] == entries[2].fields
