"""An exception as text that may leave the process: capped, and without the payload as far as we can know.

A validation error quotes its input and can grow to many megabytes, so its own text is never used. What a user's own exception says is
the user's; it is only capped.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterator
from itertools import dropwhile, islice
from pathlib import Path
from signal import Signals

from pydantic import ValidationError

from streamworker.errors import HandlerFailed, Reject, Retry, Snooze

ERROR_LIMIT = 2_000
TRACEBACK_LIMIT = 8_000
ORIGINS, ORIGIN_LIMIT = 5, 300
_PROBLEMS = 5
_OURS = str(Path(__file__).parents[1])


def describe(error: BaseException) -> str:
    """The error's type and text in one capped string. Never raises, whatever the error's `__str__` does."""
    told = _told(error)
    if told is not None:
        return cap(_own_text(told), ERROR_LIMIT)
    text = _validation_text(error) if isinstance(error, ValidationError) else _own_text(error)
    name = type(error).__qualname__
    return cap(f"{name}: {text}" if text else name, ERROR_LIMIT)


def trace(error: BaseException) -> str:
    """Where the error came from: its frames, the innermost kept when the text must be capped, its description, and what caused it."""
    told = _told(error)
    if told is not None and told.trace:
        return cap(told.trace, TRACEBACK_LIMIT)
    origins = "".join(f"\n{word} {cap(describe(other), ORIGIN_LIMIT)}" for word, other in islice(_origins(error), ORIGINS))
    frames = "".join(islice(traceback.format_list(_their_frames(error)), 30))
    room = TRACEBACK_LIMIT - ERROR_LIMIT - len(origins) - 100
    if len(frames) > room:
        frames = "…\n" + frames[-room:]
    return cap(f"Traceback (most recent call last):\n{frames}{describe(error)}{origins}", TRACEBACK_LIMIT)


def _told(error: BaseException) -> HandlerFailed | None:
    """What another process has told of the error, which is more than we can see of it here."""
    if isinstance(error, Reject | Retry | Snooze) and isinstance(error.__cause__, HandlerFailed):
        return error.__cause__
    return error if isinstance(error, HandlerFailed) else None


def _origins(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    """What the error came from: the members of a group, then the causes, each error once, however they are tied together."""
    seen, waiting = {id(error)}, deque([error])
    while waiting:
        one = waiting.popleft()
        members = one.exceptions[:ORIGINS] if isinstance(one, BaseExceptionGroup) else ()
        cause = one.__context__ if one.__cause__ is None and not one.__suppress_context__ else one.__cause__
        for word, other in [*(("with", member) for member in members), ("caused by", cause)]:
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
                yield word, other


def _their_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The innermost frames, without ours that lead to the handler: they are the same in every trace."""
    frames = traceback.extract_tb(error.__traceback__, limit=-30)
    return list(dropwhile(lambda frame: frame.filename.startswith(_OURS), frames)) or list(frames)


def in_words(returncode: int) -> str:
    """How a process ended: `exit code 1`, or the signal's name."""
    if returncode >= 0:
        return f"exit code {returncode}"
    return Signals(-returncode).name if -returncode in set(Signals) else f"signal {-returncode}"


def cap(text: str, limit: int) -> str:
    """The text, cut with an ellipsis where it is longer than `limit` characters, and always fit for UTF-8."""
    # Half a surrogate pair becomes six characters, so what is fit may be too long again.
    fit = text[: limit + 1].encode("utf-8", "backslashreplace").decode()
    return fit if len(fit) <= limit else fit[: limit - 1] + "…"


def _own_text(error: BaseException) -> str:
    try:
        return str.__str__(str(error))[: ERROR_LIMIT + 1]  # a subclass of str may be as odd as the error
    except BaseException:  # noqa: BLE001  # an error that cannot be printed is still an error to report
        return "<its text cannot be printed>"


def _validation_text(error: ValidationError) -> str:
    count = error.error_count()
    if count > 1_000:
        return f"{count} validation errors"
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    shown = "; ".join(f"{'.'.join(map(str, p['loc']))[:60]}: {p['type']}" for p in problems[:_PROBLEMS])
    return f"{count} validation errors: {shown}" + ("; …" if count > _PROBLEMS else "")
