"""How the bytes of one field become the value that pydantic is given, chosen once per place. Pure.

A reader raises `ValueError` when the bytes cannot be what the place needs: not UTF-8, or broken JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from pydantic_core import from_json

from streamworker.codecs.shapes import Node, Shape, Takes
from streamworker.codecs.texts import text_of
from streamworker.delivery import Fields

Reader: TypeAlias = Callable[[bytes], Any]

_STRUCTURE_STARTS = (b"{", b"[")
_QUOTED_STARTS = (b"{", b"[", b'"')
_LOOK_AHEAD = 64  # white space in front of JSON that we put up with


def reader_for(shape: Shape, *nodes: Node) -> Reader:
    """The reader for a declared place with these alternatives."""
    takes = shape.takes(*nodes)
    read = _reader_of_kind(takes, shape.words(*nodes))
    if Takes.NULL in takes and not takes & (Takes.BLANK | Takes.ANY):
        return _blank_is_none(read)
    return read


def reader_for_extra(shape: Shape, node: Node | bool) -> Reader:
    """The reader for what a mapping, or a model that keeps extra fields, holds: text, and structure where it is unmistakable."""
    if isinstance(node, bool) or Takes.ANY in shape.takes(node):
        return read_loose
    return reader_for(shape, node)


def read_raw(fields: Fields) -> dict[bytes, bytes]:
    """The entry byte for byte, headers included; of repeated names the last wins."""
    return dict(zip(fields[::2], fields[1::2], strict=True))


def read_text(value: bytes) -> str:
    """Text as it is."""
    return value.decode()


def read_loose(value: bytes) -> Any:
    """JSON when it begins as list or object and is valid; else text. A plain mapping says no more about its values."""
    return _json_or_text(value, _STRUCTURE_STARTS)


def _reader_of_kind(takes: Takes, words: list[Any]) -> Reader:
    rest = takes & ~Takes.NULL
    if Takes.RAW in rest:
        return _read_bytes if not rest & ~(Takes.RAW | Takes.BLANK) else _read_text_or_bytes
    if Takes.ANY in rest:
        return _read_any
    if Takes.STRUCTURE in rest:
        return _read_text_or_json if rest & ~Takes.STRUCTURE else _read_json
    if Takes.TEXT not in rest and any(not isinstance(word, str) for word in words):
        return _one_of(words)
    return bytes.decode  # without a Python frame: most fields of most entries come this way


def _read_bytes(value: bytes) -> bytes:
    return value


def _read_text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _read_json(value: bytes) -> Any:
    """JSON; text only where it cannot be meant as JSON, for a model whose own validator reads lists such as `a,b`."""
    try:
        return from_json(value, allow_inf_nan=False)
    except ValueError:
        if _begins(value, _STRUCTURE_STARTS):
            raise
        return value.decode()


def _read_any(value: bytes) -> Any:
    try:
        return from_json(value, allow_inf_nan=False)
    except ValueError:
        return value.decode()


def _read_text_or_json(value: bytes) -> Any:
    # A leading quote is JSON too: so is text written that could be taken for structure.
    return _json_or_text(value, _QUOTED_STARTS)


def _json_or_text(value: bytes, starts: tuple[bytes, ...]) -> Any:
    if _begins(value, starts):
        try:
            return from_json(value, allow_inf_nan=False)
        except ValueError:
            return value.decode()
    return value.decode()


def _begins(value: bytes, starts: tuple[bytes, ...]) -> bool:
    return value.startswith(starts) or value[:_LOOK_AHEAD].lstrip().startswith(starts)


def _one_of(words: list[Any]) -> Reader:
    """For literals and enumerations with numbers: pydantic compares them by value, and `'1'` is not `1`."""
    by_text = {text_of(word): word for word in words if word is not None}
    return lambda value: by_text[value] if value in by_text else value.decode()


def _blank_is_none(read: Reader) -> Reader:
    """Several clients write null as the empty text."""
    return lambda value: read(value) if value else None
