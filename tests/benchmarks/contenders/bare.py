"""A process that has imported what any worker on Redis needs, and does nothing."""

from __future__ import annotations

import signal

import pydantic  # noqa: F401
import redis  # noqa: F401
import structlog  # noqa: F401
from probe import begin

begin()
signal.pause()
