"""The entry point of the `streamworker` command."""

from __future__ import annotations

# Importing a module of commands registers them.
from streamworker.cli import (
    acl_command,
    bench_command,
    dead_letter_commands,
    demo_command,
    entry_commands,
    flow_commands,
    health_command,
    worker_commands,
)
from streamworker.cli.root import app

__all__ = [
    "acl_command", "bench_command", "dead_letter_commands", "demo_command", "entry_commands", "flow_commands",
    "health_command", "main", "worker_commands",
]  # fmt: skip


def main() -> None:
    """Run the command line."""
    app()
