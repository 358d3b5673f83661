"""Where the `streamworker` command begins."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; a probe, which a container runs every few seconds, without loading the rest of it."""
    if sys.argv[1:2] == ["health"]:
        from streamworker.cli.probing import ask, read_quickly

        options = read_quickly(sys.argv[2:])
        if options is not None:
            sys.exit(ask(options["addr"] or None, options["probe"]))
    if sys.argv[1:2] == ["run"]:
        _end_in_order_when_told_to()
        _have_standard_files()
        # A worker is started more often than anything else is asked for, and needs no other command.
        from streamworker.cli import worker_commands  # noqa: F401  # registers it
        from streamworker.cli.root import app

        app()
    from streamworker.cli.main import main as run

    run()


def _end_in_order_when_told_to() -> None:
    """Until the worker has handlers of its own, TERM ends it with 0: nothing is in hand, and an import may take long.

    As process 1 of a container it would not even notice TERM without this.
    """
    import os
    import signal

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


def _have_standard_files() -> None:
    """Who is started without one would give its number to a connection, which libuv does not bear and others write to by mistake."""
    import os

    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
