"""Imports the program, runs its lifespan, and handles one entry after the other until the line to the worker ends."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from io import TextIOWrapper
from typing import Any

import structlog

from streamworker.app import StreamWorker
from streamworker.errors import SetupError
from streamworker.handling.parent import die_with
from streamworker.handling.running import Runner
from streamworker.loading import load_app
from streamworker.observe.descriptions import describe
from streamworker.observe.logging import configure
from streamworker.settings import Settings
from streamworker.streams.connections import Endpoint
from streamworker.worker.calls import BEGUN, LENGTH, READY, Hello, framed, read_call, read_hello, write_outcome


def serve(descriptor: int) -> None:
    """Be a process of a handler: `descriptor` is the line to its worker."""
    line = socket.socket(fileno=descriptor)
    line.set_inheritable(False)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what was printed before a death is to be seen
    hello = read_hello(_received(line))
    die_with(hello.parent)
    sys.path[:] = hello.path
    try:
        app = load_app(hello.target, factory=hello.factory, app_dir=hello.app_dir)
        _check(app, hello)
        settings = app.settings(hello.flags)
    except SetupError as error:
        line.sendall(framed(str(error).encode()))
        return
    configure(settings.log_level, settings.log_format)
    asyncio.run(_serve(app, settings, line))


async def _serve(app: StreamWorker, settings: Settings, line: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=line)
    await app.publish_to(Endpoint(settings.read_redis_url))
    async with AsyncExitStack() as exits:
        exits.push_async_callback(app.close)
        try:
            state = await exits.enter_async_context(_lifespan(app))
        except Exception as error:  # noqa: BLE001  # the worker is told, and says it
            structlog.get_logger("streamworker.handling").exception("handler.process_failed")
            writer.write(framed(f"the lifespan has failed in a process of a handler: {describe(error)}".encode()))
            await writer.drain()
            return
        writer.write(framed(READY))
        await _answer_all(Runner(app, state), reader, writer)


async def _answer_all(runner: Runner, reader: StreamReader, writer: StreamWriter) -> None:
    """Until the line ends: then nobody wants an outcome any more, and what runs is not waited for."""
    following = asyncio.create_task(_heard(reader))
    while (message := await following) is not None:
        following = asyncio.create_task(_heard(reader))
        delivery, name = read_call(message)
        writer.write(framed(BEGUN))
        running = asyncio.create_task(runner.run(delivery, name))
        await asyncio.wait({running, following}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            os._exit(1)
        writer.write(framed(write_outcome(await running, runner.policy(name))))


@asynccontextmanager
async def _lifespan(app: StreamWorker) -> AsyncIterator[Mapping[str, Any]]:
    if app.lifespan is None:
        yield {}
        return
    async with app.lifespan(app) as state:
        yield {} if state is None else state


def _check(app: StreamWorker, hello: Hello) -> None:
    missing = sorted(set(hello.handlers) - {handler.name for handler in app.handlers})
    if missing:
        raise SetupError(
            f"handler {missing[0]!r} has executor='process', but a process of its own does not find it in {hello.target!r}: "
            "register it whenever that module is imported, and not only where the worker runs"
        )


async def _heard(reader: StreamReader) -> bytes | None:
    try:
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return await reader.readexactly(length)
    except (OSError, EOFError):
        return None


def _received(line: socket.socket) -> bytes:
    """The first message; ends the process where there is none."""
    data = b""
    while len(data) < LENGTH.size or len(data) < LENGTH.size + LENGTH.unpack_from(data)[0]:
        more = line.recv(1 << 16)
        if not more:
            sys.exit(1)
        data += more
    return data[LENGTH.size :]
