"""Every command, registered by being imported here."""

from __future__ import annotations

from streamworker.cli import worker_commands

__all__ = ["worker_commands"]
