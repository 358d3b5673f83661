"""Commands as bytes: by hiredis where it is there, which is several times faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

Argument: TypeAlias = str | bytes | int | float


def _by_hand(command: tuple[Argument, ...]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for argument in command:
        value = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(value), value))
    return b"".join(parts)


def _fastest() -> Callable[[tuple[Argument, ...]], bytes]:
    try:
        import hiredis
    except ImportError:
        return _by_hand
    return cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)


pack: Callable[[tuple[Argument, ...]], bytes] = _fastest()
"""The command in the protocol. Raises `ValueError` for text that is none, such as half a surrogate pair."""
