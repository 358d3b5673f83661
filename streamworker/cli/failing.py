"""How a command ends when it cannot go on: one sentence on standard error, and the exit code that fits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from streamworker.errors import ConnectionLost, Refused, SetupError, StreamWorkerError, Unreachable
from streamworker.worker.exits import ExitCode


@contextmanager
def sentences_for_errors(repair: str = "") -> Iterator[None]:
    """Turn the errors that a user can mend into a sentence and an exit code. `repair` is added where no server answers."""
    try:
        yield
    except SetupError as error:
        _fail(str(error), ExitCode.USAGE)
    except Refused as error:
        hint = "write user and password in its URL: redis://user:password@host:port/0, or redis://:password@host:port/0"
        _fail(f"{str(error).removesuffix('.')}; {hint}", ExitCode.UNREACHABLE)
    except (Unreachable, ConnectionLost) as error:
        _fail(f"{str(error).removesuffix('.')}{repair}", ExitCode.UNREACHABLE)
    except StreamWorkerError as error:
        _fail(str(error), ExitCode.FAILURE)


def _fail(sentence: str, code: ExitCode) -> None:
    from rich.console import Console
    from rich.text import Text

    from streamworker.observe.printing import printable

    harmless = "\n".join(map(printable, sentence.split("\n")))  # a server's error may quote what somebody has stored there
    Console(stderr=True, soft_wrap=True).print(Text(f"Error: {harmless}", style="red"))
    raise typer.Exit(int(code))
