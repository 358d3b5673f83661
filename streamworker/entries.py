"""What lies in a stream, as Redis sends it, and which of its fields are headers. Imports nothing of ours.

User header `tenant` travels as the field `_tenant`. The W3C propagation names, `content-type` and CloudEvents' `ce_…` stay bare,
because other libraries look for them under those names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Fields: TypeAlias = list[bytes]
"""An entry's fields as Redis sends them: name, value, name, value … Order and repeated names are kept."""

_BARE = frozenset({b"traceparent", b"tracestate", b"baggage", b"content-type"})
_PREFIXES = (b"_", b"ce_")
_STARTS = frozenset({b"_", b"t", b"b", b"c"})  # one look at the first byte spares most body fields the exact comparison


@dataclass(slots=True)
class Entry:
    """What lies in a stream: an id and its fields."""

    id: str
    fields: Fields


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
