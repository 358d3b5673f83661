"""How long to wait before the server is asked again. Not to be confused with a handler's backoff, which is a policy of the user."""

from __future__ import annotations

from random import uniform

FIRST_SECONDS = 0.1
CAP_SECONDS = 5.0


class Pauses:
    """Growing pauses with full jitter, from a tenth of a second to five, until something goes well again."""

    def __init__(self) -> None:
        self._next = FIRST_SECONDS

    def next(self) -> float:
        """The next pause in seconds."""
        pause = uniform(0, 1) * self._next  # noqa: S311  # spreads a fleet's reconnects, guards nothing
        self._next = min(CAP_SECONDS, self._next * 2)
        return pause

    def reset(self) -> None:
        """Start again with short pauses."""
        self._next = FIRST_SECONDS
