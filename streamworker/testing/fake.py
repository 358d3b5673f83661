"""A fake Redis on a loopback port: fakeredis behind a real socket, so that a worker connects to it as in production."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Self

from streamworker.errors import SetupError

HOST = "127.0.0.1"


class FakeServer:
    """An empty server in a thread of this process, from `start` (or entering it) until `close`. `url` is where it listens.

    Raises `SetupError` with the repair where fakeredis is not installed.
    """

    def __init__(self) -> None:
        self._clients = _client_maker()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="streamworker-fake-redis", daemon=True)
        self._listening = threading.Event()
        self._over = asyncio.Event()
        self.url: str = ""

    def start(self) -> Self:
        """Listen, and return when that is so."""
        self._thread.start()
        self._listening.wait()
        return self

    def close(self) -> None:
        """End it, with all connections and all that it holds."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        served: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._talk(reader, writer))
            served.add(task)
            task.add_done_callback(served.discard)

        server = await asyncio.start_server(connected, HOST, 0)
        self.url = f"redis://{HOST}:{server.sockets[0].getsockname()[1]}/0"
        self._listening.set()
        await self._over.wait()
        server.close()
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = self._clients()
        answering = asyncio.ensure_future(_answer(client, writer))
        try:
            while data := await reader.read(65_536):
                client.sendall(data)
        except OSError:
            pass
        finally:
            answering.cancel()
            client.hang_up()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def _answer(client: Any, writer: asyncio.StreamWriter) -> None:
    while True:
        reply = await client.responses.get()
        writer.write(resp(reply, client.protocol_version))
        await writer.drain()


def _client_maker() -> Any:
    """What makes the server's side of a connection, all of them on the same data."""
    try:
        import fakeredis
        import lupa  # noqa: F401  # the scripts need it
        from fakeredis.aioredis import AsyncFakeSocket
    except ImportError:
        raise SetupError(
            "the fake server needs fakeredis with Lua: pip install 'streamworker[testing]', or give TestWorker a redis_url"
        ) from None
    data = fakeredis.FakeServer(version=(7, 4))

    class Client(AsyncFakeSocket):  # type: ignore[misc, unused-ignore]
        def _decode_error(self, error: Any) -> Any:
            return error  # as the server wrote it, with its code

        def hang_up(self) -> None:
            """End what it waits for, or it would be given entries that nobody can read any more."""
            with self._server.lock:
                if self._blocked:
                    self._unblock_reason = b"timeout"
                    self._db.wake_all()
                self.kill()

        @property
        def protocol_version(self) -> int:
            return int(self._client_info.protocol_version)

    return lambda: Client(data, 0, client_class=object)


def resp(reply: Any, version: int) -> bytes:
    """A reply in this version of the protocol (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
    match reply:
        case None:
            return b"_\r\n" if version == 3 else b"$-1\r\n"
        case bool() if version == 3:
            return b"#t\r\n" if reply else b"#f\r\n"
        case bool() | int():
            return b":%d\r\n" % reply
        case float():
            return b",%r\r\n" % reply if version == 3 else resp(repr(reply).encode(), version)
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case str():
            return resp(reply.encode(), version)
        case dict():
            parts = [part for pair in reply.items() for part in pair]
            return _joined(b"%%%d\r\n" % len(reply) if version == 3 else b"*%d\r\n" % len(parts), parts, version)
        case set() | frozenset():
            return _joined(b"%b%d\r\n" % (b"~" if version == 3 else b"*", len(reply)), reply, version)
        case list() | tuple():
            return _joined(b"*%d\r\n" % len(reply), reply, version)
        case _:
            return b"-%b\r\n" % str(getattr(reply, "value", reply)).encode()


def _joined(head: bytes, parts: Iterable[Any], version: int) -> bytes:
    return head + b"".join(resp(part, version) for part in parts)
