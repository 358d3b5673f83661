"""The contract between a worker and the way bodies are written. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from streamworker.delivery import Fields

Decoder: TypeAlias = Callable[[Fields], Any]
"""Turns an entry's fields into a body, or raises `DecodeError` and nothing else, whatever the entry holds."""


@runtime_checkable
class Codec(Protocol):
    """How a body and its headers become an entry's fields, and a body comes back from them.

    Everything that depends on the annotation is worked out once, in `decoder`, so that a wrong annotation fails at import.
    """

    name: str

    def encode(self, body: object, headers: Mapping[str, str]) -> Fields:
        """The fields of a new entry. Raises `EncodeError` when body or headers cannot be written."""
        ...

    def decoder(self, annotation: Any) -> Decoder:
        """What reads entries for a handler with this annotation. Raises `SetupError` when it cannot be a body."""
        ...
