"""Runs one worker process from the command line: loop, logging, signals, exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from random import random
from typing import Any

import structlog

from streamworker.addresses import where_to_listen
from streamworker.app import StreamWorker
from streamworker.cli.processes import same_command
from streamworker.errors import SetupError, StreamWorkerError
from streamworker.observe.descriptions import describe, trace
from streamworker.observe.logging import configure
from streamworker.observe.variables import warn_of_strange_variables
from streamworker.settings import Settings
from streamworker.supervisor.endpoints import health_endpoints
from streamworker.supervisor.heartbeat import heartbeat
from streamworker.supervisor.leash import Leash
from streamworker.supervisor.shares import share_of
from streamworker.supervisor.window import Window
from streamworker.worker.exits import ExitCode
from streamworker.worker.process import WorkerProcess
from streamworker.worker.signals import Signals


def run_worker(app: StreamWorker, settings: Settings, leash: Leash | None = None) -> ExitCode:
    """Run `app` until it is told to stop: by itself with health endpoints of its own, or on the leash of a supervisor, which has them.

    Raises `SetupError` or `Unreachable`, and on a terminal whatever else the program raises; elsewhere its log says that.
    """
    configure(settings.log_level, settings.log_format)
    log: Any = structlog.get_logger("streamworker.worker")
    window = Window()
    if leash is None:
        warn_of_strange_variables(os.environ, log)
    else:
        settings = share_of(settings, leash.number, random())  # noqa: S311  # spreads the children's ends, guards nothing
    address = None if leash is not None else where_to_listen(settings.health_addr, os.environ)
    endpoints = health_endpoints(address, window.seen, settings.liveness_limit, log)
    try:
        with endpoints, asyncio.Runner(loop_factory=loop_factory(settings.loop)) as runner:
            code, roll = runner.run(_run(app, settings, window if leash is None else leash))
    except StreamWorkerError:
        raise
    except Exception as error:
        if leash is not None:
            leash.say(describe(error), trace(error))
        elif settings.log_format != "json" and sys.stderr is not None and sys.stderr.isatty():
            raise
        else:
            log.exception("worker.failed")
        return ExitCode.FAILURE
    if roll and leash is None:  # a supervisor starts the successor itself
        _start_afresh()
    return code


def loop_factory(wanted: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop; `None` is asyncio's own."""
    if wanted == "asyncio":
        return None
    try:
        import uvloop  # an extra
    except ImportError:
        if wanted == "uvloop":
            raise SetupError("--loop uvloop needs uvloop: pip install 'streamworker[speed]'") from None
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _run(app: StreamWorker, settings: Settings, watcher: Window | Leash) -> tuple[ExitCode, bool]:
    process = WorkerProcess(app, settings)
    signals = Signals(process, structlog.get_logger("streamworker.worker"))
    with signals.installed():
        async with heartbeat(process, watcher.tell):
            if isinstance(watcher, Leash):
                watcher.attach(process, settings.grace.total_seconds())
            code = await process.run()
    if process.gave_up and isinstance(watcher, Leash):
        watcher.say(process.gave_up)
    # The loop's own end waits for whatever tasks user code has left behind; it must not wait for ever.
    process.watchdog.watch()
    return code, signals.roll


def _start_afresh() -> None:
    """Replace this process by a new one with the same command: new code, new connections, same process id for the supervisor above."""
    logging.shutdown()
    # Until the new process has its own handlers, a second HUP must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.execv(sys.executable, same_command())  # noqa: S606  # our own command again
