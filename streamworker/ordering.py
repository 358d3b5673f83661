"""What `ordering_key=` means: how the key of a delivery is read. Pure, as long as the user's own function is."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias, get_type_hints

from pydantic import BaseModel

from streamworker.codecs import Decoder
from streamworker.delivery import Delivery
from streamworker.errors import DecodeError, SetupError

OrderingKey: TypeAlias = str | Callable[[Any], Hashable]
"""The name of a field of the body, the name of a header with its leading underscore, or a function of the body."""

KeyReader: TypeAlias = Callable[[Delivery], Hashable]
"""The key of a delivery, `None` where it has none. Raises `DecodeError`, and nothing else, when it cannot be told."""

_SCALARS = (str, bytes, int, float, bool)


def key_reader(given: OrderingKey | None, handler: str, body_type: Any, decode: Decoder) -> KeyReader | None:
    """What reads the keys of a handler's deliveries; `None` where it has no order. Raises `SetupError` with the repair."""
    if given is None:
        return None
    if isinstance(given, str):
        if given.startswith("_") and len(given) > 1:
            header = given[1:]
            return lambda delivery: delivery.headers.get(header)
        _need_field(given, handler, body_type)
        return _guarded(decode, _field_reader(given))
    if not callable(given) or isinstance(given, type):
        raise SetupError(
            f"handler {handler!r}: ordering_key is the name of a field, the name of a header such as '_key', or a function of the "
            f"body, not {given!r}"
        )
    if inspect.iscoroutinefunction(given):
        raise SetupError(
            f"handler {handler!r}: its ordering_key is async, and would give no key: write a plain function of the body"
        )
    return _guarded(decode, given)


def _guarded(decode: Decoder, of_body: Callable[[Any], Hashable]) -> KeyReader:
    def read(delivery: Delivery) -> Hashable:
        try:
            key = of_body(decode(delivery.fields))
            hash(key)
        except DecodeError:
            raise
        except BaseException as error:
            # Whatever a user's function raises concerns this entry alone, and its text may hold what is in it.
            raise DecodeError(f"its ordering key cannot be told: {type(error).__name__}") from error
        return key

    return read


def _field_reader(name: str) -> Callable[[Any], Hashable]:
    raw = name.encode()

    def read(body: Any) -> Any:
        if isinstance(body, Mapping):
            for form in (name, raw):
                if form in body:
                    return body[form]
        elif hasattr(body, name):
            return getattr(body, name)
        raise DecodeError(f"it has no field {name!r}, which is its ordering key")

    return read


def _need_field(name: str, handler: str, body_type: Any) -> None:
    known = _fields_of(body_type)
    if name in ("", "_") or (known is not None and name not in known):
        there = f"it has {', '.join(sorted(known))}" if known else "it has no fields"
        raise SetupError(
            f"handler {handler!r}: ordering_key={name!r} names no field of {getattr(body_type, '__name__', body_type)}: {there}; "
            "a header is named with its underscore, such as '_key'"
        )


def _fields_of(body_type: Any) -> set[str] | None:
    """The names that bodies of this type have; `None` where only a body tells."""
    if hasattr(body_type, "__required_keys__"):  # a TypedDict, of whichever module
        return set(get_type_hints(body_type))
    if not isinstance(body_type, type):
        return None
    if issubclass(body_type, BaseModel):
        return {*body_type.model_fields, *_properties(body_type)}
    if dataclasses.is_dataclass(body_type):
        return {field.name for field in dataclasses.fields(body_type)} | _properties(body_type)
    return set() if body_type in _SCALARS else None


def _properties(body_type: type) -> set[str]:
    return {
        name for of in body_type.__mro__[:-1] for name, value in vars(of).items() if isinstance(value, property) and name[0] != "_"
    } - {
        "model_extra",
        "model_fields_set",
    }
