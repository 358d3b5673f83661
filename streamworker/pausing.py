"""Pausing handlers in all processes, and seeing which are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from difflib import get_close_matches

from streamworker.errors import SetupError
from streamworker.handlers import Handler, HandlerFunction
from streamworker.streams import gating
from streamworker.streams.connections import Endpoint
from streamworker.streams.gating import Pause
from streamworker.streams.link import Link


class Pausing:
    """The part of an application that pauses its handlers. Its methods raise what `publish` raises where the server does not answer."""

    handlers: list[Handler]
    _where: Callable[[], Endpoint]

    async def pause(self, handler: str | HandlerFunction, *, reason: str = "") -> bool:
        """Let nothing of this handler start any more, in any process, until `resume`; false when it was paused before.

        What runs goes on. Each process sees it within about two seconds. One that was paused keeps its reason unless there is a new one.
        Raises `SetupError` for a handler that there is not.
        """
        found = handler_called(self.handlers, handler)
        async with self._linked() as link:
            return await gating.pause(link, found.streams[0], found.group, found.name, " ".join(reason.split()))

    async def resume(self, handler: str | HandlerFunction) -> bool:
        """End a handler's pause; false when there was none. Raises `SetupError` for a handler that there is not."""
        found = handler_called(self.handlers, handler)
        async with self._linked() as link:
            return await gating.resume(link, found.streams[0], found.group, found.name)

    async def paused(self) -> Mapping[str, Pause]:
        """The handlers that are paused, by name: since when, and why."""
        found: dict[str, Pause] = {}
        async with self._linked() as link:
            for stream, group in sorted({(handler.streams[0], handler.group) for handler in self.handlers}):
                held = await gating.paused(link, stream, group)
                found |= {one.name: held[one.name] for one in self.handlers if one.group == group and one.name in held}
        return found

    @asynccontextmanager
    async def _linked(self) -> AsyncIterator[Link]:
        link = Link(self._where())
        try:
            yield link
        finally:
            await link.close()


def handler_called(handlers: list[Handler], wanted: str | HandlerFunction) -> Handler:
    """The handler of this name, or that is this function. Raises `SetupError`, with the one that was probably meant."""
    for handler in handlers:
        if wanted in (handler.name, handler.function):
            return handler
    name = wanted if isinstance(wanted, str) else getattr(wanted, "__name__", repr(wanted))
    known = sorted(handler.name for handler in handlers)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none at all'}"
    raise SetupError(f"there is no handler {name!r}: {hint}")
