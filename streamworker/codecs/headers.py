"""How headers become fields of an entry. Pure. How they are read is said in `streamworker/entries.py`.

User header `tenant` travels as the field `_tenant`. The W3C propagation names, `content-type` and CloudEvents' `ce_…` stay bare,
because other libraries look for them under those names.
"""

from __future__ import annotations

from collections.abc import Mapping

from streamworker.codecs.reasons import shown
from streamworker.entries import Fields, is_header
from streamworker.errors import EncodeError


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
