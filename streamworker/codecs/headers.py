"""Which fields of an entry are headers, and how they are read and written. Pure.

User header `tenant` travels as the field `_tenant`. The W3C propagation names, `content-type` and CloudEvents' `ce_…` stay bare,
because other libraries look for them under those names.
"""

from __future__ import annotations

from collections.abc import Mapping

from streamworker.codecs.reasons import shown
from streamworker.delivery import Fields
from streamworker.errors import EncodeError

_BARE = frozenset({b"traceparent", b"tracestate", b"baggage", b"content-type"})
_PREFIXES = (b"_", b"ce_")
_STARTS = frozenset({b"_", b"t", b"b", b"c"})  # one look at the first byte spares most body fields the exact comparison


def is_header(name: bytes) -> bool:
    """Whether a field of this name is a header, unless a model declares it as its own."""
    return name[:1] in _STARTS and (name in _BARE or name.startswith(_PREFIXES))


def read_headers(fields: Fields) -> dict[str, str]:
    """The headers among the fields, by their name without its leading underscore; of repeated names the last wins.

    Never raises: bytes that are not UTF-8 are shown as `\\xff`, because a broken header must not cost the body.
    """
    headers: dict[str, str] = {}
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if name[:1] in _STARTS and (name in _BARE or name.startswith(_PREFIXES)):
            bare = name[1:] if name.startswith(b"_") else name
            headers[bare.decode(errors="backslashreplace")] = value.decode(errors="backslashreplace")
    return headers


def write_headers(headers: Mapping[str, str]) -> Fields:
    """The headers as fields. Raises `EncodeError` for a name or value that could not be read back."""
    fields: Fields = []
    for name, value in headers.items():
        _check(name, value)
        try:
            wire = name.encode()
            fields += (wire if is_header(wire) else b"_" + wire, value.encode())
        except UnicodeEncodeError:
            raise EncodeError(f"header {shown(name)!r} holds half a surrogate pair, which UTF-8 cannot write") from None
    return fields


def _check(name: object, value: object) -> None:
    if not isinstance(name, str) or not name:
        raise EncodeError("a header's name is empty or not text; give it a name such as 'tenant'")
    if name.startswith("_"):
        raise EncodeError(f"header {shown(name)!r}: leave out the leading underscore, it is added in the entry")
    if name.startswith("dlq_"):
        raise EncodeError(f"header {shown(name)!r}: names that begin with 'dlq_' mark dead letters; choose another name")
    if not isinstance(value, str):
        raise EncodeError(f"header {shown(name)!r} is a {type(value).__name__}; write it as text, as in str(value)")
