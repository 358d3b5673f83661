"""`streamworker health` as a container's own probe runs it, again and again: with nothing imported but the standard library."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException

from streamworker.addresses import KUBERNETES, format_address, where_to_ask
from streamworker.errors import SetupError

PROBES = ("livez", "readyz", "startupz")
WITHIN_SECONDS = 5.0


def read_quickly(words: Sequence[str]) -> dict[str, str] | None:
    """The options of a command that is written as probes write it; `None` for one that wants help, or is wrong."""
    options = {"addr": "", "probe": "livez"}
    left = list(words)
    while left:
        name, equals, value = left.pop(0).partition("=")
        if not equals and left:
            value = left.pop(0)
        if name not in ("--addr", "--probe") or not value:
            return None
        options[name[2:]] = value
    return options if options["probe"] in PROBES else None


def ask(addr: str | None, probe: str) -> int:
    """Print the worker's answer to the probe in one line; 0 when it is well, 1 when it is not or does not answer, 2 for a wrong address."""
    try:
        host, port = where_to_ask(addr, os.environ)
    except SetupError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201  # the command's output
        return 2
    connection = HTTPConnection(host, port, timeout=WITHIN_SECONDS)
    try:
        connection.request("GET", f"/{probe}")
        response = connection.getresponse()
        reason = response.read(2_000).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        hint = "" if KUBERNETES in os.environ else "; outside of Kubernetes a worker answers only with --health-addr HOST:PORT"
        print(f"{probe}: nobody answers at {format_address(host, port)}: {said}{hint}")  # noqa: T201  # the command's output
        return 1
    finally:
        connection.close()
    print(f"{probe}: {reason}")  # noqa: T201  # the command's output
    return 0 if response.status == 200 else 1
