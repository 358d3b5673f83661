"""`Stream[Model]`: a stream and what it holds, said once and shared by those who publish and those who handle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar, Unpack, overload

from streamworker.destination import Destination
from streamworker.errors import SetupError
from streamworker.handlers import Context, HandlerOptions, name_of, read_signature
from streamworker.posting import SendOptions
from streamworker.streams.keys import tag

Body = TypeVar("Body")
Returned = TypeVar("Returned")


class Program(Protocol):
    """What a stream asks of the application it belongs to."""

    @property
    def handler(self) -> Callable[..., Callable[[Any], Any]]:
        """Registers a handler."""
        ...

    async def publish(self, stream: str, body: Any, **options: Unpack[SendOptions]) -> str:
        """Add an entry."""
        ...

    async def publish_many(
        self, stream: str, bodies: Iterable[Any], *, dedupe_ids: Sequence[str] | None = None, **options: Unpack[SendOptions]
    ) -> list[str]:
        """Add entries."""
        ...

    async def cancel(self, stream: str, handle: str) -> bool:
        """Take a scheduled entry back."""
        ...


class Registers(Protocol[Body]):
    """What `stream.handler(…)` is: takes a function of the stream's body, and of a `Context` if it wants one, and returns it."""

    @overload
    def __call__(self, function: Callable[[Body, Context], Returned], /) -> Callable[[Body, Context], Returned]: ...
    @overload
    def __call__(self, function: Callable[[Body], Returned], /) -> Callable[[Body], Returned]: ...


class Stream(Destination[Body], Generic[Body]):
    """A stream of an application, and the type of its bodies; made by `app.stream`."""

    def __init__(self, program: Program, name: str, body_type: Any) -> None:
        if not isinstance(name, str) or not name:
            raise SetupError(f"a stream's name is a non-empty string, not {name!r}")
        tag(name)
        super().__init__(name, body_type)
        self._program = program

    async def publish(self, body: Body, **options: Unpack[SendOptions]) -> str:
        """Add an entry and return its id, as `app.publish` does. In a handler, `ctx.publish(stream, body)` is what you want."""
        return await self._program.publish(self.name_for(body), body, **options)

    async def cancel(self, handle: str) -> bool:
        """Take back what was published with `delay` or `at`, as `app.cancel` does."""
        return await self._program.cancel(self.name, handle)

    async def publish_many(
        self, bodies: Iterable[Body], *, dedupe_ids: Sequence[str] | None = None, **options: Unpack[SendOptions]
    ) -> list[str]:
        """Add many entries in order, pipelined, as `app.publish_many` does."""
        listed = list(bodies)
        for body in listed:
            self.check(body)
        return await self._program.publish_many(self.name, listed, dedupe_ids=dedupe_ids, **options)

    def handler(self, **options: Unpack[HandlerOptions]) -> Registers[Body]:
        """Register a function as handler of this stream, as `app.handler` does. Raises `SetupError` where its body is of another type."""
        register = self._program.handler(self.name, **options)

        def checked(function: Any) -> Any:
            found = read_signature(function).body_type
            if found != self.body_type:
                raise SetupError(
                    f"handler {name_of(function)!r} takes {_shown(found)}, but stream {self.name!r} holds {_shown(self.body_type)}: "
                    f"annotate its first parameter with that, or write @app.handler({self.name!r})"
                )
            return register(function)

        return checked


def _shown(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", annotation))
