"""Adds to 'there is no stream' the one that was probably meant, where the program is known."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from streamworker.admin.groups import NoSuchStream
from streamworker.errors import SetupError

PROGRAM = "STREAMWORKER_APP"


@contextmanager
def streams_suggested() -> Iterator[None]:
    """Inside the block, a stream that is not there is compared with those of the program that `STREAMWORKER_APP` names."""
    try:
        yield
    except NoSuchStream as error:
        near = get_close_matches(error.stream, _streams_of_the_program(), n=1)
        raise SetupError(f"{error}; did you mean {near[0]!r}?" if near else str(error)) from None


def _streams_of_the_program() -> list[str]:
    target = os.environ.get(PROGRAM, "").strip()
    if not target:
        return []
    from streamworker.loading import load_app

    try:
        handlers = load_app(target, factory=False, app_dir=".").handlers
    except Exception:  # noqa: BLE001  # somebody's program, of which only a hint is wanted
        return []
    return sorted({stream for handler in handlers for stream in handler.streams})
