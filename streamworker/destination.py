"""Where a body goes to, with the type that it must have there. Pure."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from streamworker.errors import EncodeError

Body = TypeVar("Body")


class Destination(Generic[Body]):
    """A stream by its name, and the type of the bodies that it holds."""

    def __init__(self, name: str, body_type: Any) -> None:
        self.name = name
        self.body_type = body_type

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {getattr(self.body_type, '__name__', self.body_type)})"

    def name_for(self, body: Body) -> str:
        """The stream's name, for this body. Raises `EncodeError` where it is of another class."""
        self.check(body)
        return self.name

    def check(self, body: Body) -> None:
        """Raises `EncodeError` for a body of another class, as far as that can be told without looking into it."""
        if not isinstance(self.body_type, type) or self.body_type.__module__ == "builtins":
            return  # a union, a scalar: what they take is wider than their class
        try:
            fits = isinstance(body, self.body_type)
        except TypeError:
            return  # a TypedDict
        if not fits:
            raise EncodeError(
                f"stream {self.name!r} holds {self.body_type.__name__}, not {type(body).__name__}: publish what it holds"
            )


def name_of_stream(stream: str | Destination[Any], body: Any) -> str:
    """The name of a stream that is given by name or as an object."""
    return stream if isinstance(stream, str) else stream.name_for(body)
