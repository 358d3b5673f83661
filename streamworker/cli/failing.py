"""How a command ends when it cannot go on: one sentence on standard error, and the exit code that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from streamworker.errors import ConnectionLost, Refused, ServerError, SetupError, StreamWorkerError, Unreachable
from streamworker.worker.exits import ExitCode


@contextmanager
def sentences_for_errors(repair: str = "", say: Callable[[str], None] | None = None, rights: str = "") -> Iterator[None]:
    """Turn the errors that a user can mend into a sentence and an exit code.

    `repair` is added where no server answers, and `rights` where the user lacks one;
    the sentence is printed, unless somebody else is to `say` it.
    """

    def fail(sentence: str, code: ExitCode) -> None:
        (print_error if say is None else say)(sentence)
        raise typer.Exit(int(code))

    try:
        yield
    except SetupError as error:
        fail(str(error), ExitCode.USAGE)
    except Refused as error:
        fail(f"{str(error).removesuffix('.')}{_help_with(error.__cause__)}", ExitCode.UNREACHABLE)
    except (Unreachable, ConnectionLost) as error:
        fail(f"{str(error).removesuffix('.')}{repair}", ExitCode.UNREACHABLE)
    except StreamWorkerError as error:
        lacks_right = isinstance(error, ServerError) and error.code == "NOPERM" and "streamworker acl" not in str(error)
        fail(f"{str(error).removesuffix('.')}; {rights}" if lacks_right and rights else str(error), ExitCode.FAILURE)


def _help_with(cause: BaseException | None) -> str:
    from streamworker.streams.faults import repair_of  # a supervisor does without redis

    if not isinstance(cause, ServerError):
        return ""
    hint = "`streamworker acl` prints the rights that it needs" if cause.code == "NOPERM" else repair_of(cause)
    return "" if hint is None else f"; {hint}"


def rights_of(role: str) -> str:
    """What to add where the user lacks a right that this role has."""
    return f"it takes the rights of this role: streamworker acl --role {role}"


def print_error(sentence: str) -> None:
    """Print it on standard error, for people."""
    from rich.console import Console
    from rich.text import Text

    from streamworker.observe.printing import printable

    harmless = "\n".join(map(printable, sentence.split("\n")))  # a server's error may quote what somebody has stored there
    Console(stderr=True, soft_wrap=True).print(Text(f"Error: {harmless}", style="red"))
