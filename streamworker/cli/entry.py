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
    from streamworker.cli.main import main as run

    run()
