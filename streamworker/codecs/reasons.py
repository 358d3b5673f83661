"""Why an entry could not be read, in words that are short and hold nothing of its payload. Pure.

One bad entry can make 42 MB of `str(ValidationError)`, with all of its content in it. So pydantic's text is used only for errors
whose text comes from the schema alone; all other errors are told by their type.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from streamworker.delivery import Fields
from streamworker.errors import DecodeError

_MAX_TEXT = 2_000
_MAX_NAME = 60
_MAX_MESSAGE = 120
_MAX_PARTS = 8
_MAX_LISTED = 10
_MAX_COUNTED = 1_000  # pydantic can only build all of its errors or none: 200,000 of them take half a second

# fmt: off
_TEXT_FROM_SCHEMA = frozenset(
    {
        "json_invalid", "json_type", "missing", "extra_forbidden", "invalid_key", "recursion_loop", "recursion_depth_exceeded",
        "model_type", "model_attributes_type", "dataclass_type", "dataclass_exact_type", "none_required",
        "default_factory_not_called", "greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of",
        "finite_number", "too_short", "too_long", "iterable_type", "string_type", "string_unicode", "string_too_short",
        "string_too_long", "string_pattern_mismatch", "string_not_ascii", "enum", "literal_error", "dict_type", "list_type",
        "tuple_type", "set_type", "frozen_set_type", "deque_type", "bool_type", "bool_parsing", "int_type", "int_parsing",
        "int_parsing_size", "int_from_float", "float_type", "float_parsing", "bytes_type", "bytes_too_short", "bytes_too_long",
        "date_type", "date_from_datetime_inexact", "date_past", "date_future", "time_type", "datetime_type", "datetime_past",
        "datetime_future", "timezone_naive", "timezone_aware", "time_delta_type", "is_instance_of", "is_subclass_of",
        "callable_type", "union_tag_not_found", "url_type", "url_too_long", "url_scheme", "uuid_type", "uuid_version",
        "decimal_type", "decimal_parsing", "decimal_max_digits", "decimal_max_places", "decimal_whole_digits", "complex_type",
        "complex_str_parsing",
    }
)
# fmt: on


def shown(text: str, limit: int = _MAX_NAME) -> str:
    """A name from outside, fit for a log line: capped, and without anything that moves a cursor or turns text around."""
    cut = text[:limit]
    safe = cut if cut.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return safe[:limit] + "…" if len(text) > limit or len(safe) > limit else safe


def names_in(fields: Fields) -> str:
    """The names of the entry's fields, the first few of them."""
    names = list(dict.fromkeys(fields[::2]))
    listed = ", ".join(repr(shown_bytes(name)) for name in names[:_MAX_LISTED])
    return f"{listed} and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else listed


def shown_bytes(name: bytes) -> str:
    """A field's name as `shown` would have it, whatever its bytes are."""
    # Four bytes make at most one character more than the limit needs, so a name of a megabyte is not decoded whole.
    return shown(name[: _MAX_NAME * 4 + 4].decode(errors="backslashreplace"))


def unreadable(name: bytes, error: Exception) -> DecodeError:
    """The error for one field whose bytes are not the text or JSON that its place asks for."""
    if isinstance(error, UnicodeDecodeError):
        return DecodeError(f"field {shown_bytes(name)!r} is not UTF-8")
    # The JSON parser's text is a fixed phrase and a position.
    return DecodeError(f"field {shown_bytes(name)!r} is not valid JSON: {shown(str(error), _MAX_MESSAGE)}")


def refused(error: Exception) -> DecodeError:
    """The error for a body that its type does not take."""
    if isinstance(error, ValidationError):
        return DecodeError(_listed(error))
    if isinstance(error, RecursionError):
        return DecodeError("the body is nested too deeply")
    if isinstance(error, UnicodeError):
        return DecodeError("the body is not UTF-8")
    return DecodeError(f"the body's validator raised {shown(type(error).__name__)}")


def _listed(error: ValidationError) -> str:
    count = error.error_count()
    head = f"{count} error{'' if count == 1 else 's'} in {shown(error.title)}"
    if count > _MAX_COUNTED:
        return f"{head}, too many to list"
    found = error.errors(include_input=False, include_url=False, include_context=False)
    lines = [_line(detail["loc"], detail["type"], detail["msg"]) for detail in found[:_MAX_LISTED]]
    if count > _MAX_LISTED:
        lines.append(f"and {count - _MAX_LISTED} more")
    text = "; ".join([head, *lines])
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _line(loc: tuple[Any, ...], kind: str, message: str) -> str:
    place = ".".join(shown(str(part)) for part in loc[:_MAX_PARTS]) + ("…" if len(loc) > _MAX_PARTS else "")
    told = [place, shown(kind)] if place else [shown(kind)]
    if kind in _TEXT_FROM_SCHEMA:
        told.append(shown(message, _MAX_MESSAGE))
    return ": ".join(told)
