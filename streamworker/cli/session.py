"""A connection for the length of one command."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from streamworker.cli.failing import rights_of, sentences_for_errors
from streamworker.cli.suggesting import streams_suggested
from streamworker.errors import ConnectionLost, ServerError, SetupError, Unreachable
from streamworker.settings import Settings, from_environment
from streamworker.streams import inspecting
from streamworker.streams.connections import Endpoint
from streamworker.streams.link import Link

Result = TypeVar("Result")

_REPAIR = "; name your server with -u, such as -u redis://host:6379/0"


@dataclass(frozen=True, slots=True)
class Session:
    """A link to the server, and the loop that it lives in: the loop stands still between two calls of `run`."""

    link: Link
    _runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do `work` in the link's loop. Ctrl-C cancels it and raises `KeyboardInterrupt`."""
        return self._runner.run(work)


@contextmanager
def session(redis_url: str | None, *names: str | None, role: str) -> Iterator[Session]:
    """Connect for the `with` block, and turn what goes wrong in it into a sentence and an exit code.

    `names` are what the user typed as names of streams, groups and consumers; `role` is that whose rights the command needs.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that does not know a character must not end the command
    with sentences_for_errors(rights=rights_of(role)), streams_suggested(), asyncio.Runner() as runner:
        for name in names:
            _check_name(name)
        settings = Settings.load(os.environ, {"redis_url": redis_url}, {})
        link = Link(Endpoint(settings.read_redis_url, client_name="streamworker:cli"))
        try:
            runner.run(_reach(link, repair_of(redis_url)))
            yield Session(link, runner)
            sys.stdout.flush()  # here, where a reader that has gone away (`| head`) is still a normal end
        finally:
            runner.run(link.close())


def repair_of(redis_url: str | None) -> str:
    """What to add where no server answers: nothing, where somebody has named it."""
    return _REPAIR if redis_url is None and "redis_url" not in from_environment(os.environ) else ""


async def _reach(link: Link, repair: str) -> None:
    try:
        await inspecting.greet(link)
    except ConnectionLost as error:
        raise Unreachable(f"cannot reach Redis at {link.endpoint}: {str(error).rstrip('.')}{repair}") from error
    except ServerError as error:
        if error.code != "NOPERM":
            raise Unreachable(f"Redis at {link.endpoint} refuses us: {error}") from error


def _check_name(name: str | None) -> None:
    if name is None:
        return
    if not name:
        raise SetupError("a name is empty: write the stream's, group's or consumer's name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise SetupError(f"the name {name!r} is not UTF-8") from None
