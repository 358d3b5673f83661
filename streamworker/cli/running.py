"""Runs one worker process from the command line: loop, logging, signals, exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import structlog

from streamworker.app import StreamWorker
from streamworker.errors import SetupError
from streamworker.observe.logging import configure
from streamworker.settings import Settings
from streamworker.worker.exits import ExitCode
from streamworker.worker.process import WorkerProcess
from streamworker.worker.signals import Signals


def run_worker(app: StreamWorker, settings: Settings) -> ExitCode:
    """Run `app` until it is told to stop. Raises `SetupError` or `Unreachable`."""
    configure(settings.log_level, settings.log_format)
    with asyncio.Runner(loop_factory=loop_factory(settings.loop)) as runner:
        code, roll = runner.run(_run(app, settings))
    if roll:
        _start_afresh()
    return code


def leave(code: int) -> None:
    """End the process; a handler's thread that overran the grace must not hold it."""
    if any(thread.name.startswith("streamworker-handler") for thread in threading.enumerate()):
        sys.stdout.flush()
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


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


async def _run(app: StreamWorker, settings: Settings) -> tuple[ExitCode, bool]:
    log: Any = structlog.get_logger("streamworker.worker")
    process = WorkerProcess(app, settings)
    signals = Signals(process, log)
    with signals.installed():
        code = await process.run()
    # The loop's own end waits for whatever tasks user code has left behind; it must not wait for ever.
    process.watchdog.watch()
    return code, signals.roll


def _start_afresh() -> None:
    """Replace this process by a new one with the same command: new code, new connections, same process id for the supervisor above."""
    logging.shutdown()
    # Until the new process has its own handlers, a second HUP must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.execv(sys.executable, [sys.executable, "-m", "streamworker", *sys.argv[1:]])  # noqa: S606  # our own command again
