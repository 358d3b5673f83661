"""How values become the bytes of a field. Pure.

Text is written as it is, everything else as compact JSON without quotes around it: `990`, `true`, `{"city":"Rome"}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from math import isfinite
from typing import Any, TypeAlias

from pydantic_core import to_jsonable_python

Writer: TypeAlias = Callable[[Any], bytes]

UNWRITABLE = (ValueError, TypeError, AttributeError, RecursionError)
"""What pydantic and the JSON encoder raise for a value that has no JSON form, or is not what its class declares."""

_json_text = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_CONFUSABLE_STARTS = ("{", "[", '"')
_BYTES = (bytes, bytearray, memoryview)


def plain(value: object) -> Any:
    """The value as JSON knows it: text, number, boolean, list or dict. Raises `ValueError` when it has no such form."""
    if isinstance(value, Decimal) and not value.is_finite():
        raise ValueError("not a finite number")
    return to_jsonable_python(value, by_alias=True, round_trip=True)


def text_of(value: Any) -> bytes:
    """A value that `plain` gave, as a field's bytes. Raises `ValueError` for NaN, infinity and half surrogate pairs."""
    if isinstance(value, str):
        return value.encode()
    if value is True or value is False:
        return b"true" if value else b"false"
    if type(value) is int:  # the encoder costs ten times as much, and a subclass may print as something else
        return b"%d" % value
    if type(value) is float and isfinite(value):  # as the encoder writes it
        return float.__repr__(value).encode()
    return _json_text(value).encode()


def json_of(value: Any) -> bytes:
    """A value that `plain` gave, as JSON, text in quotes: for places where anything may stand."""
    return _json_text(value).encode()


def guarded_text_of(value: Any) -> bytes:
    """As `text_of`, but text that could be taken for JSON goes in quotes: for places that take text and structure."""
    if isinstance(value, str) and value.lstrip().startswith(_CONFUSABLE_STARTS):
        return json_of(value)
    return text_of(value)


def bytes_of(value: Any) -> bytes:
    """Bytes as they are, anything else as text."""
    return bytes(value) if isinstance(value, _BYTES) else text_of(plain(value))
