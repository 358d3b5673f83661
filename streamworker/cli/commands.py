"""Every command, registered by being imported here."""

from __future__ import annotations

from streamworker.cli import dead_letter_commands, demo_command, entry_commands, worker_commands

__all__ = ["dead_letter_commands", "demo_command", "entry_commands", "worker_commands"]
