"""What a single worker process shows of itself to its health endpoints."""

from __future__ import annotations

import os
from time import monotonic

from streamworker.supervisor.verdicts import Seen
from streamworker.worker.status import Status, Watched


class Window:
    """Keeps the last status, and when it came."""

    def __init__(self) -> None:
        self._last: tuple[Status | None, float] = (None, monotonic())

    def tell(self, status: Status) -> None:
        """Take the worker's status. Called on its event loop."""
        self._last = (status, monotonic())

    def seen(self) -> Seen:
        """The process as it showed itself last. Called in the endpoints' threads."""
        status, at = self._last
        return Seen([Watched(os.getpid(), status, monotonic() - at)])
