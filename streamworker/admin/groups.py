"""Which stream and which group is meant, with a sentence that says the repair where that is not clear."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from streamworker.errors import ServerError, SetupError
from streamworker.streams import groups, inspecting
from streamworker.streams.keys import keys_of
from streamworker.streams.link import Link

MOST_NAMED = 5


class NoSuchStream(SetupError):
    """There is no stream of this name."""

    def __init__(self, stream: str, sentence: str) -> None:
        super().__init__(sentence)
        self.stream = stream


async def stream_exists(link: Link, key: str) -> bool:
    """Whether there is such a stream. Raises `ServerError` when the key holds something else."""
    try:
        kind = await inspecting.kind(link, key)
    except ServerError as error:
        if error.code == "NOPERM":
            return True  # a user that may only read is not asked; the read itself will tell
        raise
    if kind not in ("stream", "none"):
        raise ServerError("WRONGTYPE", f"{key!r} is not a stream: it holds a {kind}")
    return kind == "stream"


async def choose_group(link: Link, stream: str, named: str | None, *, hint: str = "") -> str:
    """The group that is meant: the named one, or the only one there is. Raises `SetupError` when there is none, or no such group.

    `hint` is what to add where there is no such stream.
    """
    there = await stream_exists(link, stream)
    names = [info.name for info in await groups.describe(link, stream)] if there else []
    if named is not None:
        if named not in names and not await _has_left_something(link, stream, named):
            sentence = _no_such_group(stream, named, names, there)
            raise SetupError(sentence) if there else NoSuchStream(stream, sentence)
        return named
    if not there:
        raise NoSuchStream(stream, f"there is no stream {stream!r}{hint}")
    if not names:
        raise SetupError(f"stream {stream!r} has no group yet: a worker makes its group when it starts")
    if len(names) > 1:
        raise SetupError(f"stream {stream!r} has several groups: name one with --group, such as {listed(names)}")
    return names[0]


def listed(names: Sequence[str]) -> str:
    """A few names for a sentence; quoted, so that nothing in them can steer a terminal."""
    shown = ", ".join(repr(name) for name in names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"


def meant(name: str, names: Sequence[str]) -> str:
    """What to say after 'it has no …': the name that was probably meant, or those there are."""
    near = get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"it has {listed(names)}" if names else "it has none"


async def _has_left_something(link: Link, stream: str, group: str) -> bool:
    """Whether a group that is not there (any more) still has keys of its own: its dead letters outlive it."""
    keys = keys_of(stream, group)
    return await inspecting.existing(link, [keys.dead_letters, keys.retry, keys.due]) > 0


def _no_such_group(stream: str, group: str, names: Sequence[str], there: bool) -> str:
    if not there:
        return f"there is no stream {stream!r}, and nothing is left of a group {group!r} on it"
    return f"stream {stream!r} has no group {group!r}: {meant(group, names)}"
