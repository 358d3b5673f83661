"""Runs several worker processes from the command line: their supervisor's loop, logging, signals, health endpoints, exit code."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import structlog

from streamworker.addresses import where_to_listen
from streamworker.cli.failing import print_error
from streamworker.cli.processes import same_command
from streamworker.observe.logging import configure
from streamworker.observe.variables import warn_of_strange_variables
from streamworker.settings import Settings
from streamworker.supervisor.endpoints import health_endpoints
from streamworker.supervisor.signals import Signals
from streamworker.supervisor.supervisor import Supervisor
from streamworker.worker.exits import ExitCode


def supervise(flags: Mapping[str, Any]) -> ExitCode:
    """Run this same command in so many children until told to stop. Raises `SetupError`."""
    settings = Settings.load(os.environ, flags, {})
    configure(settings.log_level, settings.log_format)
    log: Any = structlog.get_logger("streamworker.supervisor")
    warn_of_strange_variables(os.environ, log)
    supervisor = Supervisor(same_command(), settings, log)
    address = where_to_listen(settings.health_addr, os.environ)
    with health_endpoints(address, supervisor.seen, settings.liveness_limit, log):
        code = asyncio.run(_run(supervisor, log))
    if supervisor.last_words:
        print_error(supervisor.last_words)
    return code


async def _run(supervisor: Supervisor, log: Any) -> ExitCode:
    with Signals(supervisor, log).installed():
        return await supervisor.run()
