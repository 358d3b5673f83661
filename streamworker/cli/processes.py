"""This process, and others of the same command."""

from __future__ import annotations

import logging
import os
import sys
import threading


def same_command() -> list[str]:
    """The command that this process was started with, options of the interpreter included."""
    return [sys.executable, *sys.orig_argv[1:]]


def leave(code: int) -> None:
    """End the process; a handler's thread that overran the grace must not hold it."""
    if any(thread.name.startswith("streamworker-handler") for thread in threading.enumerate()):
        sys.stdout.flush()
        logging.shutdown()
        os._exit(code)
    sys.exit(code)
