"""Every exception of the project, sorted by whose fault it is.

Three families: what a *user of the library* did wrong (`SetupError`, `EncodeError`), what the *server or the network* did
(`ConnectionLost`, `ServerError`), and what a *handler* says on purpose (`Retry`, `Snooze`, `Reject`). `DecodeError` blames the entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta


class StreamWorkerError(Exception):
    """Anything that this library raises to its user."""


# ---- the program is wrong ---------------------------------------------------------------------------------------------------


class SetupError(StreamWorkerError):
    """A registration, an import string, a setting or an option is wrong; the text names the repair."""


class EncodeError(StreamWorkerError):
    """A body or header cannot be written as an entry; nothing was sent."""


# ---- the entry is wrong -----------------------------------------------------------------------------------------------------


class DecodeError(StreamWorkerError):
    """An entry's fields do not fit the handler's type. The text is capped and carries no payload."""


class NoHandler(StreamWorkerError):
    """No handler of this worker takes entries of this type."""


class WorkerDied(StreamWorkerError):
    """Workers died while an entry ran alone, or processes of its handler with it, so it does not run again."""


class EntryFailed(StreamWorkerError):
    """A batch handler said of one entry that it failed, and gave the reason as text."""


# ---- the server or the network is wrong -------------------------------------------------------------------------------------


class ConnectionLost(StreamWorkerError):
    """The server cannot be reached, or the connection ended before the reply came.

    `may_have_run` says whether the command may have run all the same; where it is false, nothing was sent.
    """

    def __init__(self, text: str = "", *, may_have_run: bool = True) -> None:
        super().__init__(text)
        self.may_have_run = may_have_run


class Unreachable(StreamWorkerError):
    """There is no server to start with; the text names it."""


class Refused(Unreachable):
    """There is a server, but it does not let this worker in."""


class ServerError(StreamWorkerError):
    """The server refused a command. `code` is its error word (`WRONGTYPE`, `OOM`, `NOGROUP` …), `ERR` when it gave none."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class NotConfirmed(StreamWorkerError):
    """Entries were written, but not as durably as was asked for within the time; `ids` names them. Do not publish them again."""

    def __init__(self, text: str, ids: Sequence[str]) -> None:
        super().__init__(text)
        self.ids: list[str] = list(ids)


class PublishFailed(StreamWorkerError):
    """Some of the entries of a `publish_many` were not added, or nobody knows.

    `ids` has each entry's id in its position, or `None`; `errors` has the error of each of those by its position.
    """

    def __init__(self, ids: Sequence[str | None], errors: Mapping[int, StreamWorkerError]) -> None:
        first = min(errors)
        failed = f"{len(errors):,} of {len(ids):,} entries were not added, as far as is known"
        super().__init__(f"{failed}; the first, at {first}: {errors[first]}")
        self.ids: list[str | None] = list(ids)
        self.errors: dict[int, StreamWorkerError] = dict(errors)


class GroupLost(StreamWorkerError):
    """A consumer group has vanished, and the program says that a worker is to stop then."""


class NoReply(StreamWorkerError, TimeoutError):
    """A request was sent, and no reply came within its timeout; it may still be handled."""


class RequestFailed(StreamWorkerError):
    """A request was set aside as a dead letter: `reason` is that letter's, `error` what its handler raised."""

    def __init__(self, reason: str, error: str) -> None:
        super().__init__(f"the request was set aside ({reason}): {error or 'no error is known'}")
        self.reason = reason
        self.error = error


class CommitRefused(StreamWorkerError):
    """What a handler published or wrote cannot be written, whoever tries: the wrong type of key, or a value that no server takes."""


# ---- the handler says so ----------------------------------------------------------------------------------------------------


class Retry(Exception):
    """Raised by a handler: try this entry again later; counts as an attempt.

    `after` is how long to wait; without it the retry policy's backoff decides.
    """

    def __init__(self, reason: str = "", *, after: timedelta | None = None) -> None:
        _need_reason("Retry", reason)
        if after is not None:
            _need_duration("Retry", after)
        super().__init__(reason)
        self.after = after


class Snooze(Exception):
    """Raised by a handler: try this entry again after `after`; does not count as an attempt."""

    def __init__(self, reason: str = "", *, after: timedelta) -> None:
        _need_reason("Snooze", reason)
        _need_duration("Snooze", after)
        super().__init__(reason)
        self.after = after


class Reject(Exception):
    """Raised by a handler: this entry will never succeed; set it aside as a dead letter at once."""


class HandlerTimeout(TimeoutError):
    """A handler ran longer than its `timeout`."""


class HandlerFailed(StreamWorkerError):
    """What a handler has raised in a process of its own, as that has told it: the error's type and text.

    `trace` is where it came from, `gives_up` whether it is one of the handler's `give_up_on`.
    """

    def __init__(self, text: str, trace: str = "", *, gives_up: bool = False) -> None:
        super().__init__(text)
        self.trace = trace
        self.gives_up = gives_up


class HandlerDied(StreamWorkerError):
    """The process in which a handler ran has ended under it; the text says how."""


def _need_reason(word: str, reason: object) -> None:
    if isinstance(reason, (int, float, timedelta)):
        raise SetupError(
            f"{word}({reason!r}) has a number where its reason stands: write {word}(after=timedelta(seconds=30)) to say when"
        )


def _need_duration(word: str, after: object) -> None:
    if not isinstance(after, timedelta):
        raise SetupError(f"{word}(after=…) is a timedelta, for example timedelta(seconds=30), not {after!r}")
